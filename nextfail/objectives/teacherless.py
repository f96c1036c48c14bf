"""All path tokens at once, without any of them as input."""

import torch
from torch import Tensor

from nextfail.models.backbone import Backbone
from nextfail.objectives.base import Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("teacherless")
class Teacherless(Objective):
    """The whole path in one causal pass over blanks (Bachmann & Nagarajan 2024, section 5, after Monea et al. 2023).

        inputs   ...  =   $   $   $   $
        labels   .    r0  r1  r2  r3  r4

    No true token is an input, so the next cannot be copied from it; there is no forced pass and no given hop to
    measure.
    """

    takes_given = False  # all tokens are written at once
    reads_prompt_once = False

    def states(self, backbone: Backbone, prompts: Tensor, written: Tensor) -> Tensor:
        return self.at_once(backbone, prompts, written.shape[1])

    def at_once(self, backbone: Backbone, prompts: Tensor, length: int) -> Tensor:
        """Hidden states (B, length, C) that predict all tokens, with blanks as inputs."""
        blanks = prompts.new_full((len(prompts), length - 1), self.vocab.blank)
        hidden: Tensor = backbone(torch.cat([prompts, blanks], 1), last=length)
        return hidden

    @torch.no_grad()
    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        self.refuse_prefix(given)
        return self.pick(self.answer(backbone, self.at_once(backbone, prompts, length)))

    def forced(self, backbone: Backbone, batch: Batch) -> None:
        return None
