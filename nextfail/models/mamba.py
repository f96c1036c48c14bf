"""Mamba (Gu & Dao 2023) and Mamba-2 (Dao & Gu 2024): state-space models without attention, positions and MLPs."""

from functools import partial

from nextfail.models.backbone import require_above_0
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
        d_state, d_conv, expand, scan: see `MambaMixer`.
        init_std: standard deviation of initial embeddings; what else there is begins as in mamba-ssm.
        conv: taps of one more short convolution, before the mixer, see `ShortConv`; None for none, as published.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        vocab_size: int,
        max_length: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        init_std: float = 0.02,
        scan: str = "auto",
        conv: int | None = None,
    ) -> None:
        require_above_0(depth=depth)
        mixer = partial(MambaMixer, width, d_state=d_state, d_conv=d_conv, expand=expand, scan=scan)
        super().__init__([mixer] * depth, width, vocab_size, max_length, conv=conv, init_std=init_std)


@public("mamba2")
class Mamba2(Stack):
    """Mamba-2 language model.

    Args:
        depth: number of blocks.
        width: channels C.
        vocab_size: number of token ids V.
        max_length: kept for the protocol; a sequence may be as long as it likes.
        d_state, head_dim, d_conv, expand, scan: see `Mamba2Mixer`.
        init_std: standard deviation of initial embeddings; what else there is begins as in mamba-ssm.
        conv: taps of one more short convolution, before the mixer, see `ShortConv`; None for none, as published.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        vocab_size: int,
        max_length: int,
        d_state: int = 64,
        head_dim: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        init_std: float = 0.02,
        scan: str = "auto",
        conv: int | None = None,
    ) -> None:
        require_above_0(depth=depth)
        sizes = {"d_state": d_state, "head_dim": head_dim, "d_conv": d_conv, "expand": expand}
        mixer = partial(Mamba2Mixer, width, **sizes, scan=scan)
        super().__init__([mixer] * depth, width, vocab_size, max_length, conv=conv, init_std=init_std)
