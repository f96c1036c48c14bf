"""Many runs as tables, figures and pages."""
