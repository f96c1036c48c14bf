"""The published text format: one problem per line, with edges, query and answer.

    7,1|1,4|7,3|3,9/7,4=7,1,4

Edges `u,v` joined by "|", then "/start,goal=", then the path from start to goal.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
from torch import Tensor

from nextfail.errors import UserError
from nextfail.files import open_regular

if TYPE_CHECKING:
    from nextfail.tasks.path_star.task import PathStar

_EXAMPLE = "7,1|1,4|7,3|3,9/7,4=7,1,4"
_LINE = re.compile(r"(\d+,\d+(?:\|\d+,\d+)*)/(\d+,\d+)=(\d+(?:,\d+)+)")
_NUMBER = re.compile(r"\d+")
_DIGITS = 9  # longest number that is converted; labels are far shorter, and Python refuses thousands of digits


def lines(edges: Tensor, starts: Tensor, goals: Tensor, paths: Tensor) -> Iterator[str]:
    """Each problem as a line without its newline: edges (B, E, 2), start (B,), goal (B,), path (B, l)."""
    for row, start, goal, path in zip(edges.tolist(), starts.tolist(), goals.tolist(), paths.tolist(), strict=True):
        drawn = "|".join(f"{u},{v}" for u, v in row)
        yield f"{drawn}/{start},{goal}={','.join(map(str, path))}"


def load(path: Path, graph: "PathStar") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All problems of a file, checked to be path-star graphs of this size.

    Returns:
        Edges (B, E, 2) in file order, start (B,), goal (B,) and path (B, l).

    Raises:
        UserError: the file is missing or empty, or a line is invalid (names file, line and what was expected).
    """
    try:
        with open_regular(path) as file:
            lines = file.read().decode("ascii").split("\n")  # only this ends a line, not a form feed
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise UserError(f"cannot read data file {path}: {reason}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"data file {path} is empty: expected lines like {_EXAMPLE}")
    width = 2 * graph.num_edges + 2 + graph.path_length
    numbers: list[list[int]] = []
    for number, line in enumerate(lines, start=1):
        if not (match := _LINE.fullmatch(line.strip(" \t\r"))):
            _refuse(path, number, f"cannot be read: {line[:60]!r}; expected something like {_EXAMPLE}")
        texts = _NUMBER.findall(match[0])
        longest = max(texts, key=len)
        row = [int(text) if len(text) <= _DIGITS else graph.num_nodes for text in texts]
        hops = match[3].count(",") + 1
        if len(row) != width or hops != graph.path_length:
            edges = (len(row) - 2 - hops) // 2
            expected = f"{graph} has {graph.num_edges} and {graph.path_length}"
            _refuse(path, number, f"has {edges} edges and a path of {hops} nodes; {expected}")
        if max(row) >= graph.num_nodes:
            node = max(row) if len(longest) <= _DIGITS else longest
            shown = node if len(str(node)) <= 40 else f"{longest[:10]}... with {len(longest):,} digits"
            allowed = f"task.num_nodes={graph.num_nodes} allows 0..{graph.num_nodes - 1}"
            _refuse(path, number, f"has node {shown}; {allowed}")
        numbers.append(row)
    table = torch.from_numpy(np.array(numbers, dtype=np.int64))
    edges = table[:, : 2 * graph.num_edges].unflatten(1, (-1, 2))
    start, goal, paths = (
        table[:, 2 * graph.num_edges],
        table[:, 2 * graph.num_edges + 1],
        table[:, 2 * graph.num_edges + 2 :],
    )
    if (bad := ~is_path_star(graph, edges, start, goal, paths)).any():
        expected = (
            f"{graph.degree} disjoint arms of {graph.path_length} nodes, and the path along one of them to the goal"
        )
        _refuse(path, int(bad.nonzero()[0]) + 1, f"is not a {graph} problem: expected {expected}")
    return edges, start, goal, paths


def is_path_star(graph: "PathStar", edges: Tensor, start: Tensor, goal: Tensor, paths: Tensor) -> Tensor:
    """Mask (B,) of valid path-star problems of this size: edges (B, E, 2), start, goal (B,), paths (B, l)."""
    rows = len(edges)
    sources, targets = edges[..., 0], edges[..., 1]
    leaves_start = sources == start[:, None]  # (B, E)
    good = leaves_start.sum(1) == graph.degree
    onward = torch.full((rows, graph.num_nodes + 1), graph.num_nodes)  # (B, N + 1): the last label means "nowhere"
    onward.scatter_(1, torch.where(leaves_start, graph.num_nodes, sources), targets)
    onward[:, graph.num_nodes] = graph.num_nodes
    first = leaves_start.int().topk(graph.degree, dim=1).indices
    arms = [start[:, None].expand(-1, graph.degree), targets.gather(1, first)]
    for _ in range(graph.path_length - 2):
        arms.append(onward.gather(1, arms[-1]))
    walked = torch.stack(arms, -1)  # (B, d, l)
    nodes = torch.cat([start[:, None], walked[:, :, 1:].flatten(1)], 1).sort(1).values  # (B, n)
    good &= (nodes.diff(dim=1) > 0).all(1) & (nodes[:, -1] < graph.num_nodes)
    return good & (walked == paths[:, None]).all(-1).any(1) & (paths[:, -1] == goal)


def _refuse(path: Path, line: int, what: str) -> NoReturn:
    raise UserError(f"{path}, line {line}: {what}")
