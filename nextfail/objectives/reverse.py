"""Next-token training on the path written from the goal to the start."""

from torch import Tensor

from nextfail.objectives.base import Objective
from nextfail.source import public


@public("reverse")
class Reverse(Objective):
    """Each token of the reversed path from the true ones before it (Bachmann & Nagarajan 2024, section 5).

        inputs   ...  =   r4  r3  r2  r1
        labels   .    r4  r3  r2  r1  r0

    The goal stands in the prompt and every node has one predecessor, so no token needs a search.
    """

    takes_given = False  # the first hop is written last but one

    def write(self, answers: Tensor) -> Tensor:
        return self.backwards(answers)

    def read(self, written: Tensor, layout: Tensor | None = None) -> Tensor:
        return self.backwards(written, layout)
