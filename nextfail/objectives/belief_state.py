"""The tokens on either side of any gap in the path, from the prefix and the suffix."""

import torch
from torch import Tensor, nn

from nextfail.models.backbone import Backbone
from nextfail.objectives.base import IGNORE, Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("belief_state")
class BeliefState(Objective):
    """Forward and backward encoders, for prefixes and suffixes (BST: Hu et al. 2024, arXiv 2410.23506, section 2).

        forward    ...  =   r0  r1  r2  r3      states f_0 ... f_4: f_i has read i tokens of the path
        backward   $    r4  r3  r2  r1          states b_5 ... b_1: b_j has read the path from its end to r_j
        pair (i, j), i < j:  f_i, b_j  ->  r_i, the token after the prefix, and r_{j-1}, the one before the suffix

    The loss covers all l(l + 1)/2 pairs, with both tokens of each; all predictions have equal weight. At test time the
    suffix is empty (b_5 for a path of 5): next tokens are predicted from f_i and that state, a constant of the model.
    As published, the encoders are two models of equal size, and an MLP over both states, with one hidden layer and
    LeakyReLU, has one output for each of the two tokens. Choices of ours: only path tokens are predicted; the backward
    encoder does not read the prompt, which precedes every suffix; "$" starts it.
    """

    def build(self, backbone: Backbone) -> None:
        width = backbone.width
        self.backward_encoder = backbone.fresh()
        self.backward_encoder.name_tokens(self.vocab.texts)
        self.head = nn.Sequential(
            nn.Linear(2 * width, width), nn.LeakyReLU(), nn.Linear(width, 2 * backbone.vocab_size)
        )

    def pairs(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (..., V) of the tokens after the prefix and before the suffix, from their states (..., C)."""
        after_prefix, before_suffix = self.head(torch.cat([before, after], -1)).chunk(2, -1)
        return after_prefix, before_suffix

    def suffixes(self, paths: Tensor) -> Tensor:
        """States b_1 ... b_l (B, l, C) of suffixes of paths (B, l): from r_1 on, ..., from r_{l-1} on, and empty."""
        blank = paths.new_full((len(paths), 1), self.vocab.blank)
        if self.vocab.end is None:
            states: Tensor = self.backward_encoder(torch.cat([blank, paths.flip(1)[:, :-1]], 1))
            return states.flip(1)
        place = torch.arange(paths.shape[1], device=paths.device)
        length = self.counts(paths).sum(1, keepdim=True)  # (B, 1), including the end token
        turned = torch.where(place < length, length - 1 - place, place)  # reversed, as the encoder reads it
        states = self.backward_encoder(torch.cat([blank, paths.gather(1, turned)[:, :-1]], 1))
        return states.gather(1, turned.unsqueeze(-1).expand_as(states))

    def answer(self, backbone: Backbone, hidden: Tensor) -> Tensor:
        empty = torch.full((1, 1), self.vocab.blank, device=hidden.device)
        return self.pairs(hidden, self.backward_encoder(empty).expand_as(hidden))[0]

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        paths, length = batch.answers, batch.answers.shape[1]
        prefix, suffix = torch.triu_indices(length, length, device=paths.device)  # pair (i, j) as (i, j - 1)
        before, after = self.states(backbone, batch.prompts, paths), self.suffixes(paths)  # (B, l, C) both
        after_prefix, before_suffix = self.pairs(before[:, prefix], after[:, suffix])  # (B, pairs, V)
        asked = self.counts(paths)[:, suffix]  # (B, pairs): suffixes that start within the answer
        losses = {"after_prefix": (after_prefix, paths[:, prefix]), "before_suffix": (before_suffix, paths[:, suffix])}
        parts = {
            name: self.cross_entropy(logits, labels.masked_fill(~asked, IGNORE)).total / 2
            for name, (logits, labels) in losses.items()
        }
        # training accuracy is measured as at test time: each prefix with the empty suffix
        first = torch.arange(length, device=paths.device)
        last = self.counts(paths).sum(1, keepdim=True) - 1  # (B, 1): last position before the empty suffix
        empty = first * length - first * (first - 1) // 2 + (last - first).clamp(min=0)  # (B, l): index of the pair
        logits = after_prefix.gather(1, empty.unsqueeze(-1).expand(-1, -1, after_prefix.shape[-1]))
        return Loss(torch.stack(list(parts.values())).sum(), logits, self.labels(paths), parts)
