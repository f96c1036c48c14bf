"""Test problems of a run, as in examples.json, validated before drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Example:
    """A test problem and the path that a model generated for it."""

    edges: tuple[tuple[int, int], ...]
    start: int
    goal: int
    path: tuple[int, ...]
    generated: tuple[int, ...]

    @property
    def problem(self) -> tuple[Any, ...]:
        """The problem, without the generated path."""
        return self.edges, self.start, self.goal


def examples(items: Sequence[Any], length: int) -> list[Example]:
    """Problems with paths of `length` nodes; empty if any item is malformed."""
    try:
        return [_example(item, length) for item in items]
    except (LookupError, TypeError, ValueError):
        return []


def _example(item: dict[str, Any], length: int) -> Example:
    edges = _away(int(item["start"]), [(int(one), int(other)) for one, other in item["edges"]])
    path, generated = (tuple(map(int, item[key])) for key in ("path", "generated"))
    example = Example(edges, int(item["start"]), int(item["goal"]), path, generated)
    ends = path[:1] + path[-1:] == (example.start, example.goal)
    if not ends or not set(pairwise(path)) <= set(edges) or not len(path) == len(generated) == length:
        raise ValueError("the path is not one of the graph's")
    return example


def _away(start: int, edges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The edges of a tree, each directed away from the start; prompts may have them either way."""
    beside: dict[int, list[int]] = {}
    for one, other in edges:
        beside.setdefault(one, []).append(other)
        beside.setdefault(other, []).append(one)
    steps, next_ones = {start: 0}, [start]  # hops from the start to each node
    for node in next_ones:
        for other in beside.get(node, []):
            if other not in steps:
                steps[other] = steps[node] + 1
                next_ones.append(other)
    if any(node not in steps for edge in edges for node in edge):
        raise ValueError("an edge is not connected to the start")
    return tuple((one, other) if steps[one] <= steps[other] else (other, one) for one, other in edges)
