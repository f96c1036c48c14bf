"""What every model offers to every objective. A backbone knows nothing of graphs, prompts or objectives."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError

BIDIRECTIONAL = "bidirectional"  # forward(causal=False): every position sees every other
CUSTOM_MASK = "custom_mask"  # forward(mask=...): who sees whom is given
POSITIONS = "positions"  # forward(positions=...): positions are given instead of 0, 1, 2, ...
EMBEDDINGS = "embeddings"  # forward(embeddings=...): embeddings are given instead of ids
BEFORE_NORM = "before_norm"  # forward(before_norm=True): hidden states as they are before the final norm


class PairEmbedding(nn.Module):
    """Embeddings of pairs of ids that are one token: the sum of two, one for each id of the pair.

    The pair u, v of the first N ids has the id -1 - (u N + v), below those of single tokens.

    Args:
        count: N.
        width: channels C.
        init_std: standard deviation of initial weights.
    """

    def __init__(self, count: int, width: int, init_std: float) -> None:
        super().__init__()
        self.first, self.second = nn.Embedding(count, width), nn.Embedding(count, width)
        for table in (self.first, self.second):
            nn.init.normal_(table.weight, std=init_std)

    def forward(self, tokens: Tensor, single: Tensor) -> Tensor:
        """Ids (B, T), of pairs or not, to embeddings (B, T, C); `single` (V, C) are those of single tokens."""
        count, vocab_size = self.first.num_embeddings, len(single)
        paired, pair = tokens < 0, -1 - tokens
        # every id is a row of one table and a row of another, which is 0 for a single token
        one = torch.where(paired, vocab_size + pair // count, tokens)
        other = torch.where(paired, pair % count, count)
        x = F.embedding(one, torch.cat([single, self.first.weight]))
        return x + F.embedding(other, F.pad(self.second.weight, (0, 0, 0, 1)))


def require_above_0(**sizes: Any) -> None:
    """Raise UserError if one of a model's sizes is no number above 0."""
    for key, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise UserError(f"model.{key}={value!r} is not a number above 0")


