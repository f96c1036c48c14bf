"""The tokens next to any gap in the path, from what is before it and what is after it."""

import torch
from torch import Tensor, nn

from nextfail.models.backbone import Backbone
from nextfail.objectives.base import IGNORE, Loss, Objective
from nextfail.source import public
from nextfail.tasks.base import Batch


@public("belief_state")
class BeliefState(Objective):
    """Two encoders, one from the front and one from the back (BST: Hu et al. 2024, arXiv 2410.23506, section 2).

        forward    ...  =   r0  r1  r2  r3      states f_0 ... f_4: f_i has read i tokens of the path
        backward   $    r4  r3  r2  r1          states b_5 ... b_1: b_j has read the path from its end to r_j
        pair (i, j), i < j:  f_i, b_j  ->  r_i, the token after the prefix, and r_{j-1}, the one before the suffix

    All pairs are asked, l(l + 1)/2 of them, each for both tokens, and every answer weighs the same. At test the
    suffix is empty (b_5 of a path of 5): next tokens from f_i with that state, which is a constant of the model. As
    published, the encoders are two models of one size, and the answers come from an MLP over both states with a
    hidden layer, LeakyReLU and an output for each of the two tokens. Choices of ours: only tokens of the path are
    asked, and the backward encoder reads no prompt, which is before every suffix; "$" starts it.
    """

    def build(self, backbone: Backbone) -> None:
        width = backbone.width
        self.backward_encoder = backbone.fresh()
        self.backward_encoder.name_tokens(self.vocab.texts)
        self.head = nn.Sequential(
            nn.Linear(2 * width, width), nn.LeakyReLU(), nn.Linear(width, 2 * backbone.vocab_size)
        )

    def pairs(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """States (..., C) of prefix and suffix to logits (..., V): of the token after the one, and before the other."""
        after_prefix, before_suffix = self.head(torch.cat([before, after], -1)).chunk(2, -1)
        return after_prefix, before_suffix

    def suffixes(self, paths: Tensor) -> Tensor:
        """States b_1 ... b_l (B, l, C) of suffixes of paths (B, l): from r_1 on, ..., from r_{l-1} on, and empty."""
        blank = paths.new_full((len(paths), 1), self.vocab.blank)
        if self.vocab.end is None:
            states: Tensor = self.backward_encoder(torch.cat([blank, paths.flip(1)[:, :-1]], 1))
            return states.flip(1)
        place = torch.arange(paths.shape[1], device=paths.device)
        length = self.counts(paths).sum(1, keepdim=True)  # (B, 1), the end token counted
        turned = torch.where(place < length, length - 1 - place, place)  # from the end on, as read by the encoder
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
        asked = self.counts(paths)[:, suffix]  # (B, pairs): a suffix begins where the answer has not ended
        losses = {"after_prefix": (after_prefix, paths[:, prefix]), "before_suffix": (before_suffix, paths[:, suffix])}
        parts = {
            name: self.cross_entropy(logits, labels.masked_fill(~asked, IGNORE)).total / 2
            for name, (logits, labels) in losses.items()
        }
        # each prefix with the empty suffix, as at test: what the accuracy in training is of
        first = torch.arange(length, device=paths.device)
        last = self.counts(paths).sum(1, keepdim=True) - 1  # (B, 1): the place that the empty suffix comes after
        empty = first * length - first * (first - 1) // 2 + (last - first).clamp(min=0)  # (B, l): number of the pair
        logits = after_prefix.gather(1, empty.unsqueeze(-1).expand(-1, -1, after_prefix.shape[-1]))
        return Loss(torch.stack(list(parts.values())).sum(), logits, self.labels(paths), parts)
