"""CPU kernels of the selective scan and the short convolution, forward and backward, compiled by numba.

Every kernel works on the rows `first` to `end` of a batch, so that threads can share a batch. It writes each number
once and sums in a fixed order, so that results do not depend on the number of threads. Channels are innermost, in
memory and in the loops, which the compiler vectorises, exponentials included. Arrays are C-contiguous and all of one
type, float32 or float64.

Shapes: B rows, T steps, D channels, N states. Gradients are named after their variable, as in `g_u`; those of
parameters have one entry per row, to be summed.

Numba caches compiled code on disk, and checks only this file for changes: everything that a kernel calls must be
defined here.
"""

import logging
import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

log = logging.getLogger(__name__)

CHUNK = 32
"""Steps between the states kept for the backward pass, which recomputes the ones in between."""

FUSE = {"contract"}  # fused multiply-add only: other rewrites would break the rounding in the exponential
REORDER = {"contract", "reassoc"}  # where sums over channels may be reordered


def _kernel(function: Any) -> Any:
    """Compile on first use and cache on disk, if numba finds a writable folder."""
    options: Any = {"nogil": True, "fastmath": FUSE, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError as error:
        log.info("%s is recompiled by each process, which takes about 20 seconds: %s", function.__name__, error)
        return njit(**options)(function)


# ---- elementary functions, written out so that the compiler can vectorise them


def _reinterpret(source: Any, target: Any) -> Any:
    """The bits of a `source` as a `target`."""

    @intrinsic
    def reinterpret(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), generate

    return reinterpret


_bits, _float = _reinterpret(types.float32, types.int32), _reinterpret(types.int32, types.float32)

_f = np.float32
_LEAST, _MOST = _f(-87.3), _f(88.0)  # beyond these, 2^k is not a normal number
_PER_LN2, _LN2_HIGH, _LN2_LOW = _f(1 / math.log(2)), _f(0.693359375), _f(math.log(2) - 0.693359375)
_ROUND = _f(1.5 * 2**23)  # adding and subtracting it rounds to an integer, left in the low bits in between
# (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2, highest power first: the minimax polynomial of Cephes' expf
_E0, _E1, _E2, _E3, _E4, _E5 = map(_f, (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665795e-2, 1.6666666e-1, 0.5))


def _exp(x: Any) -> Any:
    """exp(x), accurate to 2 ulp, clamped to 2^-126 .. 2^127."""


def _sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""


def _softplus(x: Any) -> Any:
    """log(1 + exp(x))."""


@overload(_exp, jit_options={"fastmath": FUSE})
def _(x: Any) -> Any:
    def single(x: Any) -> Any:
        x = min(max(x, _LEAST), _MOST)
        shifted = x * _PER_LN2 + _ROUND
        k = shifted - _ROUND
        r = (x - k * _LN2_HIGH) - k * _LN2_LOW  # x = k ln(2) + r
        p = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
        power = _float(types.int32((_bits(shifted) << 23) + 0x3F800000))  # 2^k, built from its exponent bits
        return (p * (r * r) + (r + _f(1))) * power

    def double(x: Any) -> Any:
        return math.exp(x)

    return single if x == types.float32 else double


@overload(_sigmoid, jit_options={"fastmath": FUSE})
def _(x: Any) -> Any:
    one = _f(1) if x == types.float32 else 1.0

    def either(x: Any) -> Any:
        return one / (one + _exp(-x))

    return either


@overload(_softplus, jit_options={"fastmath": FUSE})
def _(x: Any) -> Any:
    def single(x: Any) -> Any:
        e = _exp(-abs(x))
        s = e / (e + _f(2))  # log(1 + e) = 2 atanh(s), and s <= 1/3, where six terms suffice
        q = s * s
        p = (((((_f(2 / 13) * q + _f(2 / 11)) * q + _f(2 / 9)) * q + _f(2 / 7)) * q + _f(2 / 5)) * q + _f(2 / 3)) * q
        return max(x, _f(0)) + s * (p + _f(2))

    def double(x: Any) -> Any:
        return max(x, 0.0) + math.log1p(math.exp(-abs(x)))

    return single if x == types.float32 else double


# ---- the scan
#
# Loops over channels are separate functions that get slices starting at index 0: an index that might be negative, as
# far as the compiler knows, would need a check for every element.


@_kernel
def scan_forward(first, end, tile, u, delta, A, B, C, D, z, bias, softplus, gated, starts, last, out):  # type: ignore
    """Outputs of the scan; see nextfail.models.scan.selective_scan for its definition.

    Args:
        first, end: rows to process.
        tile: channels to process at a time.
        u, delta, out: (B, T, D). A: (N, D). B, C: (B, T, N). D, bias: (D,).
        z: (B, T, D), read if `gated`.
        softplus: whether to apply softplus to delta, after adding the bias.
        starts: (B, chunks, N, D), the states at the start of each chunk; the first is an input, the others are written.
        last: (B, N, D), written: the state after the last step.
    """
    steps, channels, states = u.shape[1], u.shape[2], A.shape[0]
    h, A_here = np.empty((states, tile), u.dtype), np.empty((states, tile), u.dtype)
    dt, x, y = np.empty(tile, u.dtype), np.empty(tile, u.dtype), np.empty(tile, u.dtype)
    for c in range(0, channels, tile):
        width = min(tile, channels - c)
        A_here[:, :width] = A[:, c : c + width]
        for b in range(first, end):
            h[:, :width] = starts[b, 0, :, c : c + width]
            for t in range(steps):
                if t % CHUNK == 0:
                    starts[b, t // CHUNK, :, c : c + width] = h[:, :width]
                _discretise(width, softplus, u[b, t, c:], delta[b, t, c:], D[c:], bias[c:], dt, x, y)
                for n in range(states):
                    _advance(width, n, dt, x, A_here, B[b, t, n], C[b, t, n], h, y)
                if gated:
                    _gate(width, z[b, t, c:], y)
                out[b, t, c : c + width] = y[:width]
            last[b, :, c : c + width] = h[:, :width]


@njit(nogil=True, fastmath=FUSE)
def _discretise(width, softplus, u, delta, D, bias, dt, x, y):  # type: ignore
    """Of one step: its size dt, its input x = dt u, and the initial output D u; all (width,)."""
    for d in range(width):
        raw = delta[d] + bias[d]
        dt[d] = _softplus(raw) if softplus else raw
    for d in range(width):
        x[d], y[d] = dt[d] * u[d], D[d] * u[d]


@njit(nogil=True, fastmath=FUSE)
def _advance(width, n, dt, x, A, to_state, from_state, h, y):  # type: ignore
    """Advance state n by one step and add its contribution to the output."""
    for d in range(width):
        new = _exp(dt[d] * A[n, d]) * h[n, d] + x[d] * to_state
        h[n, d] = new
        y[d] += new * from_state


@njit(nogil=True, fastmath=FUSE)
def _gate(width, z, y):  # type: ignore
    for d in range(width):
        y[d] *= z[d] * _sigmoid(z[d])


@_kernel
def scan_backward(  # type: ignore
    first, end, tile, u, delta, A, B, C, D, z, bias, softplus, gated, starts, g_out, g_last,
    g_u, g_delta, g_A, g_B, g_C, g_D, g_z, g_bias, g_initial,
):  # fmt: skip
    """Gradients of `scan_forward`, from its arguments, its `starts`, and the output gradients `g_out` and `g_last`.

    Goes backwards chunk by chunk: recomputes the chunk's states from the stored one, then backpropagates through its
    steps.

    Args:
        g_u, g_delta, g_z: (B, T, D), written. g_initial: (B, N, D), written.
        g_A: (B, N, D), written. g_B, g_C: (B, T, N), g_D, g_bias: (B, D); accumulated.
    """
    steps, channels, states = u.shape[1], u.shape[2], A.shape[0]
    real = u.dtype
    h, decay = np.empty((CHUNK + 1, states, tile), real), np.empty((CHUNK, states, tile), real)
    dt, x, y = np.empty((CHUNK, tile), real), np.empty((CHUNK, tile), real), np.empty((CHUNK, tile), real)
    A_here, g_A_here, g_h = (
        np.empty((states, tile), real),
        np.empty((states, tile), real),
        np.empty((states, tile), real),
    )
    g_y, g_x, g_dt = np.empty(tile, real), np.empty(tile, real), np.empty(tile, real)
    for c in range(0, channels, tile):
        width = min(tile, channels - c)
        A_here[:, :width] = A[:, c : c + width]
        for b in range(first, end):
            g_A_here[:] = 0
            g_h[:, :width] = g_last[b, :, c : c + width]
            for chunk in range(starts.shape[1] - 1, -1, -1):
                begin = chunk * CHUNK
                length = min(CHUNK, steps - begin)
                h[0, :, :width] = starts[b, chunk, :, c : c + width]
                for i in range(length):
                    t = begin + i
                    _discretise(width, softplus, u[b, t, c:], delta[b, t, c:], D[c:], bias[c:], dt[i], x[i], y[i])
                    for n in range(states):
                        _advance_keeping(width, i, n, dt, x, A_here, B[b, t, n], C[b, t, n], decay, h, y)
                for i in range(length - 1, -1, -1):
                    t = begin + i
                    if gated:
                        _gate_back(width, z[b, t, c:], y[i], g_out[b, t, c:], g_z[b, t, c:], g_y)
                    else:
                        g_y[:width] = g_out[b, t, c : c + width]
                    g_x[:width] = g_dt[:width] = 0
                    for n in range(states):
                        to_state, from_state = _advance_back(
                            width, i, n, decay, h, dt, x, A_here, B[b, t, n], C[b, t, n], g_y, g_h, g_x, g_dt, g_A_here
                        )
                        g_B[b, t, n] += to_state
                        g_C[b, t, n] += from_state
                    _discretise_back(
                        width, softplus, u[b, t, c:], delta[b, t, c:], D[c:], bias[c:], dt[i], g_x, g_dt, g_y,
                        g_u[b, t, c:], g_delta[b, t, c:], g_D[b, c:], g_bias[b, c:],
                    )  # fmt: skip
            g_initial[b, :, c : c + width] = g_h[:, :width]
            g_A[b, :, c : c + width] = g_A_here[:, :width]


@njit(nogil=True, fastmath=FUSE)
def _advance_keeping(width, i, n, dt, x, A, to_state, from_state, decay, h, y):  # type: ignore
    """As `_advance` in step i of a chunk, storing what the backward pass needs."""
    for d in range(width):
        kept = _exp(dt[i, d] * A[n, d])
        new = kept * h[i, n, d] + x[i, d] * to_state
        decay[i, n, d] = kept
        h[i + 1, n, d] = new
        y[i, d] += new * from_state


@njit(nogil=True, fastmath=REORDER)
def _advance_back(width, i, n, decay, h, dt, x, A, to_state, from_state, g_y, g_h, g_x, g_dt, g_A):  # type: ignore
    """Backpropagate g_h through step i; returns its contributions to the gradients of B and C."""
    g_to_state = g_from_state = decay.dtype.type(0)
    for d in range(width):
        g_from_state += g_y[d] * h[i + 1, n, d]
        g = g_h[n, d] + g_y[d] * from_state
        g_to_state += g * x[i, d]
        g_x[d] += g * to_state
        g *= decay[i, n, d]
        g_h[n, d] = g
        g_exponent = g * h[i, n, d]  # decay = exp(dt A)
        g_dt[d] += g_exponent * A[n, d]
        g_A[n, d] += g_exponent * dt[i, d]
    return g_to_state, g_from_state


@njit(nogil=True, fastmath=FUSE)
def _gate_back(width, z, y, g_out, g_z, g_y):  # type: ignore
    one = z.dtype.type(1)
    for d in range(width):
        gate = _sigmoid(z[d])
        g_z[d] = g_out[d] * y[d] * gate * (one + z[d] * (one - gate))
        g_y[d] = g_out[d] * z[d] * gate


@njit(nogil=True, fastmath=FUSE)
def _discretise_back(  # type: ignore
    width, softplus, u, delta, D, bias, dt, g_x, g_dt, g_y, g_u, g_delta, g_D, g_bias
):  # fmt: skip
    for d in range(width):
        g_u[d] = g_x[d] * dt[d] + g_y[d] * D[d]
        g_D[d] += g_y[d] * u[d]
        g_raw = g_dt[d] + g_x[d] * u[d]
        if softplus:
            g_raw *= _sigmoid(delta[d] + bias[d])
        g_delta[d] = g_raw
        g_bias[d] += g_raw


# ---- the convolution


@_kernel
def conv_forward(first, end, x, weight, bias, out):  # type: ignore
    """Depthwise causal convolution followed by SiLU.

    Args:
        first, end: rows to process.
        x, out: (B, T, D). weight: (K, D), the last row for the current step. bias: (D,).
    """
    y = np.empty(x.shape[2], x.dtype)
    for b in range(first, end):
        for t in range(x.shape[1]):
            _convolve(x[b], weight, bias, t, y)
            for d in range(y.size):
                out[b, t, d] = y[d] * _sigmoid(y[d])


@_kernel
def conv_backward(first, end, x, weight, bias, g_out, g_x, g_weight, g_bias):  # type: ignore
    """Gradients of `conv_forward`. g_x: (B, T, D), g_weight: (B, K, D), g_bias: (B, D); all accumulated."""
    one = x.dtype.type(1)
    taps, channels = weight.shape
    y = np.empty(channels, x.dtype)
    for b in range(first, end):
        for t in range(x.shape[1]):
            _convolve(x[b], weight, bias, t, y)
            for d in range(channels):
                gate = _sigmoid(y[d])
                y[d] = g_out[b, t, d] * gate * (one + y[d] * (one - gate))
                g_bias[b, d] += y[d]
            for k in range(max(0, taps - 1 - t), taps):
                s = t + k - taps + 1
                for d in range(channels):
                    g_x[b, s, d] += y[d] * weight[k, d]
                    g_weight[b, k, d] += y[d] * x[b, s, d]


@njit(nogil=True, fastmath=FUSE)
def _convolve(x, weight, bias, t, y):  # type: ignore
    """y (D,) = convolution at step t of x (T, D), zero before the start."""
    taps = weight.shape[0]
    for d in range(y.size):
        y[d] = bias[d]
    for k in range(max(0, taps - 1 - t), taps):
        for d in range(y.size):
            y[d] += weight[k, d] * x[t + k - taps + 1, d]
