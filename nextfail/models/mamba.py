"""Mamba (Gu & Dao 2023) and Mamba-2 (Dao & Gu 2024): state-space models without attention, positions or MLPs."""

from functools import partial
from typing import Literal

from nextfail.config import AtLeast1, AtLeast2, Positive
from nextfail.models.mixers.mamba import MambaMixer
from nextfail.models.mixers.mamba2 import Mamba2Mixer
from nextfail.models.stack import Stack
from nextfail.source import public


@public("mamba")
class Mamba(Stack):
    """Mamba language model.

    Args:
        depth: number of blocks.
        width: channels C.
        vocab_size: number of token ids V.
        max_length: unused, part of the protocol; sequence length is unlimited.
        d_state: state size N per inner channel.
        d_conv: kernel size K of the inner convolution.
        expand: expansion factor, inner channels D = expand * width.
        scan: implementation of the scan, see docs/backbones.md; affects speed and rounding only.
        init_std: standard deviation of initial embeddings; other weights are initialised as in mamba-ssm.
        conv: kernel size of an extra short convolution before the mixer, see `ShortConv`; None for none, as published.
    """

    def __init__(
        self,
        depth: AtLeast1,
        width: AtLeast1,
        vocab_size: int,
        max_length: int,
        d_state: AtLeast1 = 16,
        d_conv: AtLeast1 = 4,
        expand: AtLeast1 = 2,
        init_std: Positive = 0.02,
        scan: Literal["auto", "mamba_ssm", "fused", "parallel", "loop"] = "auto",
        conv: AtLeast2 | None = None,
    ) -> None:
        mixer = partial(MambaMixer, width, d_state=d_state, d_conv=d_conv, expand=expand, scan=scan)
        super().__init__([mixer], width, vocab_size, max_length, depth=depth, conv=conv, init_std=init_std)


@public("mamba2")
class Mamba2(Stack):
    """Mamba-2 language model.

    Args:
        depth: number of blocks.
        width: channels C.
        vocab_size: number of token ids V.
        max_length: unused, part of the protocol; sequence length is unlimited.
        d_state: state size N per inner channel.
        head_dim: inner channels P per head; divides expand * width.
        d_conv: kernel size K of the inner convolution.
        expand: expansion factor, inner channels D = expand * width.
        scan: implementation of the scan, see docs/backbones.md; affects speed and rounding only.
        init_std: standard deviation of initial embeddings; other weights are initialised as in mamba-ssm.
        conv: kernel size of an extra short convolution before the mixer, see `ShortConv`; None for none, as published.
    """

    def __init__(
        self,
        depth: AtLeast1,
        width: AtLeast1,
        vocab_size: int,
        max_length: int,
        d_state: AtLeast1 = 64,
        head_dim: AtLeast1 = 32,
        d_conv: AtLeast1 = 4,
        expand: AtLeast1 = 2,
        init_std: Positive = 0.02,
        scan: Literal["auto", "mamba_ssm", "blocked", "loop"] = "auto",
        conv: AtLeast2 | None = None,
    ) -> None:
        sizes = {"d_state": d_state, "head_dim": head_dim, "d_conv": d_conv, "expand": expand}
        mixer = partial(Mamba2Mixer, width, **sizes, scan=scan)
        super().__init__([mixer], width, vocab_size, max_length, depth=depth, conv=conv, init_std=init_std)
