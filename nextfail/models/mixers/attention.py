"""Multi-head attention (Vaswani et al. 2017), optionally with rotary positions and query-key norms."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models.backbone import BIDIRECTIONAL, CUSTOM_MASK, POSITIONS
from nextfail.models.mixers.base import Mixer

ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class KVCache:
    """Keys and values of the first `length` positions, in one (2, B, H, max_length, C/H) buffer."""

    buffer: Tensor
    length: int


class Attention(Mixer):
    """Multi-head attention with biases, as in GPT-2.

    Args:
        width: channels C; a multiple of `heads`.
        heads: H.
        max_length: longest sequence, in tokens.
        rope: rotary positions (Su et al. 2021); channel i of a head is paired with channel i + C/2H.
        qk_norm: RMSNorm of queries and keys per head, before rotation (Henry et al. 2020; as in Qwen3).

    Raises:
        UserError: the sizes do not fit each other.
    """

    capabilities = frozenset({BIDIRECTIONAL, CUSTOM_MASK, POSITIONS})
    rotation: Tensor

    def __init__(self, width: int, heads: int, max_length: int, rope: bool = False, qk_norm: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"model.heads={heads} does not divide model.width={width}")
        each = width // heads
        if rope and each % 2:
            raise UserError(f"model.positions=rope rotates pairs of channels, and a head has {each}: "
                            f"model.width={width} over model.heads={heads} has to be even")  # fmt: skip
        self.heads, self.max_length, self.rope = heads, max_length, rope
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        for linear in (self.query_key_value, self.project):
            nn.init.zeros_(linear.bias)
        self.query_norm, self.key_norm = (nn.RMSNorm(each, eps=1e-5) if qk_norm else None for _ in range(2))
        if rope:
            angles = torch.arange(max_length)[:, None] * ROPE_BASE ** (-torch.arange(0, each, 2) / each)
            self.register_buffer("rotation", torch.stack([angles.cos(), angles.sin()]), persistent=False)

    def initialise(self, std: float, residuals: int) -> None:
        nn.init.normal_(self.query_key_value.weight, std=std)
        nn.init.normal_(self.project.weight, std=std / math.sqrt(residuals))

    def forward(
        self,
        x: Tensor,
        *,
        last: int | None = None,
        causal: bool = True,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        query, key, value = self._heads(x, last, positions, 0)
        return self._attend(query, key, value, causal, mask)

    def step(self, x: Tensor, past: KVCache | None = None, *, last: int | None = None) -> tuple[Tensor, KVCache]:
        first = past.length if past else 0
        query, key, value = self._heads(x, last, None, first)
        if past is None:
            rows, heads, _, each = key.shape
            assert self.max_length is not None
            buffer = key.new_empty(2, rows, heads, self.max_length, each)
        else:
            buffer = past.buffer
        end = first + x.shape[1]
        buffer[0, :, :, first:end], buffer[1, :, :, first:end] = key, value
        key, value = buffer[..., :end, :]  # (B, H, end, C/H) both
        return self._attend(query, key, value, True, None), KVCache(buffer, end)

    def attention(
        self, x: Tensor, *, causal: bool = True, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        query, key, _ = self._heads(x, None, positions, 0)
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (B, H, T, T)
        if mask is not None:
            mask = mask.unsqueeze(-3)  # (..., 1, T, T), the same for all heads
        elif causal:
            mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)

    def _heads(self, x: Tensor, last: int | None, positions: Tensor | None, first: int) -> tuple[Tensor, ...]:
        """Queries (B, H, last, C/H), and keys and values (B, H, T, C/H) of x (B, T, C)."""
        keep = slice(None) if last is None else slice(-last, None)
        if last is None:
            query, key, value = self.query_key_value(x).chunk(3, -1)  # (B, T, C) each
        else:  # queries only at the kept positions
            width, weight, bias = x.shape[-1], self.query_key_value.weight, self.query_key_value.bias
            query = F.linear(x[:, keep], weight[:width], bias[:width])
            key, value = F.linear(x, weight[width:], bias[width:]).chunk(2, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.rope:
            turn = self.rotation[:, first : first + x.shape[1]] if positions is None else self.rotation[:, positions]
            turn = turn.unsqueeze(-3)  # (2, 1, T, C/2H), or (2, B, 1, T, C/2H)
            query, key = _rotate(query, turn[..., keep, :]), _rotate(key, turn)
        return query, key, value

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, causal: bool, mask: Tensor | None) -> Tensor:
        queries, keys = query.shape[2], key.shape[2]
        if mask is not None:
            mask = mask[..., -queries:, :]
            mask = mask if mask.dim() == 2 else mask.unsqueeze(1)  # (B, 1, queries, keys)
        elif causal and 1 < queries < keys:
            # the queries are the last positions, each of which attends to itself and earlier ones
            mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
        triangle = mask is None and causal and queries == keys
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=triangle)
        mixed: Tensor = self.project(attended.transpose(1, 2).flatten(2))  # (B, queries, C)
        return mixed


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate channel pairs of x (B, H, T, D) by angles with cosines and sines `turn` (2, ..., T, D/2)."""
    (one, other), (cos, sin) = x.chunk(2, -1), turn
    return torch.cat([one * cos - other * sin, other * cos + one * sin], -1).type_as(x)
