"""A GPT-2 style Transformer (Radford et al. 2019): pre-norm, learned positions, GELU, tied embedding, no dropout."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models.backbone import BIDIRECTIONAL, CUSTOM_MASK, POSITIONS, Backbone
from nextfail.source import public


@dataclass(frozen=True)
class KVCache:
    """Keys and values of the first `length` positions, one (2, B, H, max_length, C/H) buffer a layer."""

    buffers: list[Tensor]
    length: int


@public("transformer")
class Transformer(Backbone):
    """GPT-2 style decoder.

    Args:
        depth: number of blocks.
        width: channels C; a multiple of `heads`.
        heads: attention heads H.
        vocab_size: number of token ids V.
        max_length: longest sequence, in tokens.
        init_std: standard deviation of initial weights; residual projections start smaller by sqrt(2 depth).
    """

    capabilities = frozenset({BIDIRECTIONAL, CUSTOM_MASK, POSITIONS})

    def __init__(
        self, depth: int, width: int, heads: int, vocab_size: int, max_length: int, init_std: float = 0.02
    ) -> None:
        super().__init__(vocab_size, max_length, depth=depth, width=width, heads=heads, init_std=init_std)
        if width % heads:
            raise UserError(f"model.heads={heads} does not divide model.width={width}")
        self.heads, self.init_std, self.depth = heads, init_std, depth
        self.positions = nn.Embedding(max_length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self._initialise(self)

    def forward(
        self,
        tokens: Tensor,
        *,
        last: int | None = None,
        causal: bool = True,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        x = self._embedded(tokens, positions, first=0)  # (B, T, C)
        if mask is not None and mask.dim() == 3:
            mask = mask.unsqueeze(1)  # (B, 1, T, T)
        for block in self.blocks[:-1]:
            x = block(x, causal=causal, mask=mask)
        return self.norm(self.blocks[-1](x, causal=causal, mask=mask, last=last))

    def step(self, tokens: Tensor, cache: KVCache | None = None, *, last: int | None = None) -> tuple[Tensor, KVCache]:
        first = cache.length if cache else 0
        x = self._embedded(tokens, None, first)  # (B, T, C)
        end = first + x.shape[1]
        if cache is None:
            shape = (2, len(x), self.heads, self.max_length, self.width // self.heads)
            cache = KVCache([x.new_empty(shape) for _ in self.blocks], 0)
        for block, buffer in zip(self.blocks, cache.buffers, strict=True):
            wanted = last if block is self.blocks[-1] else None
            x = block(x, past=buffer[..., :end, :], last=wanted)
        return self.norm(x), KVCache(cache.buffers, end)

    def new_block(self) -> nn.Module:
        block = Block(self.width, self.heads)
        self._initialise(block)
        return block

    def _embedded(self, tokens: Tensor, positions: Tensor | None, first: int) -> Tensor:
        x = tokens if tokens.is_floating_point() else self.embed(tokens)
        end = first + x.shape[1]
        if end > self.max_length:
            raise UserError(f"a sequence of {end} tokens is too long for this model: max_length is {self.max_length}")
        where = self.positions.weight[first:end] if positions is None else self.positions(positions)
        return x + where

    def _initialise(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            if parameter.dim() < 2:
                continue  # biases are made zero by Block, norms are born right
            residual = name.endswith(("project.weight", "contract.weight"))
            nn.init.normal_(parameter, std=self.init_std / (math.sqrt(2 * self.depth) if residual else 1))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool = True,
        mask: Tensor | None = None,
        last: int | None = None,
        past: Tensor | None = None,
    ) -> Tensor:
        """(B, T, C) to (B, last or T, C); with `past` (2, B, H, S, C/H), of which the last T places are filled here."""
        keep = slice(None) if last is None else slice(-last, None)
        x, attended = x[:, keep], self._attend(self.norm_attention(x), causal, mask, keep, past)
        x = x + self.project(attended)
        hidden = F.gelu(self.expand(self.norm_mlp(x)), approximate="tanh")
        return x + self.contract(hidden)

    def _attend(self, x: Tensor, causal: bool, mask: Tensor | None, keep: slice, past: Tensor | None) -> Tensor:
        if keep == slice(None):
            query, key, value = self.query_key_value(x).chunk(3, -1)  # (B, T, C) each
        else:  # queries at the kept positions alone: nobody reads what the others would find
            width, weight, bias = x.shape[-1], self.query_key_value.weight, self.query_key_value.bias
            query = F.linear(x[:, keep], weight[:width], bias[:width])
            key, value = F.linear(x, weight[width:], bias[width:]).chunk(2, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        # (B, H, T, C/H)
        if past is not None:
            new = x.shape[1]
            past[0, :, :, -new:], past[1, :, :, -new:] = key, value
            key, value = past[0], past[1]
        queries, keys = query.shape[2], key.shape[2]
        if mask is not None:
            mask = mask[..., keep, :]
        elif causal and 1 < queries < keys:
            # the queries are the last positions: row i sees all but what comes after it
            mask = torch.ones(queries, keys, dtype=torch.bool, device=x.device).tril(keys - queries)
        triangle = mask is None and causal and queries == keys
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=triangle)
        return attended.transpose(1, 2).flatten(2)  # (B, T, C)
