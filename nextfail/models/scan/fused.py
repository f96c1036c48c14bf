"""The kernels of cpu_kernels as differentiable functions of tensors, on torch's number of threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nextfail.models.scan import cpu_kernels as kernels
from nextfail.models.scan.selective_scan import ScanInput

WIDEST = 256  # most channels per tile: enough for long loops, few enough to stay in the CPU cache


def fused_scan(given: ScanInput) -> tuple[Tensor, Tensor]:
    """The selective scan with time before channels: out (B, T, D), last state (B, D, N), both of type `given.real`."""
    real = given.real
    zeros = torch.zeros(given.u.shape[2], dtype=real)
    out, last = _Scan.apply(
        *(each.to(real).contiguous() for each in (given.u, given.delta, given.A.t(), given.B, given.C)),
        *(zeros if each is None else each.to(real) for each in (given.D, given.delta_bias)),
        *(each if each is None else each.to(real).contiguous() for each in (given.z, given.initial_state)),
        given.delta_softplus,
    )
    return out, last.transpose(1, 2)


def fused_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise causal convolution followed by SiLU.

    Args:
        x: (B, T, D). weight: (D, K). bias: (D,). Any floating-point type.

    Returns:
        (B, T, D), in float64 if x is, otherwise float32.
    """
    real = torch.float64 if x.dtype == torch.float64 else torch.float32
    return _Conv.apply(x.to(real).contiguous(), weight.t().to(real).contiguous(), bias.to(real))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        bias: Tensor,
        z: Tensor | None,
        initial: Tensor | None,
        softplus: bool,
    ) -> tuple[Tensor, Tensor]:
        rows, steps, channels = u.shape
        states = len(A)  # A is (N, D) here
        starts = u.new_empty(rows, -(-steps // kernels.CHUNK), states, channels)
        starts[:, 0] = 0 if initial is None else initial.transpose(1, 2)
        ctx.softplus, ctx.gated = softplus, z is not None
        gate = z if z is not None else u.new_empty(0, 0, 0)
        out, last = torch.empty_like(u), u.new_empty(rows, states, channels)
        arguments = (u, delta, A, B, C, D, gate, bias)
        _over_rows(kernels.scan_forward, rows, _tile(channels), *arguments, softplus, ctx.gated, starts, last, out)
        ctx.save_for_backward(*arguments, starts)
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_out: Tensor, g_last: Tensor) -> tuple[Tensor | None, ...]:
        *arguments, starts = ctx.saved_tensors
        u, delta, A, B, C, D, gate, bias = arguments
        rows, _, channels = u.shape
        g_u, g_delta, g_z, g_initial = (torch.empty_like(each) for each in (u, delta, gate, g_last))
        g_B, g_C = torch.zeros_like(B), torch.zeros_like(C)
        g_A, g_D, g_bias = (each.new_zeros(rows, *each.shape) for each in (A, D, bias))
        _over_rows(
            kernels.scan_backward, rows, _tile(channels), *arguments, ctx.softplus, ctx.gated, starts,
            g_out.contiguous(), g_last.contiguous(), g_u, g_delta, g_A, g_B, g_C, g_D, g_z, g_bias, g_initial,
        )  # fmt: skip
        of_z, of_initial = g_z if ctx.gated else None, g_initial.transpose(1, 2) if ctx.needs_input_grad[8] else None
        return g_u, g_delta, g_A.sum(0), g_B, g_C, g_D.sum(0), g_bias.sum(0), of_z, of_initial, None


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        out = torch.empty_like(x)
        _over_rows(kernels.conv_forward, len(x), x, weight, bias, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_out: Tensor) -> tuple[Tensor, ...]:
        x, weight, bias = ctx.saved_tensors
        g_x = torch.zeros_like(x)
        g_weight, g_bias = (each.new_zeros(len(x), *each.shape) for each in (weight, bias))
        _over_rows(kernels.conv_backward, len(x), x, weight, bias, g_out.contiguous(), g_x, g_weight, g_bias)
        return g_x, g_weight.sum(0), g_bias.sum(0)


def _tile(channels: int) -> int:
    """Channels per tile: all, or equal parts of at most `WIDEST`."""
    return -(-channels // -(-channels // WIDEST))


def _over_rows(kernel: Callable[..., None], rows: int, *arguments: Any) -> None:
    """Call a kernel on all rows, on torch's number of threads; tensors become arrays."""
    plain = [each.detach().numpy() if isinstance(each, Tensor) else each for each in arguments]
    threads = min(torch.get_num_threads(), rows)
    if threads <= 1:
        _call(kernel, 0, rows, *plain)
        return
    edges = [rows * i // threads for i in range(threads + 1)]
    (first, end), *others = pairwise(edges)
    parts = [_pool(os.getpid(), threads - 1).submit(_call, kernel, *part, *plain) for part in others]
    _call(kernel, first, end, *plain)
    for part in parts:
        part.result()


def _call(kernel: Callable[..., None], *arguments: Any) -> None:
    try:
        kernel(*arguments)
    except OSError:  # compiled, but not cached: the disk is full
        kernel(*arguments)


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Thread pool of this process: a fork has none of its parent's threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="scan")
