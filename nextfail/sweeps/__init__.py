"""Sweeps: what is to be done, where it is done, and what came of it."""
