"""The search written out before the answer."""

import torch
from torch import Tensor

from nextfail.objectives.base import Objective
from nextfail.source import public


@public("scratchpad")
class Scratchpad(Objective):
    """The control: the path from goal to start, then the path.

        inputs   ...  =   r4  r3  r2  r1  r0  =   r0  r1  r2  r3
        labels   .    r4  r3  r2  r1  r0  =   r0  r1  r2  r3  r4

    Every token of the reversed path is one look-up away, as in `Reverse`; the first hop is then copied from it. This
    shows what supervision of the search can achieve; it is no remedy for learning without it. A choice of ours: a
    second "=" separates the two.
    """

    takes_given = False  # the first hop comes after the search

    def written_length(self, length: int) -> int:
        return 2 * length + 1

    def write(self, answers: Tensor) -> Tensor:
        equals = answers.new_full((len(answers), 1), self.vocab.equals)
        if self.vocab.end is None:
            return torch.cat([self.backwards(answers), equals, answers], 1)
        # the reversed path is as long as its answer; the end token comes once, at the end
        length = self.lengths(answers)
        both = torch.cat([self.backwards(answers), equals, answers], 1)  # (B, 2 L + 1)
        place = torch.arange(self.written_length(answers.shape[1]), device=answers.device)
        start = answers.shape[1] - length  # how much shorter than the longest answer
        return both.gather(1, torch.where(place < length, place, (place + start).clamp(max=both.shape[1] - 1)))

    def read(self, written: Tensor, layout: Tensor | None = None) -> Tensor:
        if self.vocab.end is None:
            return written[:, written.shape[1] // 2 + 1 :]
        equals = (written if layout is None else layout) == self.vocab.equals
        first = torch.where(equals.any(1), equals.long().argmax(1), written.shape[1])  # (B,); without one, no answer
        place = first.unsqueeze(1) + 1 + torch.arange(written.shape[1] // 2, device=written.device)
        return written.gather(1, place.clamp(max=written.shape[1] - 1))
