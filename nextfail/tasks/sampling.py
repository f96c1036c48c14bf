"""Sampling and hashing for tasks, vectorised over problems and identical on every machine."""

import torch
from torch import Tensor


def any_of(where: Tensor, generator: torch.Generator) -> Tensor:
    """Index (B,) of a uniformly random True position in each row (B, n) bool."""
    count = where.sum(1)
    wanted = (torch.rand(len(where), generator=generator, dtype=torch.float64) * count).long()  # 0 .. count - 1
    return ((where.cumsum(1) == 1 + wanted.unsqueeze(1)) & where).long().argmax(1)


def draw_without_replacement(count: int, total: int, chosen: int, generator: torch.Generator) -> Tensor:
    """`count` rows of `chosen` distinct numbers from 0..total-1, uniform over ordered choices.

    The first steps of a Fisher-Yates shuffle, on all rows at once. Returns (count, chosen) int16.
    """
    pool = torch.arange(total, dtype=torch.int16).repeat(count, 1)
    chosen_ones = []
    for i in range(chosen):
        pick = torch.randint(i, total, (count, 1), generator=generator)
        chosen_ones.append(pool.gather(1, pick))
        pool.scatter_(1, pick, pool[:, i : i + 1].clone())  # position i itself is not read again
    return torch.cat(chosen_ones, 1)


def mix(x: Tensor) -> Tensor:
    """The 64-bit mixer of Steele, Lea & Flood, elementwise on int64 with wrap-around: identical on every machine."""

    def shifted(z: Tensor, bits: int) -> Tensor:
        return (z >> bits) & ((1 << (64 - bits)) - 1)  # a logical shift; torch's own keeps the sign

    x = x * -7046029254386353131  # 0x9E3779B97F4A7C15
    x = (x ^ shifted(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ shifted(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ shifted(x, 31)
