"""The commands: thin wrappers that no other module of the package imports."""
