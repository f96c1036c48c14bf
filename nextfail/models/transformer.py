"""GPT-2 style Transformer (Radford et al. 2019): pre-norm, learned positions, GELU, tied embedding, no dropout.

`positions=rope norm=rms mlp=swiglu` makes it Llama style (Touvron et al. 2023).
"""

from functools import partial
from typing import Literal

from nextfail.config import AtLeast1, AtLeast2, Positive
from nextfail.models.backbone import BEFORE_NORM, BIDIRECTIONAL, CUSTOM_MASK, EMBEDDINGS, POSITIONS
from nextfail.models.mixers.attention import Attention
from nextfail.models.stack import Stack
from nextfail.source import public


@public("transformer")
class Transformer(Stack):
    """A stack of attention blocks.

    Args:
        depth: number of blocks.
        width: channels C; a multiple of `heads`.
        heads: attention heads H.
        vocab_size: number of token ids V.
        max_length: longest sequence, in tokens.
        init_std: standard deviation of initial weights; residual projections are divided by sqrt(2 depth), or by
            sqrt(depth) without MLPs.
        conv: kernel size of a short causal convolution, see `ShortConv`; None for none.
        conv_at: its position, after the norm: before "attention", before the "mlp", "both" or "none".
        positions: "learned", "rope" (rotary) or "none".
        norm: "layer" or "rms".
        mlp: "gelu", "swiglu" or None, see nextfail.models.mlp.
        qk_norm: whether queries and keys are normalised, see `Attention`.
    """

    capabilities = frozenset({BIDIRECTIONAL, CUSTOM_MASK, POSITIONS, EMBEDDINGS, BEFORE_NORM})

    def __init__(
        self,
        depth: AtLeast1,
        width: AtLeast1,
        heads: AtLeast1,
        vocab_size: int,
        max_length: int,
        init_std: Positive = 0.02,
        conv: AtLeast2 | None = None,
        conv_at: Literal["both", "attention", "mlp", "none"] = "both",
        positions: Literal["learned", "rope", "none"] = "learned",
        norm: Literal["layer", "rms"] = "layer",
        mlp: Literal["gelu", "swiglu"] | None = "gelu",
        qk_norm: bool = False,
    ) -> None:
        attention = partial(Attention, width, heads, max_length, rope=positions == "rope", qk_norm=qk_norm)
        super().__init__(
            [attention], width, vocab_size, max_length, depth=depth, positions=positions, norm=norm, mlp=mlp, conv=conv,
            conv_at=conv_at, init_std=init_std,
        )  # fmt: skip
        self.heads = heads
