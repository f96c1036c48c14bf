"""Mamba (Gu & Dao 2023) and Mamba-2 (Dao & Gu 2024): state-space models without attention, positions and MLPs."""

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
        max_length: kept for the protocol; a sequence may be as long as it likes.
        d_state: numbers N that each inner channel remembers.
        d_conv: taps K of the convolution within.
        expand: inner channels D over C.
        scan: how the scan is computed, see docs/backbones.md; changes speed and rounding only.
        init_std: standard deviation of initial embeddings; what else there is begins as in mamba-ssm.
        conv: taps of one more short convolution, before the mixer, see `ShortConv`; None for none, as published.
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
        max_length: kept for the protocol; a sequence may be as long as it likes.
        d_state: numbers N that each inner channel remembers.
        head_dim: inner channels P of a head; divides expand * width.
        d_conv: taps K of the convolution within.
        expand: inner channels D over C.
        scan: how the scan is computed, see docs/backbones.md; changes speed and rounding only.
        init_std: standard deviation of initial embeddings; what else there is begins as in mamba-ssm.
        conv: taps of one more short convolution, before the mixer, see `ShortConv`; None for none, as published.
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
