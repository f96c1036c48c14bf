"""A GPT-2 style Transformer (Radford et al. 2019): pre-norm, learned positions, GELU, tied embedding, no dropout.

With `positions=rope norm=rms mlp=swiglu` it is in the style of Llama (Touvron et al. 2023).
"""

from functools import partial

from nextfail.models.backbone import BEFORE_NORM, BIDIRECTIONAL, CUSTOM_MASK, EMBEDDINGS, POSITIONS, require_above_0
from nextfail.models.mixers.attention import Attention
from nextfail.models.stack import Stack
from nextfail.source import public


@public("transformer")
class Transformer(Stack):
    """A stack of attention.

    Args:
        depth: number of blocks.
        width: channels C; a multiple of `heads`.
        heads: attention heads H.
        vocab_size: number of token ids V.
        max_length: longest sequence, in tokens.
        init_std: standard deviation of initial weights; residual projections start smaller by sqrt(2 depth).
        conv: taps of a short causal convolution, see `ShortConv`; None for none.
        conv_at: where it stands, after the norm: before "attention", before the "mlp", "both" or "none".
        positions: "learned", "rope" (rotary) or "none".
        norm: "layer" or "rms".
        mlp: "gelu", "swiglu" or None, see nextfail.models.mlp.
        qk_norm: whether queries and keys are normalised, see `Attention`.
    """

    capabilities = frozenset({BIDIRECTIONAL, CUSTOM_MASK, POSITIONS, EMBEDDINGS, BEFORE_NORM})

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
        positions: str = "learned",
        norm: str = "layer",
        mlp: str | None = "gelu",
        qk_norm: bool = False,
    ) -> None:
        require_above_0(depth=depth, width=width, heads=heads)
        attention = partial(Attention, width, heads, max_length, rope=positions == "rope", qk_norm=qk_norm)
        super().__init__(
            [attention] * depth, width, vocab_size, max_length, positions=positions, norm=norm, mlp=mlp, conv=conv,
            conv_at=conv_at, init_std=init_std,
        )  # fmt: skip
        self.heads = heads
