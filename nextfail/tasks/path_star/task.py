"""The path-star graph G(d, l): sizes, exact vectorised sampling, and canonical keys of graphs.

Source of the task: Bachmann & Nagarajan, "The Pitfalls of Next-Token Prediction", ICML 2024, section 4.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import factorial, perm
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from nextfail.config import AtLeast1, AtLeast2, AtLeast3
from nextfail.errors import UserError
from nextfail.source import public
from nextfail.tasks.base import Batch, Probe, Share, Task, all_right, token_right
from nextfail.tasks.path_star import facts, textfile
from nextfail.tasks.path_star.outcome import judge
from nextfail.tasks.path_star.vocab import MOST_JOINED, Vocab
from nextfail.tasks.sampling import draw_without_replacement, mix

_MOST_NODES = 2**15 - 4  # all ids, including the signs after the labels, must fit in int16
_CHUNK = 8192  # graphs sampled at a time, so that the pool of labels fits in the CPU cache


class Star(Task):
    """Base of the star-graph tasks: the first hop is the hard token, and the rest of an arm follows from it."""

    probes: ClassVar = (Probe("cheat_accuracy", prefix=2),)
    hard_position: ClassVar = 1

    degree: int

    @property
    def chance(self) -> float:
        """Hard-token accuracy of a model that only knows it must be a neighbour of the start: 1/d."""
        return 1 / self.degree

    def outcome(self, metrics: Mapping[str, Any], finite: bool, judged_by: str) -> str:
        return judge(metrics, finite, judged_by)


@public("path_star")
@dataclass(frozen=True)
class PathStar(Star):
    """The graph G(degree, path_length), with labels from 0..num_nodes-1, and its token format.

    One start node with `degree` arms; every arm has `path_length` nodes, including the start. The goal is the last node
    of one arm, and the answer is that arm from start to goal: its position 1 is the hard token. The default format is
    the published one; the format determines what is learnable (Frydenlund 2024, arXiv 2410.13779, and 2025).

    Args:
        degree: number of arms d, at least 2, so that there is a choice.
        path_length: nodes l per arm, including the start; at least 3, or the prompt would name the whole answer.
        num_nodes: number of node labels N to sample from.
        query: start and goal come after the edges, or before them.
        edges: edge order. shuffled: uniformly random; by_arm: arms in random order, each from the start on;
            parents_first: a uniformly random order in which the edge to a node precedes the edge from it.
        direction: the node nearer to the start comes first ("away"), or either one does ("random").
        edges_as: three tokens per edge, as published ("triples"), or one ("tokens"); see `vocab`.
        goals: number of distinct goals per graph, otherwise identical, that stay together in training; from 1
            (independent problems) to the degree. Validation and test problems are always independent.
        copies: how often the prompt has the list of edges, in the same order.

    Raises:
        UserError: a size leaves no choice to make, no cheat to learn, or too few labels; or a value is not among the
            choices.
    """

    metrics: ClassVar = ("hard_token_accuracy",)

    degree: AtLeast2
    path_length: AtLeast3
    num_nodes: AtLeast1
    query: Literal["after", "before"] = "after"
    edges: Literal["shuffled", "by_arm", "parents_first"] = "shuffled"
    direction: Literal["away", "random"] = "away"
    edges_as: Literal["triples", "tokens"] = "triples"
    goals: AtLeast1 = 1
    copies: AtLeast1 = 1

    def __post_init__(self) -> None:
        if self.num_nodes < self.size:
            raise UserError(f"task.num_nodes={self.num_nodes} is too small for {self}: needs at least {self.size}")
        if self.num_nodes > _MOST_NODES:
            raise UserError(f"task.num_nodes={self.num_nodes} is too large: tokens are stored in 16 bits, "
                            f"which allows {_MOST_NODES}")  # fmt: skip
        if self.edges_as == "tokens" and self.num_nodes > MOST_JOINED:
            raise UserError(f"task.num_nodes={self.num_nodes} is too large for task.edges_as=tokens: an edge is a "
                            f"token of 16 bits, which allows {MOST_JOINED}")  # fmt: skip
        if not 1 <= self.goals <= self.degree:
            raise UserError(f"task.goals={self.goals}: {self} has 1 to {self.degree} different goals")

    def __str__(self) -> str:
        return f"G({self.degree},{self.path_length})"

    @property
    def title(self) -> str:
        """G(2,5), with the number of labels if it is not the default."""
        return facts.title({"degree": self.degree, "path_length": self.path_length, "num_nodes": self.num_nodes})

    @property
    def size(self) -> int:
        """Nodes per graph, 1 + d(l-1)."""
        return 1 + self.num_edges

    @property
    def num_edges(self) -> int:
        """Edges per graph, d(l-1)."""
        return self.degree * (self.path_length - 1)

    @property
    def prompt_length(self) -> int:
        """Prompt length: three tokens per edge and copy, or one, plus start, goal and "="."""
        return self.vocab.prompt_length(self.copies * self.num_edges)

    @property
    def answer_length(self) -> int:
        """Path length l in nodes."""
        return self.path_length

    @property
    def group(self) -> int:  # type: ignore[override]
        """Problems per graph that stay together in training."""
        return self.goals

    @property
    def distinct(self) -> int:
        """Number of canonically distinct graphs: labellings, up to the order of the arms."""
        return perm(self.num_nodes, self.size) // factorial(self.degree)

    @property
    def vocab(self) -> Vocab:
        """Token ids for these labels."""
        return Vocab(self.num_nodes, self.edges_as == "tokens")

    @cached_property
    def _shape(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sources (E,), targets (E,) and arms (d, l), as indices into the sampled labels."""
        arms = 1 + torch.arange(self.num_edges).view(self.degree, self.path_length - 1)
        arms = torch.cat([torch.zeros(self.degree, 1, dtype=torch.long), arms], 1)  # label 0 is the start
        return arms[:, :-1].flatten(), arms[:, 1:].flatten(), arms

    def sample(self, count: int, generator: torch.Generator, group: int = 1) -> Batch:
        """Sample `count` problems: prompts (count, P) and answers (count, l), in the smallest integer type.

        Labels are sampled without replacement, edges are ordered and the goal's arm is chosen, all uniformly.

        Args:
            count: a multiple of `group`.
            group: consecutive problems that share everything but the goal; from 1 (independent problems) to the degree.
        """
        graphs, rest = divmod(count, group)
        if rest:
            raise UserError(f"{count} problems are not a multiple of {group} goals")
        parts = [self._sample(min(_CHUNK, graphs - i), generator, group) for i in range(0, graphs, _CHUNK)]
        return Batch.join(parts or [self._sample(0, generator, group)])

    def _sample(self, graphs: int, generator: torch.Generator, goals: int) -> Batch:
        sources, targets, arms = self._shape
        labels = draw_without_replacement(graphs, self.num_nodes, self.size, generator)  # (B, n)
        order = self._order(graphs, generator)  # (B, E)
        if goals == 1:
            arm = torch.randint(self.degree, (graphs,), generator=generator)
        else:
            arm = draw_without_replacement(graphs, self.degree, goals, generator).long().flatten()
        edges = torch.stack([labels.gather(1, sources[order]), labels.gather(1, targets[order])], -1)  # (B, E, 2)
        if self.direction == "random":
            turned = torch.rand(edges.shape[:2], generator=generator) < 0.5
            edges = torch.where(turned.unsqueeze(-1), edges.flip(-1), edges)
        labels, edges = (each.repeat_interleave(goals, 0) for each in (labels, edges))
        paths = labels.gather(1, arms[arm])  # (B goals, l)
        return self._written(edges, paths[:, 0], paths[:, -1], paths)

    def _written(self, edges: Tensor, starts: Tensor, goals: Tensor, paths: Tensor) -> Batch:
        """Problems in the format of this task, from edges (B, E, 2), starts (B,), goals (B,) and paths (B, l)."""
        vocab = self.vocab
        prompts = vocab.layout(edges.repeat(1, self.copies, 1), starts, goals, self.query)
        return Batch.full(prompts, paths.to(vocab.dtype))

    def _split(self, prompts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Edges (B, E, 2), each once, starts (B,) and goals (B,) of prompts."""
        edges, starts, goals = self.vocab.split(prompts)
        return edges[:, : self.num_edges], starts, goals

    def _order(self, graphs: int, generator: torch.Generator) -> Tensor:
        """Edge indices (B, E) in prompt order; edges of an arm have consecutive indices, from the start on."""
        hops = self.path_length - 1
        if self.edges == "by_arm":
            arms = draw_without_replacement(graphs, self.degree, self.degree, generator).long()
            return (arms.unsqueeze(2) * hops + torch.arange(hops)).flatten(1)
        order = draw_without_replacement(graphs, self.num_edges, self.num_edges, generator).long()
        if self.edges == "parents_first":  # each arm keeps its positions, filled from the start on
            places = (order // hops).argsort(dim=1, stable=True)
            order = torch.empty_like(order).scatter_(1, places, torch.arange(self.num_edges).expand_as(order))
        return order

    def keys(self, batch: Batch) -> Tensor:
        """Canonical keys (B,), int64: equal for prompts with the same undirected edges and start, whatever the goal.

        The key is a 64-bit hash, summed over the edges so that their order does not matter. Two different graphs
        collide with probability 2**-64, which could only exclude an allowed graph.
        """
        edges, start, _ = self._split(batch.prompts.long())
        one, other = edges.unbind(-1)  # (B, E); amin and amax over such a short axis are fifty times slower
        low, high = torch.minimum(one, other), torch.maximum(one, other)
        return mix(low * self.num_nodes + high).sum(1) + mix(-1 - start)

    def score(self, decoded: Tensor, batch: Batch) -> dict[str, Share]:
        hard = token_right(decoded, batch, self.hard_position)
        return {"exact_match": all_right(decoded, batch), "hard_token_accuracy": hard}

    def known_prefix(self, prompts: Tensor) -> Tensor:
        """The start (B, 1), which the query names."""
        return self._split(prompts)[1].unsqueeze(1)

    def resized(self, settings: Mapping[str, Any]) -> "PathStar":
        """The same with another degree and path_length; labels are always those of the trained model."""
        unknown = sorted(set(settings) - {"degree", "path_length", "num_nodes"})
        if unknown:
            raise UserError(f"task.{unknown[0]} cannot be changed for a trained model: only degree and path_length can")
        sizes = {key: value for key, value in settings.items() if key != "num_nodes"}
        other = replace(self, goals=1, **sizes, num_nodes=_MOST_NODES if self.edges_as == "triples" else MOST_JOINED)
        if other.size > self.num_nodes:
            raise UserError(f"{other} has {other.size} nodes, and this run knows only {self.num_nodes} labels")
        return replace(other, num_nodes=self.num_nodes)

    def read(self, path: Path) -> Batch:
        return self._written(*textfile.load(path, self))

    def require_files(self) -> None:
        for key, usual in (("edges", "shuffled"), ("direction", "away"), ("goals", 1)):
            if (value := getattr(self, key)) != usual:
                raise UserError(f"task.{key}={value} has no effect on problems from files: leave it out")

    def lines(self, batch: Batch) -> Iterator[str]:
        if self.direction != "away":
            raise UserError(f"task.direction={self.direction} cannot be written: in the text format, every edge leads "
                            "away from the start")  # fmt: skip
        return textfile.lines(*self._split(batch.prompts), batch.answers)

    def example(self, batch: Batch, decoded: Tensor) -> list[dict[str, Any]]:
        edges, starts, goals = self._split(batch.prompts)
        columns = zip(edges, starts, goals, batch.answers, decoded, strict=True)
        keys = ("edges", "start", "goal", "path", "generated")
        return [dict(zip(keys, (value.tolist() for value in row), strict=True)) for row in columns]
