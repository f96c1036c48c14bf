"""The next token, and the order of future tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.models.backbone import Backbone
from nextfail.objectives.base import Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("token_order")
class TokenOrder(Objective):
    """Every hidden state also ranks future tokens by how soon they come (TOP: Zuhri et al. 2025, arXiv 2508.19228).

        inputs   ...  =                r0            r1          r2      r3
        next     .    r0               r1            r2          r3      r4
        order    .    r0>r1>r2>r3>r4   r1>r2>r3>r4   r2>r3>r4    r3>r4   r4

    The ranking loss is ListNet's: cross-entropy between a softmax over the vocabulary, from a second unembedding, and a
    target distribution in which the token k positions ahead (0 is the next) has probability proportional to exp(-k),
    and tokens that do not follow have none. As published, the two losses are summed, the second unembedding is dropped
    at test time, and on star graphs both losses cover the positions of the path only.

    Differs from the paper in: nothing that we know of.
    """

    def build(self, backbone: Backbone) -> None:
        self.order = nn.Linear(backbone.width, backbone.vocab_size, bias=False)
        nn.init.normal_(self.order.weight, std=0.02)

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        paths, length = batch.answers, batch.answers.shape[1]
        hidden = self.states(backbone, batch.prompts, paths)  # (B, l, C)
        scores = F.log_softmax(self.order(hidden).float(), -1)  # (B, l, V)
        of_path = scores.gather(2, paths.unsqueeze(1).expand(-1, length, -1))  # (B, l, l): of token j at position i
        counts = self.counts(paths)
        asked = shares(length, paths.device) if self.vocab.end is None else shares_of(counts)
        order = self.mean(-(asked * of_path).sum(-1), counts)
        return self.next_token(backbone, hidden, paths).plus(order=order)


def shares(length: int, device: torch.device | None = None) -> Tensor:
    """Target distributions (l, l): row i is exp(i - j) over path tokens j from i on, normalised."""
    place = torch.arange(length, device=device)
    ahead = place - place.unsqueeze(1)  # (l, l): j - i
    return torch.softmax(-ahead.float().masked_fill(ahead < 0, torch.inf), -1)


def shares_of(counts: Tensor) -> Tensor:
    """As `shares`, for answers with a mask (B, l) of positions that count: 0 for the others (B, l, l)."""
    whole = shares(counts.shape[1], counts.device) * counts.unsqueeze(1)
    return whole / whole.sum(-1, keepdim=True).clamp(min=torch.finfo(whole.dtype).tiny)
