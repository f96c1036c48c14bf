"""Next-token prediction with randomly masked path inputs."""

import torch

from nextfail.config import Share
from nextfail.models.backbone import Backbone
from nextfail.objectives.base import Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("token_masking")
class TokenMasking(Objective):
    """Teacher-forcing with each input token of the path masked with probability m (Frydenlund 2025, arXiv 2503.10542).

        inputs   ...  =   r0  $   r2  $
        labels   .    r0  r1  r2  r3  r4

    If the previous token is masked, the next one cannot be copied from it and must be inferred from the other tokens.
    m=0 is teacher-forcing, m=1 teacherless. Nothing is masked at test time. A choice of ours: "$" is the mask token.

    Args:
        m: masking probability, from 0 to 1.
    """

    def __init__(self, m: Share = 0.5) -> None:
        super().__init__()
        self.m = m

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        hide = torch.rand(batch.answers.shape, device=batch.answers.device) < self.m
        fed = batch.answers.masked_fill(hide, self.vocab.blank)
        return self.next_token(backbone, self.states(backbone, batch.prompts, fed), batch.answers)
