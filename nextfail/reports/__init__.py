"""Reports on many runs: tables, figures and pages."""
