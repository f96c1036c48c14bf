"""The parts of a result, and a rehearsal that computes them all before the first step."""

from dataclasses import fields
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

from nextfail.errors import UserError
from nextfail.files import json_text
from nextfail.runs.identity import SCHEMA
from nextfail.runs.records import LONGEST, Malformed, Result, parse
from nextfail.tasks.base import Task
from nextfail.tasks.data import TaskData
from nextfail.training.metrics import AnswerMetrics
from nextfail.training.module import TaskModule

EXAMPLES = 8  # test problems stored with the generated answers


class Rehearsal(Callback):
    """Computes everything the result needs once before the first step, so that errors surface before training.

    FLOPs and examples are computed here because Lightning moves the module off its device at the end.

    Args:
        data: of the run.
    """

    def __init__(self, data: TaskData) -> None:
        self.data, self.flops_per_step = data, 0
        self.examples: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule) and self.data.test is not None
        self.flops_per_step = flops_per_step(pl_module, self.data)
        pl_module.eval()
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            batch = self.data.test.rows(slice(2)).long().to(pl_module.device)
            metrics = AnswerMetrics(pl_module.task).to(pl_module.device)
            metrics.update(pl_module.objective.predict(pl_module.backbone, batch), batch)
            measured = judged(pl_module, metrics.compute(), finite=True)
        try:
            rest = {"schema": SCHEMA, "identity": "", "steps": 0, "samples_seen": 0}
            parse("result.json", json_text(rest | measured), Result)
        except (TypeError, Malformed) as error:
            raise UserError(
                f"the metrics of {pl_module.task.title[:LONGEST]} cannot be saved in a result: {error}"
            ) from error
        self.on_test_end(trainer, pl_module)
        pl_module.train()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        with trainer.precision_plugin.val_step_context():  # same precision as the metrics
            self.examples = examples(pl_module, self.data)


def judged(module: TaskModule, metrics: dict[str, Any], finite: bool) -> dict[str, Any]:
    """The part of a result about the task, the metrics and the outcome."""
    by = module.objective.judged_by
    outcome = module.task.outcome(metrics, finite, by)
    return {"task": record_of(module.task), **metrics, "judged_by": by, "outcome": outcome}


def record_of(task: Task) -> dict[str, Any]:
    """The part of a result about the task."""
    settings = {each.name: getattr(task, each.name) for each in fields(task)}  # type: ignore[arg-type]
    return {"name": task.title[:LONGEST], "settings": settings, "hard_position": task.hard_position}


def flops_per_step(module: TaskModule, data: TaskData, rows: int = 2) -> int:
    """Floating-point operations of matrix products in one training step, forward and backward, counted on a few rows.

    Torch counts its own operations. Modules with others define `uncounted_flops`, which gets the arguments of their
    forward pass; the backward pass counts twice that, as for matrix products.
    """
    rows = min(rows, data.batch_size)
    batch = data.train_batch(0).rows(slice(rows)).to(module.device)
    others: list[int] = []
    hooks = [
        each.register_forward_pre_hook(lambda owner, given: others.append(owner.uncounted_flops(*given)))
        for each in module.modules()
        if hasattr(each, "uncounted_flops")
    ]
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        module.objective.loss(module.backbone, batch).total.backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()
    module.zero_grad()
    return (counter.get_total_flops() + 3 * sum(others)) * data.batch_size // rows


def examples(module: TaskModule, data: TaskData) -> list[dict[str, Any]]:
    """The first test problems and the model's answers, for figures."""
    assert data.test is not None
    batch = data.test.rows(slice(EXAMPLES)).long()
    decoded = module.objective.generate(module.backbone, batch.prompts.to(module.device), batch.answers.shape[1])
    return module.task.example(batch, decoded.cpu())
