"""Mamba (Gu & Dao 2023): residual blocks around a selective state-space model, without attention and positions."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models.backbone import Backbone
from nextfail.models.scan.selective_scan import announce, choose, require_form, selective_scan
from nextfail.source import public

LEAST_STEP, STEPS = 1e-4, (1e-3, 1e-1)
"""Of the initial step sizes: what none is below, and between what they are drawn, evenly in their logarithm."""


@dataclass(frozen=True)
class MixerState:
    """What a mixer remembers of all that it read: D inner channels, K taps, N states."""

    window: Tensor  # (B, K - 1, D), the last inputs of the convolution
    state: Tensor  # (B, D, N), of the scan


@public("mamba")
class Mamba(Backbone):
    """Mamba language model.

    Args:
        depth: number of blocks.
        width: channels C.
        d_state: numbers N that each inner channel remembers.
        d_conv: taps K of the convolution.
        expand: inner channels D over C.
        vocab_size: number of token ids V.
        max_length: kept for the protocol; a sequence may be as long as it likes.
        init_std: standard deviation of initial embeddings; what else there is begins as in mamba-ssm.
        scan: how the scan is computed, see nextfail.models.scan.selective_scan; changes speed and rounding only.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        vocab_size: int,
        max_length: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        init_std: float = 0.02,
        scan: str = "auto",
    ) -> None:
        sizes = {"d_state": d_state, "d_conv": d_conv, "expand": expand}
        super().__init__(vocab_size, max_length, depth=depth, width=width, **sizes, init_std=init_std)
        require_form(scan)
        self.depth, self.scan = depth, scan
        self.announced: torch.device | None = None
        self.mixer_sizes = {**sizes, "scan": scan}
        self.blocks = nn.ModuleList(self.new_block() for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        nn.init.normal_(self.tokens.weight, std=init_std)

    def forward(
        self,
        tokens: Tensor,
        *,
        last: int | None = None,
        causal: bool = True,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        self.refuse_unknown(causal=causal, mask=mask, positions=positions)
        x = self._embedded(tokens)  # (B, T, C)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.norm(self.blocks[-1](x, last=last))

    def step(
        self, tokens: Tensor, cache: list[MixerState] | None = None, *, last: int | None = None
    ) -> tuple[Tensor, list[MixerState]]:
        x = self._embedded(tokens)  # (B, T, C)
        after = []
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x, state = block.step(x, cache[i] if cache else None, last if i + 1 == self.depth else None)
            after.append(state)
        return self.norm(x), after

    def adapt(self, device: str) -> None:
        try:
            choose(self.scan, device)
        except UserError:
            for each in self.modules():
                if isinstance(each, Mamba | Mixer):
                    each.scan = "auto"

    def _embedded(self, tokens: Tensor) -> Tensor:
        if tokens.device != self.announced:
            announce(self.scan, tokens.device.type)
            self.announced = tokens.device
        return tokens if tokens.is_floating_point() else self.embed(tokens)

    def new_block(self) -> nn.Module:
        block = Block(self.width, **self.mixer_sizes)
        with torch.no_grad():
            block.mixer.out_proj.weight /= math.sqrt(self.depth)  # as many blocks add to one stream
        return block


class Block(nn.Module):
    """A mixer behind a norm, added to its input."""

    def __init__(self, width: int, **sizes: Any) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.mixer = Mixer(width, **sizes)

    def forward(self, x: Tensor, *, last: int | None = None) -> Tensor:
        """(B, T, C) to (B, last or T, C)."""
        return self.step(x, None, last)[0]

    def step(self, x: Tensor, past: MixerState | None, last: int | None) -> tuple[Tensor, MixerState]:
        """The same after what `past` remembers, and what is remembered then."""
        mixed, after = self.mixer(self.norm(x), past, last)
        return x[:, -mixed.shape[1] :] + mixed, after


class Mixer(nn.Module):
    """The selective state-space model; its parameters have the names and shapes of `mamba_ssm.Mamba`'s.

    Args:
        width: channels C.
        d_state, d_conv, expand, scan: see `Mamba`.
    """

    def __init__(self, width: int, d_state: int, d_conv: int, expand: int, scan: str = "auto") -> None:
        super().__init__()
        inner, self.rank, self.d_state, self.scan = expand * width, math.ceil(width / 16), d_state, scan
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(inner, 1))  # A = -1, ..., -N: S4D-real
        self.D = nn.Parameter(torch.ones(inner))
        for each in (self.A_log, self.D):
            each.no_weight_decay = True  # type: ignore[attr-defined]
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        low, high = (math.log(each) for each in STEPS)
        steps = torch.empty(inner).uniform_(low, high).exp().clamp(min=LEAST_STEP)
        with torch.no_grad():
            self.dt_proj.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # softplus of it is the step
        self.out_proj = nn.Linear(inner, width, bias=False)

    def uncounted_flops(self, x: Tensor, *_: Any) -> int:
        """Operations of a forward pass that are in no product of torch's: 6 a state of the scan, 2 a tap."""
        return x.shape[0] * x.shape[1] * len(self.D) * (6 * self.d_state + 2 * self.conv1d.kernel_size[0])

    def forward(self, x: Tensor, past: MixerState | None = None, last: int | None = None) -> tuple[Tensor, MixerState]:
        """Outputs at the last positions, and what is remembered after them.

        Args:
            x: (B, T, C). past: what is remembered of what came before, nothing if None.
            last: how many positions are wanted, all if None.

        Returns:
            (B, last or T, C), and the state.
        """
        keep = slice(None) if last is None else slice(-last, None)
        form = choose(self.scan, x.device.type)
        into, gate = self.in_proj.weight.chunk(2)  # (D, C) each, as two products: nothing need be copied apart
        inner, z = F.linear(x, into), F.linear(x[:, keep], gate)  # (B, T, D), (B, last, D)
        seen = torch.cat([past.window, inner], 1) if past else inner
        window = F.pad(seen, (0, 0, self.conv1d.kernel_size[0] - 1 - seen.shape[1], 0))  # its end, or zeros before it
        inner = causal_conv(seen, self.conv1d, form)[:, -x.shape[1] :]
        rank, B, C = self.x_proj(inner).split([self.rank, self.d_state, self.d_state], -1)  # (B, T, R), (B, T, N) twice
        delta = F.linear(rank, self.dt_proj.weight)  # (B, T, D); its bias is added within the scan
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
        return self.out_proj(y), MixerState(window, state)


def causal_conv(x: Tensor, conv: nn.Conv1d, form: str) -> Tensor:
    """SiLU of a causal convolution of each channel with its own filter; (B, T, D) to (B, T, D).

    On CUDA, where scans are mamba-ssm's, this is causal-conv1d's kernel if that is installed.
    """
    weight, bias = conv.weight.squeeze(1), conv.bias  # (D, K), (D,)
    assert bias is not None
    if form == "fused":
        from nextfail.models.scan.fused import fused_conv  # numba takes a second to import, which others need not pay

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
    except Exception:  # as selective_scan.missing: absent or broken, what is there without it does as well
        return None
    return causal_conv1d_fn
