"""Blocks of several kinds in one stack, such as attention between Mamba (Jamba: Lieber et al. 2024)."""

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

from nextfail.errors import UserError
from nextfail.models.backbone import require_above_0
from nextfail.models.mixers.attention import Attention
from nextfail.models.mixers.base import Mixer
from nextfail.models.mixers.gated_conv import GatedConv
from nextfail.models.mixers.mamba import MambaMixer
from nextfail.models.mixers.mamba2 import Mamba2Mixer
from nextfail.models.stack import Stack
from nextfail.source import public


@public("hybrid")
class Hybrid(Stack):
    """A stack whose mixers are a list of names.

    Args:
        layers: each block's mixer: "attention", "conv" (`GatedConv`), "mamba" or "mamba2".
        depth: number of blocks, for which `layers` are repeated in turn; None for as many as `layers`.
        width: channels C.
        heads: attention heads H.
        vocab_size: number of token ids V.
        max_length: longest sequence, in tokens; binds attention and learned positions.
        positions: "learned", "rope" (rotary, in attention) or "none", as in Jamba: the others tell positions apart.
        norm: "layer" or "rms".
        mlp: "gelu", "swiglu" or None, see nextfail.models.mlp.
        qk_norm: of attention.
        d_state, expand, scan: of mamba and mamba2.
        head_dim: of mamba2.
        d_conv: taps of the convolution within mamba and mamba2, and of conv.
        conv, conv_at: a short convolution before every mixer and MLP, see `Stack`.
        init_std: standard deviation of initial weights.

    Raises:
        UserError: a layer does not exist, or sizes do not fit each other.
    """

    def __init__(
        self,
        layers: list[str],
        width: int,
        heads: int,
        vocab_size: int,
        max_length: int,
        depth: int | None = None,
        positions: str = "none",
        norm: str = "rms",
        mlp: str | None = "swiglu",
        qk_norm: bool = False,
        d_state: int = 16,
        head_dim: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        scan: str = "auto",
        conv: int | None = None,
        conv_at: str = "both",
        init_std: float = 0.02,
    ) -> None:
        require_above_0(width=width, heads=heads)
        sizes: dict[str, Any] = {"d_state": d_state, "d_conv": d_conv, "expand": expand, "scan": scan}
        mixers: dict[str, Callable[[], Mixer]] = {
            "attention": partial(Attention, width, heads, max_length, rope=positions == "rope", qk_norm=qk_norm),
            "conv": partial(GatedConv, width, d_conv),
            "mamba": partial(MambaMixer, width, **sizes),
            "mamba2": partial(Mamba2Mixer, width, head_dim=head_dim, **sizes),
        }
        if not isinstance(layers, list | tuple) or not layers:
            raise UserError(f"model.layers={layers!r} is not a list of mixers, such as [mamba,attention]")
        for name in layers:
            if name not in mixers:
                raise UserError(f"model.layers names {name!r}, which is no mixer: choose {', '.join(mixers)}")
        if depth is not None:
            require_above_0(depth=depth)
            if depth < len(layers):
                raise UserError(f"model.depth={depth} is too small for the {len(layers)} mixers in model.layers")
        made = [mixers[name] for _, name in zip(range(depth or len(layers)), cycle(layers), strict=False)]
        super().__init__(
            made, width, vocab_size, max_length, positions=positions, norm=norm, mlp=mlp,
            conv=conv, conv_at=conv_at, init_std=init_std,
        )  # fmt: skip
