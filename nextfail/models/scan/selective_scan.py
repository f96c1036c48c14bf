"""The selective scan of Mamba (Gu & Dao 2023, section 3): one function with several implementations.

For each channel d, with a state h of N numbers that starts at zero:

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t
    y_t = C_t . h_t + D u_t        and out_t = y_t silu(z_t), if there is a gate z
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nextfail.models.scan.forms import KERNELS_HINT, Form, Forms

KERNELS, FUSED = "mamba_ssm.ops.selective_scan_interface", "nextfail.models.scan.fused"


def _try_kernels() -> object:
    kernel = import_module(KERNELS).selective_scan_fn  # can be imported without its compiled extension
    one = torch.ones(1, 1, 1, device="cuda")
    return kernel(one, one, -one[0], one, one).item()


FORMS = Forms(
    "parallel",
    mamba_ssm=Form("the fused CUDA kernels of mamba-ssm", "cuda", "mamba-ssm", _try_kernels, KERNELS_HINT),
    parallel=Form("a parallel scan in plain torch, on any device"),
    fused=Form(
        "a fused kernel for the CPU, compiled by numba",
        "cpu", "numba", lambda: import_module(FUSED), "pip install numba for the fused kernel",
    ),
    loop=Form("one step after the other in plain torch, on any device: the specification of all others"),
)  # fmt: skip
"""Implementations. "auto" is mamba_ssm on CUDA, fused on the CPU, and parallel where those are unavailable."""


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    initial_state: Tensor | None = None,
    form: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """The scan above; arguments as for mamba-ssm's `selective_scan_fn`, plus two.

    Args:
        u: (B, D, T) inputs. Fastest if stored with time before channels, as a transposed (B, T, D).
        delta: (B, D, T) step sizes.
        A: (D, N) real. Negative entries decay.
        B, C: (B, N, T) input and output projections of the state.
        D: (D,) skip connection. z: (B, D, T) gate.
        delta_bias: (D,) added to delta. delta_softplus: whether to apply softplus to delta afterwards.
        return_last_state: whether to also return the state after the last step.
        initial_state: (B, D, N) before the first step; zero if None.
        form: one of FORMS, or "auto". With an initial state, mamba_ssm computes as parallel does.

    Returns:
        (B, D, T) in the type of u and, if requested, (B, D, N) in float32 (float64 for u in float64). All forms but
        mamba_ssm are differentiable in both.

    Raises:
        UserError: the form does not exist or is unavailable here.
        ValueError: shapes do not match.
    """
    given = ScanInput(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state)
    given.check()
    form = FORMS.choose(form, u.device.type)
    if form == "mamba_ssm" and initial_state is None:
        kernel = import_module(KERNELS).selective_scan_fn
        return kernel(u, delta, A.float(), B, C, D, z, delta_bias, delta_softplus, return_last_state)
    if form == "fused":
        out, last = import_module(FUSED).fused_scan(given.time_first())
    else:
        out, last = _plain(loop if form == "loop" else parallel, given.time_first())
    out = out.to(u.dtype).transpose(1, 2)
    return (out, last) if return_last_state else out


@dataclass(frozen=True)
class ScanInput:
    """Inputs of a scan; see `selective_scan`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    delta_softplus: bool
    initial_state: Tensor | None

    @property
    def real(self) -> torch.dtype:
        """The type to compute in."""
        return torch.float64 if self.u.dtype == torch.float64 else torch.float32

    def time_first(self) -> "ScanInput":
        """The same with time before channels: u, delta, z (B, T, D), and B, C (B, T, N)."""
        u, delta, B, C = (each.transpose(1, 2) for each in (self.u, self.delta, self.B, self.C))
        z = self.z if self.z is None else self.z.transpose(1, 2)
        return replace(self, u=u, delta=delta, B=B, C=C, z=z)

    def check(self) -> None:
        """Raise a ValueError that names the argument whose shape does not match u and A."""
        u, A = self.u, self.A
        if u.dim() != 3 or A.dim() != 2 or A.is_complex() or not u.shape[2]:
            got = f"{(*u.shape,)} and {(*A.shape,)}"
            raise ValueError(f"needs u (B, D, T) with T at least 1 and a real A (D, N), got {got}")
        (rows, channels, steps), states = u.shape, A.shape[1]
        wide, narrow = (rows, channels, steps), (rows, states, steps)
        expected = {
            "delta": wide, "A": (channels, states), "B": narrow, "C": narrow, "D": (channels,), "z": wide,
            "delta_bias": (channels,), "initial_state": (rows, channels, states),
        }  # fmt: skip
        for name, shape in expected.items():
            given = getattr(self, name)
            if given is not None and given.shape != shape:
                raise ValueError(f"{name} has shape {(*given.shape,)}, and u and A make it {shape}")


