"""Random trees: the path from the root to a leaf."""
