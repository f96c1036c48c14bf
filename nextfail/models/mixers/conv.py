"""Short causal convolutions, which give a position access to the few before it without attention."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class ShortConv(nn.Module):
    """Adds to each position a per-channel weighted sum of itself and the positions just before it.

        y_t = x_t + w_1 x_{t-K+1} + ... + w_{K-1} x_{t-1} + w_K x_t        (x before the first position is 0)

    The "canon layer" of Allen-Zhu, Physics of Language Models: Part 4.1 (2025, arXiv 2512.17351): depthwise, causal,
    residual, without bias or activation, kernel size 4, and initialised as torch's Conv1d. Differs from the paper in:
    - its position: the paper has four per block, A before attention, B on queries, keys and values, C before the MLP, D
      inside the MLP. A `Stack` offers A, before any mixer, and C.
    - the model: the paper uses rotary positions, RMSNorm and SwiGLU; our Transformer by default uses learned positions,
      LayerNorm and GELU.

    It is causal under any attention: with bidirectional attention, only attention reads later positions.

    Args:
        channels: C.
        taps: kernel size K, at least 2.
    """

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.taps = taps
        self.weight = nn.Parameter(torch.empty(channels, 1, taps).uniform_(-(taps**-0.5), taps**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C), from the start of a sequence."""
        y: Tensor = _Convolve.apply(x, self.weight.squeeze(1))
        return y

    def step(self, x: Tensor, window: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `forward`, continuing from `window` (B, K-1, C), None at the start; also returns the updated window."""
        if window is None:
            window = x.new_zeros(len(x), self.taps - 1, x.shape[2])
        seen = torch.cat([window, x], 1)
        return self(seen)[:, -x.shape[1] :], seen[:, -(self.taps - 1) :]

    def uncounted_flops(self, x: Tensor) -> int:
        """FLOPs of a forward pass that torch does not count: two per tap."""
        return 2 * self.taps * x.numel()


class _Convolve(torch.autograd.Function):
    """Shift-and-add: several times as fast on a CPU as torch's conv1d, which needs channels before time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        taps = weight.t().contiguous()  # (K, C); reading columns of the weight is four times slower
        ctx.save_for_backward(x, taps)
        y = x * (1 + taps[-1])
        for back in range(1, min(len(taps), x.shape[1])):
            y[:, back:].addcmul_(x[:, :-back], taps[-1 - back])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_y: Tensor) -> tuple[Tensor, Tensor]:
        x, taps = ctx.saved_tensors
        g_x, g_taps = g_y * (1 + taps[-1]), torch.zeros_like(taps)
        g_taps[-1] = (g_y * x).sum((0, 1))
        for back in range(1, min(len(taps), x.shape[1])):
            g_x[:, :-back].addcmul_(g_y[:, back:], taps[-1 - back])
            g_taps[-1 - back] = (g_y[:, back:] * x[:, :-back]).sum((0, 1))
        return g_x, g_taps.t()


def causal_conv(x: Tensor, conv: nn.Conv1d, form: str) -> Tensor:
    """Depthwise causal convolution followed by SiLU, as in Mamba; (B, T, D) to (B, T, D).

    Args:
        form: "fused" uses the CPU kernel, "mamba_ssm" that of causal-conv1d if installed; otherwise plain torch.
    """
    weight, bias = conv.weight.squeeze(1), conv.bias  # (D, K), (D,)
    assert bias is not None
    if form == "fused":
        from nextfail.models.scan.fused import fused_conv  # numba takes a second to import

        return fused_conv(x, weight, bias).to(x.dtype)
    if form == "mamba_ssm" and (kernel := _conv_kernel()):
        return kernel(x.transpose(1, 2).contiguous(), weight, bias, activation="silu").transpose(1, 2)
    steps, taps = x.shape[1], weight.shape[1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    return F.silu(sum((padded[:, k : k + steps] * weight[:, k] for k in range(taps)), start=bias)).to(x.dtype)


@cache
def _conv_kernel() -> Any:
    try:
        from causal_conv1d import causal_conv1d_fn
    except Exception:  # absent or broken: plain torch does as well
        return None
    return causal_conv1d_fn
