"""What was published, held against runs."""
