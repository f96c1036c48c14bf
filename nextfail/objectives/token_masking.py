"""Next-token prediction with randomly masked path inputs."""

from typing import Literal

import torch
from torch import Tensor

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
    m=0 is teacher-forcing, m=1 teacherless; m=uniform draws m for each problem, uniformly from (0, 1), and so trains
    on everything between the two. Nothing is masked at test time.

    Differs from the paper in (all second-hand, as its code is not public): the paper has masks of single tokens and of
    spans, and mask tokens mixed with random ones, but the rate, the length of spans and the share of random tokens are
    unknown to us. Here "$" is the mask token, a span is as long as the number of tokens that would be masked
    independently, and random tokens are drawn from the answers of the batch.

    Args:
        m: masking probability, from 0 to 1; or uniform.
        spans: mask one contiguous span of each path instead of independent tokens.
        random: share of masked tokens that are replaced by a random token instead of "$".
    """

    def __init__(self, m: Share | Literal["uniform"] = 0.5, spans: bool = False, random: Share = 0.0) -> None:
        super().__init__()
        self.m, self.spans, self.random = m, spans, random

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        paths = batch.answers
        fed = paths.masked_fill(self.masked(paths), self.vocab.blank)
        if self.random:
            drawn, length = torch.randint(paths.numel(), paths.shape, device=paths.device), paths.shape[1]
            row = drawn // length
            other = paths[row, drawn % length * self.counts(paths).sum(1)[row] // length]  # none beyond an end
            swap = (fed != paths) & (torch.rand(paths.shape, device=paths.device) < self.random)
            fed = torch.where(swap, other, fed)
        return self.next_token(backbone, self.states(backbone, batch.prompts, fed), paths)

    def masked(self, paths: Tensor) -> Tensor:
        """Which input tokens (B, L) to mask."""
        each = torch.rand(paths.shape, device=paths.device)
        m = torch.rand(len(paths), 1, device=paths.device) if self.m == "uniform" else self.m
        hide: Tensor = each < m
        if not self.spans:
            return hide
        counts, place = self.counts(paths), torch.arange(paths.shape[1], device=paths.device)
        length = (hide & counts).sum(1, keepdim=True)
        room = counts.sum(1, keepdim=True) - length + 1  # positions at which a span of this length can start
        first = (torch.rand(len(paths), 1, device=paths.device) * room).long()
        return (place >= first) & (place < first + length)
