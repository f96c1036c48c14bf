"""The tokens on either side of any gap in the path, from the prefix and the suffix."""

from typing import Literal

import torch
from torch import Tensor, nn

from nextfail.models.backbone import Backbone
from nextfail.models.mlp import SwiGLU
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
    As published, the encoders are two models of equal size. By default, an MLP over both states, with one hidden layer
    and LeakyReLU, has one output for each of the two tokens. The released code (microsoft/BST) shares the token
    embedding of the encoders (`shared_embedding`) and has another head (`head=swiglu`). As there, only tokens of the
    path are predicted on star graphs, and the backward encoder need not read the prompt, which precedes every suffix.

    Differs from the released code in: "$" takes the place of its end token, which only the backward encoder reads;
    positions and norms are those of the backbone (there: rotary positions and RMSNorm); the MLP of the head is 8/3
    wide up to a multiple of 8 (there 128).

    Args:
        shared_embedding: whether both encoders have the same token embedding.
        head: mlp; or swiglu: a residual SwiGLU layer over both states and an RMSNorm, whose halves one unembedding maps
            to the two tokens.
    """

    def __init__(self, shared_embedding: bool = False, head: Literal["mlp", "swiglu"] = "mlp") -> None:
        super().__init__()
        self.shared_embedding, self.kind = shared_embedding, head

    def build(self, backbone: Backbone) -> None:
        self.backward_encoder = backbone.fresh()
        if self.shared_embedding:
            self.backward_encoder.tokens = backbone.tokens
        self.backward_encoder.name_tokens(self.vocab.texts)
        self.head = (MLPHead if self.kind == "mlp" else SwiGLUHead)(backbone.width, backbone.vocab_size)

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


class MLPHead(nn.Sequential):
    """Two states (..., 2 C) to the logits (..., 2 V) of two tokens: one hidden layer."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__(nn.Linear(2 * width, width), nn.LeakyReLU(), nn.Linear(width, 2 * vocab_size))


class SwiGLUHead(nn.Module):
    """Two states (..., 2 C) to the logits (..., 2 V) of two tokens: as in the released code of BST."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.mlp, self.norm = SwiGLU(2 * width), nn.RMSNorm(2 * width, eps=1e-5)
        self.unembed = nn.Linear(width, vocab_size, bias=False)
        self.mlp.initialise(0.02, 1)
        nn.init.normal_(self.unembed.weight, std=0.02)

    def forward(self, states: Tensor) -> Tensor:
        """(..., 2 C) to (..., 2 V)."""
        halves = self.norm(states + self.mlp(states)).unflatten(-1, (2, -1))  # (..., 2, C)
        logits: Tensor = self.unembed(halves).flatten(-2)
        return logits
