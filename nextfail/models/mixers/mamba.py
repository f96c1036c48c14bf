"""The Mamba mixer (Gu & Dao 2023): a convolution, and a scan with input-dependent parameters."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models.mixers.base import Mixer
from nextfail.models.mixers.conv import causal_conv
from nextfail.models.scan.forms import Forms
from nextfail.models.scan.selective_scan import FORMS, selective_scan

LEAST_STEP, STEPS = 1e-4, (1e-3, 1e-1)
"""Initial step sizes: lower bound, and range of the log-uniform distribution."""


@dataclass(frozen=True)
class ScanState:
    """Decoding state: the window of the convolution over D channels with K taps, and the state of the scan."""

    window: Tensor  # (B, K - 1, D), the last inputs of the convolution
    state: Tensor  # (B, D, N) of Mamba, (B, H, P, N) of Mamba-2


class ScanMixer(Mixer):
    """A mixer with a scan, which has several forms.

    Args:
        scan: name of the form, or "auto"; affects speed and rounding only.

    Raises:
        UserError: there is no such form.
    """

    forms: ClassVar[Forms]

    def __init__(self, scan: str) -> None:
        super().__init__()
        self.forms.require(scan)
        self.scan = scan

    def adapt(self, device: str) -> None:
        try:
            self.forms.choose(self.scan, device)
        except UserError:
            self.scan = "auto"

    def announce(self, device: str) -> None:
        self.forms.announce(self.scan, device)


class MambaMixer(ScanMixer):
    """Selective state-space model; parameters have the names, shapes and initial values of `mamba_ssm.Mamba`.

    Args:
        width: channels C.
        d_state: state size N per inner channel.
        d_conv: kernel size K of the convolution.
        expand: expansion factor, inner channels D = expand * width.
        scan: implementation of the scan, see nextfail.models.scan.selective_scan; affects speed and rounding only.
    """

    forms = FORMS

    def __init__(self, width: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, scan: str = "auto") -> None:
        super().__init__(scan)
        inner, self.rank, self.d_state = expand * width, math.ceil(width / 16), d_state
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(inner, 1))  # A = -1, ..., -N: S4D-real
        self.D = nn.Parameter(torch.ones(inner))
        for each in (self.A_log, self.D):
            each.no_weight_decay = True  # type: ignore[attr-defined]
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(initial_steps(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def uncounted_flops(self, x: Tensor, *_: Any) -> int:
        """FLOPs of a forward pass that torch does not count: 6 per state of the scan, 2 per tap."""
        return x.shape[0] * x.shape[1] * len(self.D) * (6 * self.d_state + 2 * self.conv1d.kernel_size[0])

    def initialise(self, std: float, residuals: int) -> None:
        with torch.no_grad():
            self.out_proj.weight /= math.sqrt(residuals)  # as many branches add to the residual stream

    def forward(self, x: Tensor, *, last: int | None = None, **_: Any) -> Tensor:
        return self.step(x, None, last=last)[0]

    def step(self, x: Tensor, past: ScanState | None = None, *, last: int | None = None) -> tuple[Tensor, ScanState]:
        keep = slice(None) if last is None else slice(-last, None)
        form = self.forms.choose(self.scan, x.device.type)
        into, gate = self.in_proj.weight.chunk(2)  # (D, C) each; two products need no copy
        inner, z = F.linear(x, into), F.linear(x[:, keep], gate)  # (B, T, D), (B, last, D)
        inner, window = convolve(inner, self.conv1d, past, form)
        rank, B, C = self.x_proj(inner).split([self.rank, self.d_state, self.d_state], -1)  # (B, T, R), (B, T, N) twice
        delta = F.linear(rank, self.dt_proj.weight)  # (B, T, D); its bias is added in the scan
        A = -self.A_log.float().exp()
        gated = z.shape[1] == x.shape[1]
        y, state = selective_scan(
            inner.transpose(1, 2), delta.transpose(1, 2), A, B.transpose(1, 2), C.transpose(1, 2), self.D.float(),
            z.transpose(1, 2) if gated else None, self.dt_proj.bias.float(), delta_softplus=True,
            return_last_state=True, initial_state=past.state if past else None, form=form,
        )  # fmt: skip
        y = y.transpose(1, 2)  # (B, T, D)
        if not gated:
            y = y[:, keep] * F.silu(z)
        return self.out_proj(y), ScanState(window, state)


def initial_steps(count: int) -> Tensor:
    """Inverse softplus (count,) of the initial step sizes."""
    low, high = (math.log(each) for each in STEPS)
    steps = torch.empty(count).uniform_(low, high).exp().clamp(min=LEAST_STEP)
    return steps + torch.log(-torch.expm1(-steps))


def convolve(x: Tensor, conv: nn.Conv1d, past: ScanState | None, form: str) -> tuple[Tensor, Tensor]:
    """`causal_conv` of x (B, T, D), continuing from `past`, and the updated window (B, K - 1, D)."""
    seen = torch.cat([past.window, x], 1) if past else x
    window = F.pad(seen, (0, 0, conv.kernel_size[0] - 1 - seen.shape[1], 0))  # the last inputs, padded with zeros
    return causal_conv(seen, conv, form)[:, -x.shape[1] :], window
