"""The scan of Mamba-2 (Dao & Gu 2024, section 6): one function with several implementations.

For each head, with a P x N state h that starts at zero and a single decay:

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T
    y_t = h_t C_t + D x_t
"""

from importlib import import_module

import torch
from torch import Tensor
from torch.nn import functional as F

from nextfail.models.scan.forms import KERNELS_HINT, Form, Forms

KERNELS = "mamba_ssm.ops.triton.ssd_combined"


def _try_kernels() -> object:
    kernel = import_module(KERNELS).mamba_chunk_scan_combined
    one = torch.ones(1, 16, 1, 16, device="cuda")
    return kernel(one, one[..., 0], -one[0, 0, :, 0], one, one, 16)[0, 0, 0, 0].item()


FORMS = Forms(
    "blocked",
    mamba_ssm=Form("the Triton kernels of mamba-ssm", "cuda", "mamba-ssm", _try_kernels, KERNELS_HINT),
    blocked=Form("products of matrices in plain torch, on any device"),
    loop=Form("one step after the other in plain torch, on any device: the specification of all others"),
)
"""Implementations. "auto" is mamba_ssm on CUDA, and blocked elsewhere or where that is unavailable."""

CHUNK = 32
"""Steps per chunk: matrix products within a chunk, a recurrence between chunks."""


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: bool = True,
    form: str = "auto",
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor | None]:
    """The scan above; arguments as for mamba-ssm's `mamba_chunk_scan_combined`, with one group of B and C.

    Args:
        x: (B, T, H, P) inputs of H heads.
        dt: (B, T, H) step sizes.
        A: (H,) real. Negative entries decay.
        B, C: (B, T, N) input and output projections of the state, shared by all heads.
        D: (H,) skip connection.
        dt_bias: (H,) added to dt. dt_softplus: whether to apply softplus to dt afterwards.
        initial_state: (B, H, P, N) before the first step; zero if None.
        return_last_state: whether to also return the state after the last step.
        form: one of FORMS, or "auto".
        chunk: most steps per chunk of "blocked"; affects speed and rounding only.

    Returns:
        (B, T, H, P) in the type of x and, if requested, (B, H, P, N) in float32 (float64 for x in float64).

    Raises:
        UserError: the form does not exist or is unavailable here.
    """
    form = FORMS.choose(form, x.device.type)
    if form == "mamba_ssm":
        kernel = import_module(KERNELS).mamba_chunk_scan_combined
        wide = (each.unsqueeze(2) for each in (B, C))  # (B, T, 1, N)
        made = kernel(x, dt, A, *wide, 4 * CHUNK, D=D, dt_bias=dt_bias, initial_states=initial_state,
                      dt_softplus=dt_softplus, return_final_states=return_last_state)  # fmt: skip
        return made if return_last_state else (made, None)
    real = torch.float64 if x.dtype == torch.float64 else torch.float32
    with torch.autocast(x.device.type, enabled=False):  # decays over many steps need full precision
        wide_x, dt, A, B, C = (each.to(real) for each in (x, dt, A, B, C))
        dt = dt if dt_bias is None else dt + dt_bias.to(real)
        dt = F.softplus(dt) if dt_softplus else dt
        state = None if initial_state is None else initial_state.to(real)
        scaled, decay = wide_x * dt[..., None], dt * A  # (B, T, H, P), (B, T, H); the logarithm of the decay
        if form == "loop":
            y, last = loop(scaled, decay, B, C, state)
        else:
            y, last = blocked(scaled, decay, B, C, state, chunk, return_last_state)
        y = y if D is None else y + D.to(real)[:, None] * wide_x
    return y.to(x.dtype), last if return_last_state else None


def loop(x: Tensor, decay: Tensor, B: Tensor, C: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Step by step: h_t = exp(decay_t) h_{t-1} + x_t B_t^T, y_t = h_t C_t.

    Args:
        x: (B, T, H, P). decay: (B, T, H). B, C: (B, T, N). state: (B, H, P, N) or None.

    Returns:
        (B, T, H, P), and the last state.
    """
    rows, steps, heads, channels = x.shape
    h = x.new_zeros(rows, heads, channels, B.shape[-1]) if state is None else state
    outputs = []
    for t in range(steps):
        h = decay[:, t, :, None, None].exp() * h + x[:, t, :, :, None] * B[:, t, None, None]
        outputs.append((h * C[:, t, None, None]).sum(-1))
    return torch.stack(outputs, 1), h


def blocked(
    x: Tensor, decay: Tensor, B: Tensor, C: Tensor, state: Tensor | None, chunk: int, whole: bool
) -> tuple[Tensor, Tensor | None]:
    """As `loop`: decaying attention within chunks, states between chunks.

    The last state is computed only if requested by `whole` or needed: not for a single chunk without an initial state.

    Uses K chunks of L steps; T is padded with zeros, which change neither outputs nor state.
    """
    steps = x.shape[1]
    length = _chunk_length(steps, chunk)
    short = -steps % length
    if short:
        x, decay = F.pad(x, (0, 0, 0, 0, 0, short)), F.pad(decay, (0, 0, 0, short))
        B, C = F.pad(B, (0, 0, 0, short)), F.pad(C, (0, 0, 0, short))
    x = x.unflatten(1, (-1, length)).transpose(2, 3)  # (B, K, H, L, P)
    sums = decay.unflatten(1, (-1, length)).transpose(2, 3).cumsum(-1)  # (B, K, H, L)
    B, C = (each.unflatten(1, (-1, length)) for each in (B, C))  # (B, K, L, N)
    apart = sums.unsqueeze(-1) - sums.unsqueeze(-2)  # (B, K, H, L, L): from column to row
    future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    weights = (C @ B.mT).unsqueeze(2) * apart.masked_fill(future, -torch.inf).exp()
    y = weights @ x  # (B, K, H, L, P)
    if x.shape[1] > 1 or state is not None or whole:
        left = (sums[..., -1:] - sums).exp()  # decay of each input until the end of its chunk
        added = (x * left.unsqueeze(-1)).mT @ B.unsqueeze(2)  # (B, K, H, P, N)
        kept = sums[..., -1].exp()[..., None, None]  # decay of a state over a chunk, (B, K, H, 1, 1)
        starts = [torch.zeros_like(added[:, 0]) if state is None else state]
        for k in range(x.shape[1]):
            starts.append(kept[:, k] * starts[-1] + added[:, k])
        y = y + sums.exp().unsqueeze(-1) * (C.unsqueeze(2) @ torch.stack(starts[:-1], 1).mT)
        state = starts[-1]
    return y.transpose(2, 3).flatten(1, 2)[:, :steps], state


def blocked_flops(rows: int, steps: int, heads: int, channels: int, states: int) -> int:
    """FLOPs of the matrix products of `blocked` in a forward pass without states before or after it."""
    length = _chunk_length(steps, CHUNK)
    chunks = -(-steps // length)
    within = length * (states + heads * channels)  # C B^T, then the product with x
    between = 2 * heads * channels * states if chunks > 1 else 0  # into the states, and out of them
    return 2 * rows * chunks * length * (within + between)


def _chunk_length(steps: int, chunk: int) -> int:
    """Steps per chunk, if chunks of at most `chunk` steps are to be nearly equal."""
    return -(-steps // -(-steps // chunk))
