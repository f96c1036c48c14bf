"""A gated short convolution as the only mixer of a block."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.models.mixers.base import Mixer


class GatedConv(Mixer):
    """y = W_out (c * conv(b * v)), with b, c, v linear in x; a position reads itself and the K - 1 before it.

    The block of LFM2 (Liquid AI 2025), which is H3's (Fu et al. 2023) with a short filter instead of a long one:
    depthwise, causal, without biases.

    Args:
        width: channels C.
        taps: kernel size K, at least 1.
    """

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.taps = taps
        self.in_proj = nn.Linear(width, 3 * width, bias=False)
        self.weight = nn.Parameter(torch.empty(width, 1, taps).uniform_(-(taps**-0.5), taps**-0.5))
        self.out_proj = nn.Linear(width, width, bias=False)

    def initialise(self, std: float, residuals: int) -> None:
        nn.init.normal_(self.in_proj.weight, std=std)
        nn.init.normal_(self.out_proj.weight, std=std / math.sqrt(residuals))

    def forward(self, x: Tensor, *, last: int | None = None, **_: Any) -> Tensor:
        return self.step(x, None, last=last)[0]

    def step(self, x: Tensor, past: Tensor | None = None, *, last: int | None = None) -> tuple[Tensor, Tensor]:
        """`past` (B, K-1, C) holds the last inputs of the convolution."""
        before, after, value = self.in_proj(x).chunk(3, -1)  # (B, T, C) each
        gated = before * value
        seen = F.pad(gated, (0, 0, self.taps - 1, 0)) if past is None else torch.cat([past, gated], 1)
        mixed = F.conv1d(seen.transpose(1, 2), self.weight, groups=x.shape[2]).transpose(1, 2)  # (B, T, C)
        keep = slice(None) if last is None else slice(-last, None)
        return self.out_proj((after * mixed)[:, keep]), seen[:, seen.shape[1] - self.taps + 1 :]
