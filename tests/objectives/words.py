"""A task whose answers have different lengths, and problems of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nextfail.objectives import IGNORE
from nextfail.seeding import generator
from nextfail.tasks import Batch, Task
from nextfail.tasks.base import Probe

EQUALS, BLANK, END = 8, 9, 10
V = 11
X = IGNORE


class Signs:
    """Eight digits and what every task needs."""

    size, equals, blank, end, pairs = V, EQUALS, BLANK, END, None
    texts: ClassVar = [*map(str, range(8)), "=", "$", "."]


@dataclass(frozen=True)
class Words(Task):
    """Three tokens are asked, the last of them "=", and from 0 to longest - 1 digits are answered, and the end."""

    probes: ClassVar = (Probe("rest", prefix=2),)
    hard_position: ClassVar = 1
    vocab: ClassVar = Signs()  # type: ignore[misc]
    prompt_length: ClassVar = 3  # type: ignore[misc]
    chance: ClassVar = 0.5  # type: ignore[misc]
    distinct: ClassVar = 64  # type: ignore[misc]

    longest: int = 5

    @property
    def answer_length(self) -> int:
        return self.longest

    def sample(self, count: int, generator: torch.Generator, group: int = 1) -> Batch:
        prompts, answers = (torch.randint(8, (count, k), generator=generator) for k in (3, self.longest))
        prompts[:, -1] = EQUALS
        length = torch.randint(self.longest, (count, 1), generator=generator)
        place = torch.arange(self.longest)
        return Batch(prompts, answers.masked_fill(place >= length, END), place <= length)

    def keys(self, batch: Batch) -> Tensor:
        return batch.prompts[:, 0] * 8 + batch.prompts[:, 1]

    def outcome(self, metrics: Mapping[str, Any], finite: bool, judged_by: str) -> str:
        return "solved" if finite and metrics[judged_by]["value"] >= 0.95 else "undertrained"

    def known_prefix(self, prompts: Tensor) -> Tensor:
        return prompts[:, :1]


WORDS = Words()


def problems(*digits: list[int], longest: int = 5) -> Batch:
    """Problems with these answers, each asked for by two digits of its own."""
    rows = [[*row, *[END] * (longest - len(row))] for row in digits]
    mask = [[place <= len(row) for place in range(longest)] for row in digits]
    prompts = [[i, (3 * i + 1) % 8, EQUALS] for i in range(len(digits))]
    return Batch(torch.tensor(prompts), torch.tensor(rows), torch.tensor(mask))


FIVE = problems([3, 1], [2], [], [1, 2, 3, 4], [5, 0, 6])
LENGTHS = [3, 2, 1, 5, 4]  # of FIVE, the end token counted


def apart(batch: Batch) -> Iterator[tuple[int, Batch]]:
    """Each problem alone, cut after its end token, and how long it then is."""
    for i in range(len(batch.answers)):
        row, length = batch.rows(slice(i, i + 1)), int(batch.mask[i].sum())
        yield length, Batch(row.prompts, row.answers[:, :length], row.mask[:, :length])


def junk(batch: Batch, seed: int = 0) -> Batch:
    """The same problems with anything at all after the end."""
    anything = torch.randint(V, batch.answers.shape, generator=generator("junk", seed))
    return batch._replace(answers=torch.where(batch.mask, batch.answers, anything))
