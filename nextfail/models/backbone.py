"""The backbone protocol: what every model offers to objectives, independent of tasks and objectives."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError

BIDIRECTIONAL = "bidirectional"  # forward(causal=False): all positions attend to each other
CUSTOM_MASK = "custom_mask"  # forward(mask=...): explicit attention mask
POSITIONS = "positions"  # forward(positions=...): position ids instead of 0, 1, 2, ...
EMBEDDINGS = "embeddings"  # forward(embeddings=...): embeddings instead of token ids
BEFORE_NORM = "before_norm"  # forward(before_norm=True): hidden states before the final norm


class PairEmbedding(nn.Module):
    """Embeddings of id pairs that form one token: the sum of two embeddings, one per id of the pair.

    The pair u, v of the first N ids has the id -1 - (u N + v), below the ids of single tokens.

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
        """Embeddings (B, T, C) of ids (B, T), pairs or not; `single` (V, C) are the embeddings of single tokens."""
        count, vocab_size = self.first.num_embeddings, len(single)
        paired, pair = tokens < 0, -1 - tokens
        # each id maps to one row of each table; the second row is 0 for single tokens
        one = torch.where(paired, vocab_size + pair // count, tokens)
        other = torch.where(paired, pair % count, count)
        x = F.embedding(one, torch.cat([single, self.first.weight]))
        return x + F.embedding(other, F.pad(self.second.weight, (0, 0, 0, 1)))


def require_above_0(**sizes: Any) -> None:
    """Raise UserError if a model size is not a number above 0."""
    for key, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise UserError(f"model.{key}={value!r} is not a number above 0")


class Backbone(nn.Module, ABC):
    """Tokens to hidden states, hidden states to logits, and cached decoding.

    A subclass needs `forward` only. Override `step` with a real cache for faster decoding, and `new_block` for
    objectives with additional heads. Every subclass takes its own sizes, then `vocab_size` (ids 0..vocab_size-1) and
    `max_length` (tokens).
    """

    capabilities: frozenset[str] = frozenset()
    """Supported optional arguments of `forward`; checked against an objective's `requires`."""

    width: int
    """Channels C of a hidden state."""

    bounded = True
    """Whether a sequence of more than `max_length` tokens cannot be read."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        object.__setattr__(made, "_arguments", (args, kwargs))  # for `fresh`, whatever the subclass's signature
        return made

    def __init__(self, vocab_size: int, max_length: int, **sizes: Any) -> None:
        """Create the embedding.

        Args:
            sizes: numbers that must be above 0, including `width`.

        Raises:
            UserError: a size is not a number above 0.
        """
        super().__init__()
        require_above_0(**sizes)
        self.vocab_size, self.max_length = vocab_size, max_length
        self.width, self._pair_std = sizes["width"], sizes.get("init_std", 0.02)
        self.pairs: PairEmbedding | None = None
        self.tokens = nn.Embedding(vocab_size, self.width)  # tied with the unembedding

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
        """Hidden states of the last `last` positions (all if None), after the final norm.

        Args:
            tokens: (B, T) ids.
            causal: each position attends only to itself and earlier ones; False needs `bidirectional`.
            mask: (T, T) or (B, T, T) bool, True where a row sees a column; replaces `causal`. Needs `custom_mask`.
            positions: (T,) or (B, T) ids below `max_length`. Needs `positions`.
            embeddings: (B, T, C), as returned by `embed`, instead of tokens. Needs `embeddings`.
            before_norm: return the hidden states before the final norm. Needs `before_norm`.

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
        """Continue from a cache: hidden states of the last `last` new positions, and the updated cache.

        Equivalent to `forward` over all tokens so far. `cache=None` starts a new sequence. The given cache stays valid:
        several continuations may start from it, each once the previous one is no longer needed (they may share memory).
        By default the cache is the input so far, which is read again from the start.

        Args:
            tokens, last, embeddings, before_norm: as for `forward`.
        """
        self.refuse_unknown(embeddings=embeddings, before_norm=before_norm)
        kind = "embeddings" if EMBEDDINGS in self.capabilities else "tokens"
        new = self.embedded(tokens, embeddings) if kind == "embeddings" else tokens
        assert new is not None
        read = new if cache is None else torch.cat([cache, new], 1)
        last = new.shape[1] if last is None else min(last, new.shape[1])
        return self(**{kind: read}, last=last, **({"before_norm": True} if before_norm else {})), read

    def final_norm(self, hidden: Tensor) -> Tensor:
        """Apply the final norm to hidden states (..., C). Needs `before_norm`."""
        raise UserError(f"{type(self).__name__} does not support {BEFORE_NORM!r}")

    def remove_blocks(self, count: int) -> None:
        """Remove the last `count` blocks, for objectives whose heads replace them.

        Raises:
            UserError: fewer than one block would be left, or this backbone cannot do that.
        """
        raise UserError(f"{type(self).__name__} has no remove_blocks, which this objective needs")

    def new_block(self) -> nn.Module:
        """One more residual block of this kind, newly initialised, for additional heads.

        It is causal and maps (B, T, C) to (B, T, C), or to the last k positions if called with `last=k`.

        Raises:
            UserError: this backbone has no such block.
        """
        raise UserError(f"{type(self).__name__} has no new_block, which this objective needs for its heads")

    def layers(self) -> Sequence[nn.Module]:
        """Its blocks in order, each called with (B, T, C), for inspection; empty if it has no such blocks."""
        return [*getattr(self, "blocks", [])]

    def attention(self, layer: int, x: Tensor, **options: Any) -> Tensor | None:
        """Attention weights (B, H, T, T) of a layer; None if the layer has no attention.

        Args:
            layer: index of a block.
            x: the block's input, (B, T, C).
            options: causal, mask and positions, as passed to the block.
        """
        return None

    def name_tokens(self, texts: Sequence[str]) -> None:
        """Receive the texts of the first ids, once, before training; used only by models pretrained on text."""

    def join_pairs(self, count: int) -> None:
        """Enable ids for pairs of the first `count` ids, once, before training; see `PairEmbedding`."""
        self.pairs = PairEmbedding(count, self.width, self._pair_std)

    def adapt(self, device: str) -> None:
        """Switch to an equivalent computation, up to rounding, if a requested kernel is unavailable.

        Called for evaluation, which may run on another machine than training; training raises instead.

        Args:
            device: "cpu", "cuda", ...
        """

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, T, C) of ids (B, T), without positions."""
        return self.tokens(tokens) if self.pairs is None else self.pairs(tokens, self.tokens.weight)

    def logits(self, hidden: Tensor, *, frozen: bool = False) -> Tensor:
        """Logits (..., V) of hidden states (..., C), by the transposed embedding.

        Args:
            frozen: no gradient to the unembedding, only to the hidden states.
        """
        weight = self._unembedding()
        return F.linear(hidden, weight.detach() if frozen else weight)

    def _unembedding(self) -> Tensor:
        return self.tokens.weight

    def fresh(self) -> Self:
        """A new backbone with the same arguments, newly initialised: for objectives with two encoders."""
        args, kwargs = self._arguments
        return type(self)(*args, **kwargs)

    def embedded(self, tokens: Tensor | None, embeddings: Tensor | None) -> Tensor:
        """Embeddings (B, T, C) of the inputs to `forward`.

        Raises:
            UserError: both tokens and embeddings are given, or neither.
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
        """Raise UserError if an option of `forward` is used that is not in `capabilities`."""
        asked = {
            BIDIRECTIONAL: not causal,
            CUSTOM_MASK: mask is not None,
            POSITIONS: positions is not None,
            EMBEDDINGS: embeddings is not None,
            BEFORE_NORM: before_norm,
        }
        for capability, wanted in asked.items():
            if wanted and capability not in self.capabilities:
                raise UserError(
                    f"{type(self).__name__} does not support {capability!r}; it supports {sorted(self.capabilities)}"
                )
