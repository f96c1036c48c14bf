"""nextfail: how next-token prediction fails on path-star graphs, and what repairs it."""

__version__ = "0.1.0"
