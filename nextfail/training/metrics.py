"""Metrics of decoded answers: every proportion with its count and 95 % Wilson interval."""

from typing import Any, cast

import torch
from msgspec.structs import asdict
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics import Metric

from nextfail.objectives.base import Predictions
from nextfail.runs.records import Proportion
from nextfail.tasks.base import Batch, Share, Task, all_right


def proportion(hits: int, count: int) -> dict[str, Any]:
    """A `Proportion`, as in result.json: hits out of count with the 95 % Wilson score interval."""
    if not count:
        return asdict(Proportion(value=0.0, low=0.0, high=1.0, n=0))
    interval = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return asdict(Proportion(value=hits / count, low=float(interval.low), high=float(interval.high), n=count))


class Shares(Metric):
    """Micro-averaged proportions in each of `length` columns; torchmetrics has them per class, not per position."""

    hits: Tensor
    count: Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        for name in ("hits", "count"):
            self.add_state(name, torch.zeros(length, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, right: Tensor, asked: Tensor) -> None:
        """Add counts of right predictions and of all predictions: both (B, length), integer or bool."""
        self.hits += right.sum(0)
        self.count += asked.sum(0)

    def compute(self) -> Tensor:
        return torch.stack([self.hits, self.count], -1)  # (length, 2)


class AnswerMetrics(torch.nn.Module):
    """All metrics of a task, accumulated over the batches of one set.

    Args:
        task: task of the answers.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.scores = torch.nn.ModuleDict({name: Shares(1) for name in ("exact_match", *task.metrics)})
        self.forced_scores = torch.nn.ModuleDict({name: Shares(1) for name in task.forced_metrics})
        self.probes = torch.nn.ModuleDict({probe.name: Shares(1) for probe in task.probes})
        self.generated, self.forced = Shares(task.answer_length), Shares(task.answer_length)

    def update(self, predictions: Predictions, batch: Batch) -> None:
        """Add one batch."""
        for name, share in self.task.score(predictions.generated, batch).items():
            _add(self.scores[name], share)
        self.generated.update(*_each(predictions.generated, batch))
        if predictions.forced is not None:
            self.forced.update(*_each(predictions.forced, batch))
            for name, share in self.task.score_forced(predictions.forced, batch).items():
                _add(self.forced_scores[name], share)
        for probe in self.task.probes:
            if probe.name in predictions.probed:
                _add(self.probes[probe.name], all_right(predictions.probed[probe.name], batch, probe.prefix))

    def compute(self) -> dict[str, Any]:
        """Metrics by name; None if not applicable to the objective."""
        scores = {name: _by_column(metric)[0] for name, metric in self.scores.items()}
        maybe = {**self.forced_scores, **self.probes}
        probes = {name: _by_column(metric)[0] if metric.update_called else None for name, metric in maybe.items()}
        return {
            **scores,
            **probes,
            "token_accuracy": _by_column(self.generated),
            "forced_token_accuracy": _by_column(self.forced) if self.forced.update_called else None,
            "chance": self.task.chance,
        }

    def reset(self) -> None:
        """Reset all counts."""
        every = (*self.scores.values(), *self.forced_scores.values(), *self.probes.values())
        for metric in (*every, self.generated, self.forced):
            cast(Shares, metric).reset()


def _add(metric: Any, share: Share) -> None:
    metric.update(share.right.unsqueeze(1), share.asked.unsqueeze(1))


def _each(decoded: Tensor, batch: Batch) -> Share:
    """Which tokens are right, and which count, both (B, L)."""
    return Share((decoded == batch.answers) & batch.mask, batch.mask)


def _by_column(metric: Any) -> list[dict[str, Any]]:
    return [proportion(*row) for row in metric.compute().tolist()]


def flat(metrics: dict[str, Any]) -> dict[str, float]:
    """Plain values for loggers: `exact_match`, ..., `token_accuracy_0`, ...; None values are omitted."""
    values: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, list):
            values |= {f"{key}_{i}": item["value"] for i, item in enumerate(value)}
        elif isinstance(value, dict):
            values[key] = value["value"]
    return values
