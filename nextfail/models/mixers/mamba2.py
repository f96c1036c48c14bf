"""The Mamba-2 mixer (Dao & Gu 2024): state-space duality, one decay for all channels of a head."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models.mixers.mamba import MambaMixer, ScanMixer, ScanState, convolve, initial_steps
from nextfail.models.scan.ssd import FORMS, blocked_flops, ssd

DECAYS = (1.0, 16.0)
"""Range of the uniform distribution of the initial -A."""


class Mamba2Mixer(ScanMixer):
    """Multi-head state-space model; parameters have the names, shapes and initial values of `mamba_ssm.Mamba2`.

    Differs from it in: one group of B and C for all heads, which is its default, and no bound on step sizes.

    Args:
        width: channels C.
        d_state: state size N per inner channel.
        head_dim: channels P per head; divides expand * width.
        d_conv: kernel size K of the convolution.
        expand: expansion factor, inner channels D = expand * width.
        scan: implementation of the scan, see nextfail.models.scan.ssd; affects speed and rounding only.

    Raises:
        UserError: the sizes do not fit each other.
    """

    forms = FORMS

    def __init__(
        self,
        width: int,
        d_state: int = 64,
        head_dim: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        scan: str = "auto",
    ) -> None:
        super().__init__(scan)
        inner = expand * width
        if inner % head_dim:
            raise UserError(f"model.head_dim={head_dim} does not divide the {inner} inner channels, "
                            f"model.expand={expand} times model.width={width}")  # fmt: skip
        self.d_state, self.head_dim, self.inner = d_state, head_dim, inner
        heads, mixed = inner // head_dim, inner + 2 * d_state  # channels of the convolution: x, B and C
        self.in_proj = nn.Linear(width, inner + mixed + heads, bias=False)  # gate; x, B, C; step sizes
        self.conv1d = nn.Conv1d(mixed, mixed, d_conv, groups=mixed)
        self.dt_bias = nn.Parameter(initial_steps(heads))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(*DECAYS).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = nn.RMSNorm(inner, eps=1e-5)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def uncounted_flops(self, x: Tensor, *_: Any) -> int:
        """FLOPs of a forward pass that torch does not count: 2 per tap, and the scan's as those of its blocked form."""
        taps = 2 * x.shape[0] * x.shape[1] * self.conv1d.weight.numel()
        if self.forms.choose(self.scan, x.device.type) == "blocked":  # matrix products, which torch counts
            return taps
        return taps + blocked_flops(x.shape[0], x.shape[1], len(self.D), self.head_dim, self.d_state)

    def initialise(self, std: float, residuals: int) -> None:
        with torch.no_grad():
            self.out_proj.weight /= math.sqrt(residuals)

    def forward(self, x: Tensor, *, last: int | None = None, **_: Any) -> Tensor:
        return self._read(x, None, last, whole=False)[0]

    def step(self, x: Tensor, past: ScanState | None = None, *, last: int | None = None) -> tuple[Tensor, ScanState]:
        y, window, state = self._read(x, past, last, whole=True)
        assert state is not None
        return y, ScanState(window, state)

    def _read(
        self, x: Tensor, past: ScanState | None, last: int | None, whole: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Outputs (B, last, C), the updated window, and the last state if `whole`."""
        keep = slice(None) if last is None else slice(-last, None)
        gate, into, to_steps = self.in_proj.weight.split([self.inner, len(self.conv1d.weight), len(self.D)])
        z, mixed, dt = F.linear(x[:, keep], gate), F.linear(x, into), F.linear(x, to_steps)
        mixed, window = convolve(mixed, self.conv1d, past, MambaMixer.forms.choose("auto", x.device.type))
        inner, B, C = mixed.split([self.inner, self.d_state, self.d_state], -1)  # (B, T, D), (B, T, N) twice
        y, state = ssd(
            inner.unflatten(-1, (-1, self.head_dim)), dt, -self.A_log.float().exp(), B, C, self.D,
            dt_bias=self.dt_bias, dt_softplus=True, initial_state=past.state if past else None,
            return_last_state=whole, form=self.scan,
        )  # fmt: skip
        y = self.norm(y.flatten(2)[:, keep] * F.silu(z))  # (B, last, D)
        return self.out_proj(y), window, state
