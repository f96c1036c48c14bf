"""A backbone as a list of blocks: each a norm, a mixer and optionally an MLP, added to the residual stream."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nextfail.config import AtLeast1, AtLeast2, Positive
from nextfail.errors import UserError
from nextfail.models.backbone import BEFORE_NORM, CUSTOM_MASK, EMBEDDINGS, POSITIONS, Backbone
from nextfail.models.mixers.base import Mixer
from nextfail.models.mixers.conv import ShortConv
from nextfail.models.mlp import MLPS
from nextfail.source import checked

NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "rms": partial(nn.RMSNorm, eps=1e-5)}
CONV_AT = {"both": (True, True), "attention": (True, False), "mixer": (True, False), "mlp": (False, True),
           "none": (False, False)}  # fmt: skip
"""Positions of short convolutions: before the mixer (also called attention), and before the MLP."""


@dataclass(frozen=True)
class BlockState:
    """Decoding state of a block: that of its mixer, and the windows (B, K-1, C) of its short convolutions."""

    mixer: Any = None
    before_mixer: Tensor | None = None
    before_mlp: Tensor | None = None


@dataclass(frozen=True)
class Cache:
    """Decoding state of a stack after the first `length` positions."""

    blocks: list[BlockState]
    length: int


@checked
class Stack(Backbone):
    """A list of blocks with any mixers.

    Args:
        layers: factories of the blocks' mixers, such as `functools.partial(Attention, 64, 4, 32)`.
        depth: number of blocks, cycling through `layers`; None for one block per layer.
        width: channels C.
        vocab_size: number of token ids V.
        max_length: longest sequence, in tokens; limits learned positions and mixers with a bound, such as attention.
        positions: "learned" (added to the embeddings), "rope" (left to the mixers) or "none".
        norm: "layer" or "rms", before each mixer and MLP and at the end.
        mlp: "gelu" or "swiglu", see nextfail.models.mlp; None for blocks without an MLP.
        conv: kernel size of a short causal convolution, see `ShortConv`; None for none.
        conv_at: its position, after the norm: before the "mixer", before the "mlp", "both" or "none".
        init_std: standard deviation of initial weights; mixers may initialise their own differently.

    Raises:
        UserError: an option does not exist, there is no layer, or `depth` is smaller than the number of layers.
    """

    def __init__(
        self,
        layers: Sequence[Callable[[], Mixer]],
        width: int,
        vocab_size: int,
        max_length: int,
        *,
        depth: AtLeast1 | None = None,
        positions: Literal["learned", "rope", "none"] = "none",
        norm: Literal["layer", "rms"] = "rms",
        mlp: Literal["gelu", "swiglu"] | None = None,
        conv: AtLeast2 | None = None,
        conv_at: Literal["both", "attention", "mixer", "mlp", "none"] = "both",
        init_std: Positive = 0.02,
    ) -> None:
        if mlp is None and conv is not None and conv_at == "mlp":
            raise UserError("model.conv_at=mlp has no effect with model.mlp=null: choose mixer, or an MLP")
        depth = len(layers) if depth is None else depth
        super().__init__(vocab_size, max_length, width=width, depth=depth, init_std=init_std)
        if depth < len(layers):
            raise UserError(f"model.depth={depth} is too small for the {len(layers)} mixers in model.layers")
        self.depth, self.init_std, self._last = depth, init_std, layers[(depth - 1) % len(layers)]
        self._block: dict[str, Any] = {"norm": norm, "mlp": mlp, "conv": conv, "conv_at": conv_at}
        self._announced: torch.device | None = None
        self.positions = nn.Embedding(max_length, width) if positions == "learned" else None
        makes = (layers[i % len(layers)] for i in range(depth))
        self.blocks = nn.ModuleList(Block(width, make(), **self._block) for make in makes)
        self.norm = NORMS[norm](width)
        nn.init.normal_(self.tokens.weight, std=init_std)
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=init_std)
        for block in self._blocks():
            block.initialise(init_std, self._residuals)
        self._set_capabilities(positions)

    def _set_capabilities(self, positions: str) -> None:
        mixers = [block.mixer for block in self._blocks()]
        able = frozenset.intersection(*(each.capabilities for each in mixers))
        if positions == "none":
            able -= {POSITIONS}
        if any(block.conv_mixer is not None or block.conv_mlp is not None for block in self._blocks()):
            able -= {CUSTOM_MASK}  # a convolution would leak masked positions
        self.capabilities = able | {EMBEDDINGS, BEFORE_NORM}
        self.bounded = positions == "learned" or any(each.max_length is not None for each in mixers)

    @property
    def _residuals(self) -> int:
        return self.depth * (1 if self._block["mlp"] is None else 2)

    def _blocks(self) -> list["Block"]:
        return [*self.blocks]  # type: ignore[list-item]

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
        self.refuse_unknown(causal=causal, mask=mask, positions=positions)
        x = self._start(tokens, embeddings, positions, first=0)  # (B, T, C)
        for i, block in enumerate(self.blocks):
            wanted = last if i + 1 == self.depth else None
            x = block(x, causal=causal, mask=mask, positions=positions, last=wanted)
        return x if before_norm else self.norm(x)

    def step(
        self,
        tokens: Tensor | None = None,
        cache: Cache | None = None,
        *,
        last: int | None = None,
        embeddings: Tensor | None = None,
        before_norm: bool = False,
    ) -> tuple[Tensor, Cache]:
        first = cache.length if cache else 0
        x = self._start(tokens, embeddings, None, first)  # (B, T, C)
        end, after = first + x.shape[1], []
        for i, block in enumerate(self._blocks()):
            wanted = last if i + 1 == self.depth else None
            x, state = block.step(x, cache.blocks[i] if cache else BlockState(), last=wanted)
            after.append(state)
        return (x if before_norm else self.norm(x)), Cache(after, end)

    def final_norm(self, hidden: Tensor) -> Tensor:
        normed: Tensor = self.norm(hidden)
        return normed

    def attention(self, layer: int, x: Tensor, **options: Any) -> Tensor | None:
        return self._blocks()[layer].attention(x, **options)

    def new_block(self) -> nn.Module:
        """A new block of the same kind as the last one."""
        block = Block(self.width, self._last(), **self._block)
        block.initialise(self.init_std, self._residuals)
        return block

    def remove_blocks(self, count: int) -> None:
        if count >= self.depth:
            raise UserError(f"model.depth={self.depth} is too small to remove {count} blocks")
        del self.blocks[-count:]
        self.depth -= count

    def adapt(self, device: str) -> None:
        for block in self._blocks():
            block.mixer.adapt(device)

    def _start(self, tokens: Tensor | None, embeddings: Tensor | None, positions: Tensor | None, first: int) -> Tensor:
        x = self.embedded(tokens, embeddings)
        if x.device != self._announced:
            for mixer in {type(block.mixer): block.mixer for block in self._blocks()}.values():
                mixer.announce(x.device.type)
            self._announced = x.device
        end = first + x.shape[1]
        if self.bounded and end > self.max_length:
            raise UserError(f"a sequence of {end} tokens is too long for this model: max_length is {self.max_length}")
        if self.positions is None:
            return x
        return x + (self.positions.weight[first:end] if positions is None else self.positions(positions))


class Block(nn.Module):
    """A mixer and an optional MLP, each with a pre-norm, an optional short convolution and a residual connection.

    Args:
        width: channels C.
        mixer: of this block.
        norm, mlp, conv, conv_at: see `Stack`.
    """

    def __init__(
        self, width: int, mixer: Mixer, norm: str, mlp: str | None, conv: int | None = None, conv_at: str = "both"
    ) -> None:
        super().__init__()
        self.norm, self.mixer = NORMS[norm](width), mixer
        self.norm_mlp = None if mlp is None else NORMS[norm](width)
        self.mlp = None if mlp is None else MLPS[mlp](width)
        before_mixer, before_mlp = (conv is not None and here for here in CONV_AT[conv_at])
        self.conv_mixer = ShortConv(width, conv) if conv is not None and before_mixer else None
        self.conv_mlp = ShortConv(width, conv) if conv is not None and before_mlp and mlp is not None else None
        self.register_load_state_dict_pre_hook(_rename)

    def initialise(self, std: float, residuals: int) -> None:
        """Reinitialise weights; see `Mixer.initialise`."""
        self.mixer.initialise(std, residuals)
        if self.mlp is not None:
            self.mlp.initialise(std, residuals)

    def forward(self, x: Tensor, *, last: int | None = None, **options: Any) -> Tensor:
        """(B, T, C) to (B, last or T, C); options as for `Mixer.forward`."""
        mixed = self.mixer(self._seen(x), last=self._wide(last), **options)
        x = x[:, -mixed.shape[1] :] + mixed
        if self.mlp is None or self.norm_mlp is None:
            return x
        seen = self.norm_mlp(x)
        if self.conv_mlp is not None:
            seen = self.conv_mlp(seen)
        return self._add_mlp(x, seen, last)

    def step(self, x: Tensor, past: BlockState, *, last: int | None = None) -> tuple[Tensor, BlockState]:
        """As `forward`, continuing from `past`; also returns the updated state."""
        seen, before_mixer, before_mlp = self.norm(x), past.before_mixer, past.before_mlp
        if self.conv_mixer is not None:
            seen, before_mixer = self.conv_mixer.step(seen, before_mixer)
        mixed, state = self.mixer.step(seen, past.mixer, last=self._wide(last))
        x = x[:, -mixed.shape[1] :] + mixed
        if self.mlp is not None and self.norm_mlp is not None:
            seen = self.norm_mlp(x)
            if self.conv_mlp is not None:
                # with `last`, positions between window and input are skipped, and outputs that would read them cut off
                seen, before_mlp = self.conv_mlp.step(seen, before_mlp)
            x = self._add_mlp(x, seen, last)
        return x, BlockState(state, before_mixer, before_mlp)

    def attention(self, x: Tensor, **options: Any) -> Tensor | None:
        """Attention weights (B, H, T, T) for the same input."""
        return self.mixer.attention(self._seen(x), **options)

    def _seen(self, x: Tensor) -> Tensor:
        seen: Tensor = self.norm(x)
        return seen if self.conv_mixer is None else self.conv_mixer(seen)

    def _wide(self, last: int | None) -> int | None:
        """Number of mixer positions needed: also those that the convolution before the MLP reads."""
        return last if last is None or self.conv_mlp is None else last + self.conv_mlp.taps - 1

    def _add_mlp(self, x: Tensor, seen: Tensor, last: int | None) -> Tensor:
        if last is not None and last < x.shape[1]:
            x, seen = x[:, -last:], seen[:, -last:]
        assert self.mlp is not None
        return x + self.mlp(seen)


RENAMED = {
    "norm_attention.": "norm.",
    "query_key_value.": "mixer.query_key_value.",
    "project.": "mixer.project.",
    "expand.": "mlp.expand.",
    "contract.": "mlp.contract.",
    "conv_attention.": "conv_mixer.",
}
"""Parameter names of Transformer blocks in older checkpoints, before blocks had mixers."""


def _rename(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    for old, new in RENAMED.items():
        for key in [each for each in state if each.startswith(prefix + old)]:
            state[prefix + new + key[len(prefix + old) :]] = state.pop(key)
