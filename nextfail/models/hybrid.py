"""Blocks of several kinds in one stack, such as attention between Mamba (Jamba: Lieber et al. 2024)."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from nextfail.config import AtLeast1, AtLeast2, Positive
from nextfail.errors import UserError
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
        qk_norm: whether queries and keys are normalised in attention, see `Attention`.
        d_state: of mamba and mamba2: numbers N that each inner channel remembers.
        head_dim: of mamba2: inner channels P of a head.
        d_conv: taps of the convolution within mamba and mamba2, and of conv.
        expand: of mamba and mamba2: inner channels D over C.
        scan: of mamba and mamba2: how the scan is computed, see docs/backbones.md; changes speed and rounding only.
        conv: taps of a short causal convolution before every mixer and MLP, see `ShortConv`; None for none.
        conv_at: where it stands, after the norm: before the "mixer", before the "mlp", "both" or "none".
        init_std: standard deviation of initial weights.

    Raises:
        UserError: a layer does not exist, or sizes do not fit each other.
    """

    def __init__(
        self,
        layers: list[str],
        width: AtLeast1,
        heads: AtLeast1,
        vocab_size: int,
        max_length: int,
        depth: AtLeast1 | None = None,
        positions: Literal["learned", "rope", "none"] = "none",
        norm: Literal["layer", "rms"] = "rms",
        mlp: Literal["gelu", "swiglu"] | None = "swiglu",
        qk_norm: bool = False,
        d_state: AtLeast1 = 16,
        head_dim: AtLeast1 = 32,
        d_conv: AtLeast1 = 4,
        expand: AtLeast1 = 2,
        scan: Literal["auto", "mamba_ssm", "fused", "parallel", "blocked", "loop"] = "auto",
        conv: AtLeast2 | None = None,
        conv_at: Literal["both", "mixer", "mlp", "none"] = "both",
        init_std: Positive = 0.02,
    ) -> None:
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
            if not isinstance(name, str) or name not in mixers:
                raise UserError(f"model.layers names {name!r}, which is no mixer: choose {', '.join(mixers)}")
        super().__init__(
            [mixers[name] for name in layers], width, vocab_size, max_length, depth=depth,
            positions=positions, norm=norm, mlp=mlp,
            conv=conv, conv_at=conv_at, init_std=init_std,
        )  # fmt: skip
