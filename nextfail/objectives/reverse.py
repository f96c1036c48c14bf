"""Next-token prediction on the path written from goal to start."""

from torch import Tensor

from nextfail.objectives.base import Objective
from nextfail.source import public


@public("reverse")
class Reverse(Objective):
    """Predicts each token of the reversed path from the true ones before it (Bachmann & Nagarajan 2024, section 5).

        inputs   ...  =   r4  r3  r2  r1
        labels   .    r4  r3  r2  r1  r0

    The prompt names the goal and every node has one predecessor, so no token needs a search.
    """

    takes_given = False  # the first hop is written second to last

    def write(self, answers: Tensor) -> Tensor:
        return self.backwards(answers)

    def read(self, written: Tensor, layout: Tensor | None = None) -> Tensor:
        return self.backwards(written, layout)
