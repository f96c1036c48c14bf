"""Optimizers and learning rate schedules, as factories whose other arguments are set by the configuration."""

import math
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from nextfail.config import AtLeast0, Betas, NotNegative, Share
from nextfail.source import public


def schedule(make: Callable[..., LRScheduler], optimizer: Optimizer, max_steps: int) -> LRScheduler:
    """The schedule of an optimizer. `max_steps` is passed to schedules that take it; others do not depend on it."""
    parameters = signature(make).parameters.values()
    takes = any(each.name == "max_steps" or each.kind is each.VAR_KEYWORD for each in parameters)
    return make(optimizer=optimizer, **({"max_steps": max_steps} if takes else {}))


def decaying(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with and without weight decay: matrices have it; biases, norms and embeddings do not.

    Parameters with the attribute `no_weight_decay = True` have none either.
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
    return list({id(p): p for p in parameters}.values())  # shared parameters occur once per owner


@public("adamw")
def adamw(
    module: nn.Module,
    lr: NotNegative = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: NotNegative = 1e-8,
    weight_decay: NotNegative = 0.1,
) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only.

    Args:
        module: the module to train.
        lr: peak learning rate.
        betas: decay rates of the running means of the gradient and its square.
        eps: added to the root of the mean square.
        weight_decay: weight decay of the matrices; other weights have none.
    """
    with_decay, without = decaying(module)
    groups = [{"params": with_decay, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
    return AdamW([g for g in groups if g["params"]], lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)


@public("muon")
class MuonAdamW(Optimizer):
    """Muon (Jordan et al. 2024) for matrices and AdamW for everything else, as one optimizer with one schedule.

    Embeddings, which are tied with the unembedding, count as everything else. The unembeddings that some objectives add
    for their heads count as matrices; Jordan et al. leave output layers to AdamW.

    Args:
        module: the module to train.
        lr: peak learning rate of both; Muon's update is scaled to match AdamW's (Liu et al. 2025).
        betas: AdamW's decay rates of the running means of the gradient and its square.
        eps: added to the root of the mean square in AdamW.
        momentum: momentum of Muon.
        weight_decay: weight decay of the matrices; other weights have none.
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
        matrices = [p for p in with_decay if p.dim() == 2]  # Muon is defined for matrices only
        others = [p for p in with_decay if p.dim() != 2]
        self.muon = Muon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        groups = [{"params": others, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
        self.adamw = AdamW([g for g in groups if g["params"]], lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)
        super().__init__(self.muon.param_groups + self.adamw.param_groups, {})
        self._share()

    def _share(self) -> None:
        # the same dictionaries as in the two, so that they see what a scheduler writes here
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
def constant(optimizer: Optimizer, warmup: AtLeast0 = 100) -> LambdaLR:
    """Linear warm-up, then a constant learning rate.

    Args:
        optimizer: the optimizer to schedule.
        warmup: warm-up steps.
    """
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup)))


@public("cosine")
def cosine(optimizer: Optimizer, max_steps: int, warmup: AtLeast0 = 100, final: NotNegative = 0.1) -> LambdaLR:
    """Linear warm-up, then cosine decay to `final` times the peak learning rate at step `max_steps`.

    Args:
        optimizer: the optimizer to schedule.
        max_steps: training steps.
        warmup: warm-up steps.
        final: learning rate at the end, as a fraction of the peak.
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
    """Linear warm-up, a constant learning rate, then linear decay to `final` times the peak over the last `decay`
    steps.

    A longer budget leaves the steps before the decay unchanged (warmup-stable-decay, Hu et al. 2024, MiniCPM). If
    warm-up and decay overlap, the lower learning rate applies.

    Args:
        optimizer: the optimizer to schedule.
        max_steps: training steps.
        warmup: warm-up steps.
        decay: decay steps.
        final: learning rate at the end, as a fraction of the peak.
    """

    def factor(step: int) -> float:
        up, down = min(1.0, (step + 1) / max(1, warmup)), min(1.0, (max_steps - step) / max(1, decay))
        return min(up, final + (1 - final) * down)

    return LambdaLR(optimizer, factor)
