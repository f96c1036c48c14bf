"""The next token, and the set of tokens after it."""

from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.config import NotNegative
from nextfail.models.backbone import Backbone
from nextfail.objectives.base import Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("future_summary", revision=2)
class FutureSummary(Objective):
    """Also predicts which tokens come after the next (FSP-BoW: Mahajan et al. 2025, arXiv 2510.14751).

        inputs   ...  =                r0            r1        r2      r3
        next     .    r0               r1            r2        r3      r4
        bag      .    {r1,r2,r3,r4}    {r2,r3,r4}    {r3,r4}   {r4}    .

    An additional linear head has one logit for each vocabulary token, trained by binary cross-entropy to predict
    whether the token is in the bag: the paper's a(t), the set of x_{t+2}, x_{t+3}, ... where x_{t+1} is next, so here
    all tokens after r_t. As published, the loss is summed over the vocabulary, the bag of a star graph extends to the
    end of the path, and the head is dropped at test time.

    Differs from the paper in (second-hand):
        - The default weight is 0.1. The paper has no weight, that is 1: with it, the gradient of the bag is 137 times
          that of the next token at the first step of the demo's model, and twice that after a hundred (LOG.md).
        - All tokens have equal weight; the paper weights them by importance, which says little about node labels.
        - The loss is averaged over the positions of the path, except the last, whose bag is empty. Whether the paper's
          covers the prompt, and whether its head is linear, is unknown to us.

    Args:
        weight: weight of the bag loss, which is added to the next-token cross-entropy.
    """

    def __init__(self, weight: NotNegative = 0.1) -> None:
        super().__init__()
        self.weight = weight

    def build(self, backbone: Backbone) -> None:
        self.summary = nn.Linear(backbone.width, backbone.vocab_size)

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        paths = batch.answers
        hidden = self.states(backbone, batch.prompts, paths)  # (B, l, C)
        logits = self.summary(hidden[:, :-1]).float()  # (B, l - 1, V)
        counts = self.counts(paths)
        bag = bags(paths, logits.shape[-1], None if self.vocab.end is None else counts)
        each = F.binary_cross_entropy_with_logits(logits, bag, reduction="none")
        summary = self.mean(each.sum(-1), counts[:, 1:])  # positions followed by another token
        return self.next_token(backbone, hidden, paths).plus(summary=self.weight * summary)


def bags(paths: Tensor, vocab_size: int, counts: Tensor | None = None) -> Tensor:
    """Targets (B, l - 1, V), 0 or 1: which vocabulary tokens come after each token of paths (B, l), except the last.

    Args:
        counts: mask (B, l) of the positions that count; all if None.
    """
    tokens = F.one_hot(paths[:, 1:], vocab_size)
    if counts is not None:
        tokens = tokens * counts[:, 1:].unsqueeze(-1)
    after = tokens.flip(1).cumsum(1).flip(1)  # (B, l - 1, V)
    return after.clamp(max=1).float()
