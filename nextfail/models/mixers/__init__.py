"""Sequence mixers, one per file."""