class Backbone(nn.Module, ABC):
    """Tokens to hidden states, hidden states to logits, and decoding from a cache.

    A subclass needs `forward` alone. `step` with a cache of its own makes decoding faster, and `new_block` is asked for
    by objectives with heads of their own. Arguments of every subclass: its own sizes, then `vocab_size` (ids
    0..vocab_size-1) and `max_length` (tokens).
    """

    capabilities: frozenset[str] = frozenset()
    """Which of the optional arguments of `forward` are understood; what an objective `requires` is checked first."""

    width: int
    """Channels C of a hidden state."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        object.__setattr__(made, "_arguments", (args, kwargs))  # for `fresh`, whatever a subclass takes
        return made

    def __init__(self, vocab_size: int, max_length: int, **sizes: Any) -> None:
        """Make the embedding.

        Args:
            sizes: numbers that have to be above 0; `width` is among them.

        Raises:
            UserError: one of them is not.
        """
        super().__init__()
        require_above_0(**sizes)
        self.vocab_size, self.max_length = vocab_size, max_length
        self.width, self._pair_std = sizes["width"], sizes.get("init_std", 0.02)
        self.pairs: PairEmbedding | None = None
        self.tokens = nn.Embedding(vocab_size, self.width)  # tied: it also makes the logits

    @abstractmethod
    def forward(
        self,
        tokens: Tensor | None = None,
        *,
        last: int | None = None,
        causal: bool = True,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        embeddings: Tensor | None = None,
        before_norm: bool = False,
    ) -> Tensor:
        """Hidden states, after the final norm, of the last `last` positions (all if None).

        Args:
            tokens: (B, T) ids.
            causal: each position sees itself and what is before it; False needs `bidirectional`.
            mask: (T, T) or (B, T, T) bool, True where a row may see a column, instead of `causal`. Needs `custom_mask`.
            positions: (T,) or (B, T) ids below `max_length`. Needs `positions`.
            embeddings: (B, T, C), as `embed` makes them, instead of tokens. Needs `embeddings`.
            before_norm: return hidden states as they are before the final norm. Needs `before_norm`.

        Returns:
            (B, last, C).
        """

    def step(
        self,
        tokens: Tensor | None = None,
        cache: Any = None,
        *,
        last: int | None = None,
        embeddings: Tensor | None = None,
        before_norm: bool = False,
    ) -> tuple[Tensor, Any]:
        """Go on from what was read before: hidden states of the new tokens' last `last` positions, and the cache after.

        Equal to `forward` over all tokens so far. `cache=None` starts anew. A cache is never changed for its owner: one
        may go on from it several times, each after the one before is no longer needed (branches may share memory).
        Without a cache of its own a backbone reads again from the start, and what it keeps is what it read.

        Args:
            tokens, last, embeddings, before_norm: as of `forward`.
        """
        self.refuse_unknown(embeddings=embeddings, before_norm=before_norm)
        kind = "embeddings" if EMBEDDINGS in self.capabilities else "tokens"
        new = self.embedded(tokens, embeddings) if kind == "embeddings" else tokens
        assert new is not None
        read = new if cache is None else torch.cat([cache, new], 1)
        last = new.shape[1] if last is None else min(last, new.shape[1])
        return self(**{kind: read}, last=last, **({"before_norm": True} if before_norm else {})), read

    def final_norm(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., C) from before the final norm as they are after it. Needs `before_norm`."""
        raise UserError(f"{type(self).__name__} cannot do {BEFORE_NORM!r}")

    def new_block(self) -> nn.Module:
        """One more residual block of this kind, newly initialised, for extra heads.

        It is causal, maps (B, T, C) to (B, T, C), and called with `last=k` makes the last k positions alone.

        Raises:
            UserError: this kind of backbone has none.
        """
        raise UserError(f"{type(self).__name__} has no new_block, which this objective needs for its heads")

    def layers(self) -> Sequence[nn.Module]:
        """Its blocks, each called with (B, T, C) in turn, for those who look inside; empty if it has no such blocks."""
        return [*getattr(self, "blocks", [])]

    def attention(self, layer: int, x: Tensor, **options: Any) -> Tensor | None:
        """How much each head of a layer reads from where, (B, H, T, T); None where nothing is attended to.

        Args:
            layer: index of a block.
            x: what the block is given, (B, T, C).
            options: causal, mask and positions, as it is called with.
        """
        return None

    def name_tokens(self, texts: Sequence[str]) -> None:
        """Learn how the first ids are written, once, before training; only a model trained on text has use for it."""

    def join_pairs(self, count: int) -> None:
        """Learn to read pairs of the first `count` ids as one token, once, before training; see `PairEmbedding`."""
        self.pairs = PairEmbedding(count, self.width, self._pair_std)

    def adapt(self, device: str) -> None:
        """Take another way to compute the same, up to rounding, where a kernel that was asked for cannot be had.

        Evaluation calls it, which may be on another machine than training was; training refuses instead.

        Args:
            device: "cpu", "cuda", ...
        """

    def embed(self, tokens: Tensor) -> Tensor:
        """Ids (B, T) to embeddings (B, T, C), without positions."""
        return self.tokens(tokens) if self.pairs is None else self.pairs(tokens, self.tokens.weight)

    def logits(self, hidden: Tensor, *, frozen: bool = False) -> Tensor:
        """Hidden states (..., C) to logits (..., V), through the transposed embedding.

        Args:
            frozen: let gradients through to the hidden states alone.
        """
        weight = self._unembedding()
        return F.linear(hidden, weight.detach() if frozen else weight)

    def _unembedding(self) -> Tensor:
        return self.tokens.weight

    def fresh(self) -> Self:
        """Another backbone with the same arguments, newly initialised: for objectives with two encoders."""
        args, kwargs = self._arguments
        return type(self)(*args, **kwargs)

    def embedded(self, tokens: Tensor | None, embeddings: Tensor | None) -> Tensor:
        """Embeddings (B, T, C) of what `forward` is given.

        Raises:
            UserError: both are given, or neither is.
        """
        if (tokens is None) == (embeddings is None):
            raise UserError("a backbone reads tokens or embeddings: give one of them")
        return self.embed(tokens) if tokens is not None else embeddings  # type: ignore[return-value]

    def refuse_unknown(
        self,
        *,
        causal: bool = True,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        embeddings: Tensor | None = None,
        before_norm: bool = False,
    ) -> None:
        """Raise UserError if an option of `forward` is asked for that `capabilities` does not name."""
        asked = {
            BIDIRECTIONAL: not causal,
            CUSTOM_MASK: mask is not None,
            POSITIONS: positions is not None,
            EMBEDDINGS: embeddings is not None,
            BEFORE_NORM: before_norm,
        }
        for capability, wanted in asked.items():
            if wanted and capability not in self.capabilities:
                raise UserError(f"{type(self).__name__} cannot do {capability!r}; it can {sorted(self.capabilities)}")
