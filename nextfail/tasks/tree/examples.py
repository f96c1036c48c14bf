"""Test problems of a run on trees, as in examples.json, validated before drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

MOST = 1000  # maximum edges of a tree that is drawn


@dataclass(frozen=True)
class Example:
    """A test problem and the path that a model generated, both without end tokens."""

    edges: tuple[tuple[int, int], ...]
    root: int
    leaf: int
    path: tuple[int, ...]
    generated: tuple[int, ...]

    @property
    def problem(self) -> tuple[Any, ...]:
        """The problem, without the generated path."""
        return self.edges, self.root, self.leaf


def examples(items: Sequence[Any]) -> list[Example]:
    """Problems that are trees; empty if any item is malformed."""
    try:
        return [_example(item) for item in items]
    except (LookupError, TypeError, ValueError):
        return []


def _example(item: dict[str, Any]) -> Example:
    edges = tuple((int(tail), int(head)) for tail, head in item["edges"])
    path, generated = (tuple(map(int, item[key])) for key in ("path", "generated"))
    example = Example(edges, int(item["root"]), int(item["leaf"]), path, generated)
    if not 0 < len(edges) <= MOST or depths(example).keys() != {example.root, *(head for _, head in edges)}:
        raise ValueError("the edges are not a tree below the root")
    if path[:1] + path[-1:] != (example.root, example.leaf) or not set(pairwise(path)) <= set(edges):
        raise ValueError("the path is not one of the tree's")
    return example


def depths(example: Example) -> dict[int, int]:
    """Depth of each node reachable from the root, in edges."""
    below = children(example)
    found, order = {example.root: 0}, [example.root]
    for node in order:
        for child in below.get(node, []):
            if child in found:
                raise ValueError("a node has two parents")
            found[child] = found[node] + 1
            order.append(child)
    return found


def children(example: Example) -> dict[int, list[int]]:
    """Children of each node that has any."""
    below: dict[int, list[int]] = {}
    for tail, head in example.edges:
        below.setdefault(tail, []).append(head)
    return below
