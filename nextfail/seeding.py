"""Independent random streams, derived from names and numbers and equal on every machine."""

import hashlib

import torch


def derive(*parts: int | str) -> int:
    """A seed in 0..2**63-1 that is a pure function of `parts`; different parts give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded with `derive(*parts)`."""
    return torch.Generator().manual_seed(derive(*parts))
