"""Optimizers and schedules, made from a module: `build(module)` with everything else set by configuration."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nextfail.config import AtLeast0, Betas, NotNegative, Share
from nextfail.source import public


def decaying(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with and without weight decay: matrices have it; biases, norms and embeddings do not.

    A parameter with the attribute `no_weight_decay = True` has none either.
    """
    embeddings = {id(p) for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    with_decay: list[nn.Parameter] = []
    without: list[nn.Parameter] = []
    for owner in module.modules():
        for parameter in owner.parameters(recurse=False):
            matrix = parameter.dim() >= 2 and id(parameter) not in embeddings
            decays = matrix and not getattr(parameter, "no_weight_decay", False)
            if parameter.requires_grad:
                (with_decay if decays else without).append(parameter)
    return _unique(with_decay), _unique(without)


def _unique(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    return list({id(p): p for p in parameters}.values())  # a shared parameter is met once for each owner


@public("adamw")
def adamw(
    module: nn.Module,
    lr: NotNegative = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: NotNegative = 1e-8,
    weight_decay: NotNegative = 0.1,
) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2019) with decay on matrices alone.

    Args:
        module: what to train.
        lr: learning rate at its highest.
        betas: of the running means of the gradient and of its square.
        eps: added to the root of the mean square.
        weight_decay: of matrices.
    """
    with_decay, without = decaying(module)
    groups = [{"params": with_decay, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
    return AdamW([g for g in groups if g["params"]], lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)


@public("muon")
class MuonAdamW(Optimizer):
    """Muon (Jordan et al. 2024) on hidden matrices and AdamW on all the rest, as one optimizer with one schedule.

    Args:
        module: what to train.
        lr: learning rate of both at its highest; Muon's update is scaled to AdamW's size (Liu et al. 2025).
        betas: of AdamW's running means of the gradient and of its square.
        eps: AdamW's, added to the root of the mean square.
        momentum: Muon's.
        weight_decay: of matrices.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: NotNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        momentum: Share = 0.95,
        weight_decay: NotNegative = 0.1,
    ) -> None:
        with_decay, without = decaying(module)
        matrices = [p for p in with_decay if p.dim() == 2]  # Muon is defined for these alone
        others = [p for p in with_decay if p.dim() != 2]
        self.muon = Muon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        groups = [{"params": others, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
        self.adamw = AdamW([g for g in groups if g["params"]], lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)
        super().__init__(self.muon.param_groups + self.adamw.param_groups, {})
        self._share()

    def _share(self) -> None:
        # the very dictionaries of the two, so that what a scheduler writes here reaches them
        self.param_groups = self.muon.param_groups + self.adamw.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._share()


@public("constant")
def constant(optimizer: Optimizer, max_steps: int, warmup: AtLeast0 = 100) -> LambdaLR:
    """Linear warm-up, then the full rate.

    Args:
        optimizer: whose rate it is.
        max_steps: training steps.
        warmup: steps.
    """
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup)))


@public("cosine")
def cosine(optimizer: Optimizer, max_steps: int, warmup: AtLeast0 = 100, final: NotNegative = 0.1) -> LambdaLR:
    """Linear warm-up, then half a cosine down to `final` times the rate at step `max_steps`.

    Args:
        optimizer: whose rate it is.
        max_steps: training steps.
        warmup: steps.
        final: share of the rate that is left at the end.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


@public("wsd")
def wsd(
    optimizer: Optimizer, max_steps: int, warmup: AtLeast0 = 100, decay: AtLeast0 = 1000, final: NotNegative = 0.0
) -> LambdaLR:
    """Linear warm-up over `warmup` steps, the full rate, then linearly to `final` times it over the last `decay` steps.

    A longer budget changes nothing of what came before the decay (warmup-stable-decay, Hu et al. 2024, MiniCPM). Where
    a budget has no room for both, the lower rate counts.

    Args:
        optimizer: whose rate it is.
        max_steps: training steps.
        warmup: steps.
        decay: steps.
        final: share of the rate that is left at the end.
    """

    def factor(step: int) -> float:
        up, down = min(1.0, (step + 1) / max(1, warmup)), min(1.0, (max_steps - step) / max(1, decay))
        return min(up, final + (1 - final) * down)

    return LambdaLR(optimizer, factor)
