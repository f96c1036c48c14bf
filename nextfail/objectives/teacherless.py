"""All tokens of the path at once, without seeing any of them."""

import torch
from torch import Tensor

from nextfail.models.backbone import Backbone
from nextfail.objectives.base import Objective
from nextfail.source import public
from nextfail.tasks.path_star.graph import Batch


@public("teacherless")
class Teacherless(Objective):
    """The whole path in one causal pass over blanks (Bachmann & Nagarajan 2024, section 5, after Monea et al. 2023).

        inputs   ...  =   $   $   $   $
        labels   .    r0  r1  r2  r3  r4

    No true token is fed, so there is nothing to copy the next one from, and no forced pass and no given hop to measure.
    """

    takes_given = False  # all tokens are written at once

    def inputs(self, prompts: Tensor, written: Tensor) -> Tensor:
        blanks = prompts.new_full((len(prompts), written.shape[1] - 1), self.vocab.blank)
        return torch.cat([prompts, blanks], 1)

    @torch.no_grad()
    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        self.refuse_prefix(given)
        shape = prompts.new_empty(len(prompts), length)  # only its length is looked at
        return self.answer(backbone, self.states(backbone, prompts, shape)).argmax(-1)

    def forced(self, backbone: Backbone, batch: Batch) -> None:
        return None
