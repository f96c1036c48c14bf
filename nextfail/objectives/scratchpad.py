"""The search spelled out before the answer."""

import torch
from torch import Tensor

from nextfail.objectives.base import Objective
from nextfail.source import public


@public("scratchpad")
class Scratchpad(Objective):
    """The path from the goal back to the start, and then the path: the control.

        inputs   ...  =   r4  r3  r2  r1  r0  =   r0  r1  r2  r3
        labels   .    r4  r3  r2  r1  r0  =   r0  r1  r2  r3  r4

    Every token of it is one look-up away, as in `Reverse`; then the first hop stands in the text and is copied. It
    shows what supervision that spells the search out can do, and is no remedy for learning without it. A choice of
    ours: a second "=" separates the two.
    """

    takes_given = False  # the first hop comes after the search

    def written_length(self, length: int) -> int:
        return 2 * length + 1

    def write(self, paths: Tensor) -> Tensor:
        return torch.cat([paths.flip(1), paths.new_full((len(paths), 1), self.vocab.equals), paths], 1)

    def read(self, written: Tensor) -> Tensor:
        return written[:, written.shape[1] // 2 + 1 :]
