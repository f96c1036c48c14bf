"""Stacks of different mixers, such as attention interleaved with Mamba (Jamba: Lieber et al. 2024)."""

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
    """A stack whose mixers are given by name.

    Args:
        layers: mixer of each block: "attention", "conv" (`GatedConv`), "mamba" or "mamba2".
        depth: number of blocks, cycling through `layers`; None for one block per layer.
        width: channels C.
        heads: attention heads H.
        vocab_size: number of token ids V.
        max_length: longest sequence, in tokens; limits attention and learned positions.
        positions: "learned", "rope" (rotary, in attention) or "none", as in Jamba: position comes from the other
            mixers.
        norm: "layer" or "rms".
        mlp: "gelu", "swiglu" or None, see nextfail.models.mlp.
        qk_norm: whether attention normalises queries and keys, see `Attention`.
        d_state: mamba and mamba2: state size N per inner channel.
        head_dim: mamba2: inner channels P per head.
        d_conv: kernel size of the convolution in mamba, mamba2 and conv.
        expand: mamba and mamba2: expansion factor, inner channels D = expand * width.
        scan: mamba and mamba2: implementation of the scan, see docs/backbones.md; affects speed and rounding only.
        conv: kernel size of a short causal convolution before every mixer and MLP, see `ShortConv`; None for none.
        conv_at: its position, after the norm: before the "mixer", before the "mlp", "both" or "none".
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
                raise UserError(f"model.layers names {name!r}, which is not a mixer: choose {', '.join(mixers)}")
        super().__init__(
            [mixers[name] for name in layers], width, vocab_size, max_length, depth=depth,
            positions=positions, norm=norm, mlp=mlp,
            conv=conv, conv_at=conv_at, init_std=init_std,
        )  # fmt: skip
