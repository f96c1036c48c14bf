"""The path-star graph."""
