"""One run as its folder tells it, in whatever state that is: identity, state, result, curves, examples."""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from nextfail.errors import UserError
from nextfail.files import read_json
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import READABLE, Identity
from nextfail.runs.naming import graph_name
from nextfail.runs.status import survey
from nextfail.runs.table import Row, read_rows
from nextfail.text import line

LONGEST_NAME = 200  # characters, of a model, an objective or an outcome

_MALFORMED = (OSError, LookupError, TypeError, ValueError, ArithmeticError)


@dataclass(frozen=True)
class Proportion:
    """A share of `n` with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Result:
    """What result.json says; `record` is all of it."""

    outcome: str
    exact_match: Proportion
    hard_token: Proportion
    cheat: Proportion | None
    forced_hop: Proportion | None
    samples_seen: int
    record: dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """Accuracies at each validation; NaN where one is missing.

    Args:
        samples: training problems seen (T).
        tokens: accuracy of each generated position (T, path_length).
        cheat: cheat accuracy (T).
        exact: exact match (T).
    """

    samples: list[float]
    tokens: list[list[float]]
    cheat: list[float]
    exact: list[float]


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
        """What was asked, whoever answered."""
        return self.edges, self.start, self.goal


@dataclass(frozen=True)
class Run:
    """One run, done or not.

    Args:
        state: one of status.STATES, or unreadable.
        reason: why it is not done; empty if it is.
        step: the last one that is known.
        result: None unless it is done.
    """

    folder: Path
    identity: Identity
    model: str
    objective: str
    state: str
    reason: str
    step: int
    result: Result | None

    @property
    def hash(self) -> str:
        """The identity's, by which the same run is known in two folders."""
        return self.identity.hash

    @property
    def graph(self) -> dict[str, int]:
        """degree, path_length and num_nodes."""
        sizes: dict[str, int] = self.identity.settings["graph"]
        return sizes

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.identity.settings["seed"])

    def curve(self, split: str = "validation", kind: str = "token_accuracy") -> Curve | None:
        """Accuracies over training, or None if metrics.csv holds none.

        Args:
            split: validation, or train_set where the run measured that.
            kind: token_accuracy (generated) or forced_token_accuracy.
        """
        try:
            rows = read_rows(RunFolder(self.folder).metrics_csv)
            by_step = {_number(row, "step"): row for row in rows if row.get("split") == split}
            steps = sorted(step for step in by_step if not math.isnan(step))
            samples = [step * self.identity.settings["data"]["batch_size"] for step in steps]
        except _MALFORMED:
            return None
        positions = range(self.graph["path_length"])
        tokens = [[_number(by_step[step], f"{kind}_{i}") for i in positions] for step in steps]
        if all(math.isnan(value) for row in tokens for value in row):
            return None
        cheat, exact = ([_number(by_step[step], key) for step in steps] for key in ("cheat_accuracy", "exact_match"))
        return Curve(samples, tokens, cheat, exact)

    def examples(self) -> list[Example]:
        """The test problems of examples.json; none if it is missing or not as expected."""
        try:
            items = read_json(RunFolder(self.folder).examples_json) or []
            return [_example(item, self.graph["path_length"]) for item in items]
        except _MALFORMED:
            return []


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises:
        UserError: run.json is missing, not whole, of another schema, or not as expected.
    """
    files = RunFolder(folder)
    try:
        run, identity = files.run(), files.identity()
        settings = identity.settings
        # what is read later without a second look
        int(settings["seed"]), graph_name(settings["graph"]), 1 / settings["graph"]["degree"]
        model, objective = _name(run["choices"]["model"]), _name(run["choices"]["objective"])
        status = survey([folder])[folder]
    except _MALFORMED as error:
        raise UserError(_explain("run.json", error)) from error
    state, reason, result = status["state"], status.get("reason", ""), None
    if files.result_json.exists():
        try:
            state, reason, result = "done", "", _result(read_json(files.result_json), run["hash"])
        except _MALFORMED as error:
            state, reason = "unreadable", _explain("result.json", error)
    step = status["step"] if isinstance(status.get("step"), int) else 0
    return Run(folder, identity, model, objective, state, reason, step, result)


def _result(record: Any, run_hash: str) -> Result:
    if not isinstance(record, dict):
        raise ValueError("not whole")
    if record["schema"] not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise ValueError(f"schema {record['schema']!r}, and this version reads schema {readable}")
    if record["identity"] != run_hash:
        raise ValueError("of another run than run.json")
    exact, hard = _proportion(record["exact_match"]), _proportion(record["hard_token_accuracy"])
    cheat = None if record["cheat_accuracy"] is None else _proportion(record["cheat_accuracy"])
    forced = record.get("forced_token_accuracy")
    hop = None if forced is None else _proportion(forced[1])
    return Result(_name(record["outcome"]), exact, hard, cheat, hop, int(record["samples_seen"]), record)


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise ValueError(f"{str(value)[:LONGEST_NAME]!r} is no name")
    return line(value)


def _proportion(value: dict[str, Any]) -> Proportion:
    return Proportion(float(value["value"]), float(value["low"]), float(value["high"]), int(value["n"]))


def _example(item: dict[str, Any], length: int) -> Example:
    edges = _away(int(item["start"]), [(int(one), int(other)) for one, other in item["edges"]])
    path, generated = (tuple(map(int, item[key])) for key in ("path", "generated"))
    example = Example(edges, int(item["start"]), int(item["goal"]), path, generated)
    ends = path[:1] + path[-1:] == (example.start, example.goal)
    if not ends or not set(pairwise(path)) <= set(edges) or not len(path) == len(generated) == length:
        raise ValueError("the path is not one of the graph's")
    return example


def _away(start: int, edges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The edges of a tree, each with its node nearer to the start first, as a prompt need not have them."""
    reached = {start}
    while left := [edge for edge in edges if not reached.issuperset(edge)]:
        if not (next_ones := {node for edge in left if reached.intersection(edge) for node in edge} - reached):
            raise ValueError("an edge is not connected to the start")
        edges = [edge[::-1] if edge[1] in reached and edge[0] in next_ones else edge for edge in edges]
        reached |= next_ones
    return tuple(edges)


def _number(row: Row, key: str) -> float:
    try:
        return float(row[key])
    except (KeyError, ValueError):
        return math.nan


def _explain(name: str, error: Exception) -> str:
    return f"{name} lacks {error}" if isinstance(error, KeyError) else f"{name}: {error}"
