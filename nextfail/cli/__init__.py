"""The commands: thin shells that nothing else imports."""
