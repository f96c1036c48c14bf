"""Random trees, and the way from the root to a leaf."""
