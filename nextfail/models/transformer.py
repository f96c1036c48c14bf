"""A GPT-2 style Transformer (Radford et al. 2019): pre-norm, learned positions, GELU, tied embedding, no dropout.

Optionally with a short convolution before attention and before the MLP.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models.backbone import BIDIRECTIONAL, CUSTOM_MASK, POSITIONS, Backbone
from nextfail.models.mixers.conv import ShortConv
from nextfail.source import public

CONV_AT = {"both": (True, True), "attention": (True, False), "mlp": (False, True), "none": (False, False)}
"""Where convolutions may stand: before attention, before the MLP."""

Windows = tuple[Tensor | None, Tensor | None]
"""What the convolutions of a block remember, (B, K-1, C) each: the one before attention, the one before the MLP."""


@dataclass(frozen=True)
class KVCache:
    """What was read so far: for each block keys and values of the first `length` positions, in one
    (2, B, H, max_length, C/H) buffer, and the windows of its convolutions."""

    buffers: list[Tensor]
    windows: list[Windows]
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
        conv: taps of a short causal convolution, see `ShortConv`; None for none.
        conv_at: where it stands, after the norm: before "attention", before the "mlp", "both" or "none".
    """

    capabilities = frozenset({BIDIRECTIONAL, CUSTOM_MASK, POSITIONS})

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        vocab_size: int,
        max_length: int,
        init_std: float = 0.02,
        conv: int | None = None,
        conv_at: str = "both",
    ) -> None:
        super().__init__(vocab_size, max_length, depth=depth, width=width, heads=heads, init_std=init_std)
        if width % heads:
            raise UserError(f"model.heads={heads} does not divide model.width={width}")
        if conv_at not in CONV_AT:
            raise UserError(f"model.conv_at={conv_at!r} is unknown: choose {', '.join(CONV_AT)}")
        if conv is not None:  # which passes on what a mask would hide
            self.capabilities = self.capabilities - {CUSTOM_MASK}
        self.heads, self.init_std, self.depth = heads, init_std, depth
        self.convolutions = tuple(conv if here else None for here in CONV_AT[conv_at])
        self.positions = nn.Embedding(max_length, width)
        self.blocks = nn.ModuleList(Block(width, heads, self.convolutions) for _ in range(depth))
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
        self.refuse_unknown(causal=causal, mask=mask, positions=positions)
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
            cache = KVCache([x.new_empty(shape) for _ in self.blocks], [(None, None)] * self.depth, 0)
        after: list[Windows] = []
        for block, buffer, windows in zip(self.blocks, cache.buffers, cache.windows, strict=True):
            assert isinstance(block, Block)
            wanted = last if block is self.blocks[-1] else None
            x, windows = block.step(x, buffer[..., :end, :], windows, last=wanted)
            after.append(windows)
        return self.norm(x), KVCache(cache.buffers, after, end)

    def attention(self, layer: int, x: Tensor, causal: bool = True, mask: Tensor | None = None) -> Tensor:
        block = self.blocks[layer]
        assert isinstance(block, Block)
        return block.attention(x, causal=causal, mask=mask)

    def new_block(self) -> nn.Module:
        block = Block(self.width, self.heads, self.convolutions)
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
            if parameter.dim() != 2:
                continue  # biases are made zero by Block, norms and convolutions are born right
            residual = name.endswith(("project.weight", "contract.weight"))
            nn.init.normal_(parameter, std=self.init_std / (math.sqrt(2 * self.depth) if residual else 1))


class Block(nn.Module):
    """Attention and MLP, each behind a norm, and perhaps a convolution, and added to its input.

    Args:
        width: channels C.
        heads: of attention, H.
        convolutions: taps of the ones before attention and before the MLP; None for none.
    """

    def __init__(self, width: int, heads: int, convolutions: tuple[int | None, ...] = (None, None)) -> None:
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
        made = [None if taps is None else ShortConv(width, taps) for taps in convolutions]
        self.conv_attention, self.conv_mlp = made

    def forward(self, x: Tensor, *, causal: bool = True, mask: Tensor | None = None, last: int | None = None) -> Tensor:
        """(B, T, C) to (B, last or T, C)."""
        seen = self._seen(x)
        wide = self._slice(last)  # of positions where attention is computed
        x = x[:, wide] + self.project(self._attend(seen, causal, mask, wide, None))
        seen = self.norm_mlp(x)
        if self.conv_mlp is not None:
            seen = self.conv_mlp(seen)
        return self._add_mlp(x, seen, last)

    def step(self, x: Tensor, past: Tensor, windows: Windows, *, last: int | None = None) -> tuple[Tensor, Windows]:
        """The same after what `past` (2, B, H, S, C/H) and the windows remember.

        The last T places of `past` are filled here, and what the convolutions remember then is returned.
        """
        before_attention, before_mlp = windows
        seen = self.norm_attention(x)
        if self.conv_attention is not None:
            seen, before_attention = self.conv_attention.step(seen, before_attention)
        wide = self._slice(last)
        x = x[:, wide] + self.project(self._attend(seen, True, None, wide, past))
        seen = self.norm_mlp(x)
        if self.conv_mlp is not None:
            # with `last`, positions between the window and these are left out, and outputs that would read them are cut
            seen, before_mlp = self.conv_mlp.step(seen, before_mlp)
        return self._add_mlp(x, seen, last), (before_attention, before_mlp)

    def attention(self, x: Tensor, *, causal: bool = True, mask: Tensor | None = None) -> Tensor:
        """How much each head reads from where, (B, H, T, T), when the block is given the same."""
        query, key, _ = self.query_key_value(self._seen(x)).chunk(3, -1)  # (B, T, C) each
        query, key = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key))
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (B, H, T, T)
        if mask is None and causal:
            mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)

    def _seen(self, x: Tensor) -> Tensor:
        seen: Tensor = self.norm_attention(x)
        return seen if self.conv_attention is None else self.conv_attention(seen)

    def _slice(self, last: int | None) -> slice:
        """The last positions, and those that the convolution before the MLP needs for them."""
        if last is None:
            return slice(None)
        return slice(-last - (self.conv_mlp.taps - 1 if self.conv_mlp is not None else 0), None)

    def _add_mlp(self, x: Tensor, seen: Tensor, last: int | None) -> Tensor:
        if last is not None and last < x.shape[1]:
            x, seen = x[:, -last:], seen[:, -last:]
        return x + self.contract(F.gelu(self.expand(seen), approximate="tanh"))

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
