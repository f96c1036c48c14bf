"""How right decoded paths are: every proportion with its count and 95 % Wilson interval."""

from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassExactMatch

from nextfail.objectives.base import Predictions
from nextfail.tasks.path_star.graph import PathStar

Proportion = dict[str, float | int]
"""{"value", "low", "high", "n"}."""


def proportion(hits: int, count: int) -> Proportion:
    """Hits out of count, with the 95 % Wilson score interval."""
    interval = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return {"value": hits / count, "low": float(interval.low), "high": float(interval.high), "n": count}


class PositionAccuracy(Metric):
    """Micro accuracy at each of `length` positions, which torchmetrics has for classes but not for positions."""

    hits: Tensor
    count: Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros(length, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, paths: Tensor) -> None:
        """Predicted and true tokens, both (B, length)."""
        self.hits += (predicted == paths).sum(0)
        self.count += len(paths)

    def compute(self) -> Tensor:
        return torch.stack([self.hits, self.count.expand_as(self.hits)], -1)  # (length, 2)


class PathMetrics(torch.nn.Module):
    """The metrics of the contract, gathered over the batches of one set.

    Args:
        graph: the size of every problem.
        num_tokens: size of the model's vocabulary, an objective's own tokens included.
    """

    def __init__(self, graph: PathStar, num_tokens: int) -> None:
        super().__init__()
        self.chance = graph.chance
        self.exact_match = MulticlassExactMatch(num_tokens, validate_args=False)
        self.cheat = MulticlassExactMatch(num_tokens, validate_args=False)
        self.generated = PositionAccuracy(graph.path_length)
        self.forced = PositionAccuracy(graph.path_length)

    def update(self, predictions: Predictions, paths: Tensor) -> None:
        """Count one batch: predictions of paths (B, l)."""
        self.exact_match.update(predictions.generated, paths)
        self.generated.update(predictions.generated, paths)
        if predictions.forced is not None:
            self.forced.update(predictions.forced, paths)
        if predictions.given_hop is not None:
            self.cheat.update(predictions.given_hop[:, 2:], paths[:, 2:])

    def compute(self) -> dict[str, Any]:
        """Metrics by name; None where the objective has no such question."""
        tokens = _by_position(self.generated)
        return {
            "exact_match": _overall(self.exact_match),
            "hard_token_accuracy": tokens[1],
            "cheat_accuracy": _overall(self.cheat) if self.cheat.update_called else None,
            "token_accuracy": tokens,
            "forced_token_accuracy": _by_position(self.forced) if self.forced.update_called else None,
            "chance": self.chance,
        }

    def reset(self) -> None:
        """Forget all batches."""
        for metric in (self.exact_match, self.cheat, self.generated, self.forced):
            metric.reset()


def _overall(metric: MulticlassExactMatch) -> Proportion:
    count = int(metric.total)
    return proportion(round(float(metric.compute()) * count), count)


def _by_position(metric: PositionAccuracy) -> list[Proportion]:
    return [proportion(*row) for row in metric.compute().tolist()]


def flat(metrics: dict[str, Any]) -> dict[str, float]:
    """Plain values for loggers: `exact_match`, ..., `token_accuracy_0`, ...; what is None is left out."""
    values: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, list):
            values |= {f"{key}_{i}": item["value"] for i, item in enumerate(value)}
        elif isinstance(value, dict):
            values[key] = value["value"]
    return values