Scan = Callable[[Tensor, Tensor], Tensor]


def loop(decay: Tensor, x: Tensor) -> Tensor:
    """h_t = decay_t h_{t-1} + x_t from h = 0, step by step; all (B, T, ...)."""
    h = torch.zeros_like(x[:, 0])
    states = []
    for t in range(x.shape[1]):
        h = decay[:, t] * h + x[:, t]
        states.append(h)
    return torch.stack(states, 1)


def parallel(decay: Tensor, x: Tensor) -> Tensor:
    """As `loop`, with a number of sequential operations logarithmic in T (Blelloch 1990).

    Keeps two tensors of this size for the backward pass, which is itself such a scan in reverse.
    """
    return _Parallel.apply(decay, x)


class _Parallel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay: Tensor, x: Tensor) -> Tensor:
        h = _pairwise(decay, x)
        ctx.save_for_backward(decay, h)
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g_out: Tensor) -> tuple[Tensor, Tensor]:
        decay, h = ctx.saved_tensors
        # gradient of h_t: its own, plus that of h_{t+1} through decay_{t+1}
        following = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], 1)
        g_x = _pairwise(following.flip(1), g_out.flip(1)).flip(1)
        before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
        return g_x * before, g_x


def _pairwise(decay: Tensor, x: Tensor) -> Tensor:
    """Scan pairs of steps as single steps, half as many; the others then follow from their neighbours."""
    steps = x.shape[1]
    if steps == 1:
        return x
    h = torch.empty_like(x)
    even, odd = slice(0, steps - 1, 2), slice(1, None, 2)
    h[:, odd] = _pairwise(decay[:, odd] * decay[:, even], decay[:, odd] * x[:, even] + x[:, odd])
    h[:, 0] = x[:, 0]
    h[:, 2::2] = decay[:, 2::2] * h[:, 1:-1:2] + x[:, 2::2]
    return h


def _plain(scan: Scan, given: ScanInput) -> tuple[Tensor, Tensor]:
    """Output (B, T, D) and last state (B, D, N), materialising all states; time before channels."""
    real = given.real
    u, delta, A, B, C = (each.to(real) for each in (given.u, given.delta, given.A, given.B, given.C))
    if given.delta_bias is not None:
        delta = delta + given.delta_bias.to(real)
    if given.delta_softplus:
        delta = F.softplus(delta)
    decay = torch.exp(delta[..., None] * A)  # (B, T, D, N)
    x = (delta * u)[..., None] * B[:, :, None]  # (B, T, D, N)
    if given.initial_state is not None:
        first = x[:, :1] + decay[:, :1] * given.initial_state.to(real)[:, None]
        x = torch.cat([first, x[:, 1:]], 1)
    h = scan(decay, x)
    y = (h * C[:, :, None]).sum(-1)  # (B, T, D)
    if given.D is not None:
        y = y + given.D.to(real) * u
    if given.z is not None:
        y = y * F.silu(given.z.to(real))
    return y, h[:, -1]
