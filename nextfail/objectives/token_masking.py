"""Next-token training on a path of which some tokens are hidden."""

import torch

from nextfail.config import Share
from nextfail.models.backbone import Backbone
from nextfail.objectives.base import Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("token_masking")
class TokenMasking(Objective):
    """Teacher-forcing in which each token fed is hidden with probability m (Frydenlund 2025, arXiv 2503.10542).

        inputs   ...  =   r0  $   r2  $
        labels   .    r0  r1  r2  r3  r4

    Where the token before is hidden, the next one cannot be copied from it and has to be found from what is left.
    With m=0 this is teacher-forcing, with m=1 teacherless. At test nothing is hidden. A choice of ours: "$" hides a
    token.

    Args:
        m: probability, from 0 to 1.
    """

    def __init__(self, m: Share = 0.5) -> None:
        super().__init__()
        self.m = m

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        hide = torch.rand(batch.answers.shape, device=batch.answers.device) < self.m
        fed = batch.answers.masked_fill(hide, self.vocab.blank)
        return self.next_token(backbone, self.states(backbone, batch.prompts, fed), batch.answers)
