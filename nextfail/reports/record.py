"""One run as its folder tells it, in whatever state that is: identity, state, result, curves, examples."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextfail.errors import UserError
from nextfail.files import read_json
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import READABLE, Identity
from nextfail.runs.status import survey
from nextfail.runs.table import Row, read_rows
from nextfail.tasks.facts import Facts, facts
from nextfail.text import line

OLDER = {"first_hop_only": "hard_token_accuracy"}
"""What judges objectives other than exact_match, in results that do not say it."""

COSTS = ("steps", "samples_seen", "flops", "parameters", "seconds", "samples_per_second")
"""Numbers of a result that tables are made of."""

MOST = 1e30  # beyond any of them

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
    hard_token: Proportion | None
    cheat: Proportion | None
    forced_hop: Proportion | None
    samples_seen: int
    record: dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """Accuracies at each validation; NaN where one is missing.

    Args:
        samples: training problems seen (T).
        tokens: accuracy of each generated position (T, L).
        cheat: cheat accuracy (T).
        exact: exact match (T).
    """

    samples: list[float]
    tokens: list[list[float]]
    cheat: list[float]
    exact: list[float]


@dataclass(frozen=True)
class Run:
    """One run, done or not.

    Args:
        facts: of its task.
        state: one of status.STATES, or unreadable.
        reason: why it is not done; empty if it is.
        step: the last one that is known.
        result: None unless it is done.
    """

    folder: Path
    identity: Identity
    facts: Facts
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
    def judged_by(self) -> str:
        """The metric on which its outcome is judged."""
        told = self.result.record.get("judged_by") if self.result else None
        return str(told or OLDER.get(self.objective, "exact_match"))

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
        positions = range(self.facts.length)
        tokens = [[_number(by_step[step], f"{kind}_{i}") for i in positions] for step in steps]
        if all(math.isnan(value) for row in tokens for value in row):
            return None
        cheat, exact = ([_number(by_step[step], key) for step in steps] for key in ("cheat_accuracy", "exact_match"))
        return Curve(samples, tokens, cheat, exact)

    def examples(self) -> list[Any]:
        """The test problems of examples.json, as the task reads them; none if it is missing or not as expected."""
        items = read_json(RunFolder(self.folder).examples_json)
        return self.facts.examples(items) if isinstance(items, list) else []


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
        int(settings["seed"]), _within(settings["data"].get("batch_size", 1), MOST)
        known = facts(str(identity.classes["task"]["name"]), settings["task"], _recorded(files))
        model, objective = _name(run["choices"]["model"]), _name(run["choices"]["objective"])
        status = survey([folder])[folder]
    except _MALFORMED as error:
        raise UserError(_explain("run.json", error)) from error
    state, reason, result = status["state"], status.get("reason", ""), None
    if files.result_json.exists():
        try:
            state, reason, result = "done", "", _result(read_json(files.result_json), run["hash"], known.hard_position)
        except _MALFORMED as error:
            state, reason = "unreadable", _explain("result.json", error)
    step = status["step"] if isinstance(status.get("step"), int) else 0
    return Run(folder, identity, known, model, objective, state, reason, step, result)


def _recorded(files: RunFolder) -> dict[str, Any] | None:
    content = read_json(files.result_json)
    return content if isinstance(content, dict) else None


def _result(record: Any, run_hash: str, place: int | None) -> Result:
    if not isinstance(record, dict):
        raise ValueError("not whole")
    if record["schema"] not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise ValueError(f"schema {record['schema']!r}, and this version reads schema {readable}")
    if record["identity"] != run_hash:
        raise ValueError("of another run than run.json")
    for cost in COSTS:
        if record.get(cost) is not None:
            _within(record[cost], MOST)
    exact = _proportion(record["exact_match"])
    hard, cheat = (None if record.get(key) is None else _proportion(record[key])
                   for key in ("hard_token_accuracy", "cheat_accuracy"))  # fmt: skip
    forced = record.get("forced_token_accuracy")
    hop = None if forced is None or place is None else _proportion(forced[place])
    return Result(_name(record["outcome"]), exact, hard, cheat, hop, int(record["samples_seen"]), record)


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise ValueError(f"{str(value)[:LONGEST_NAME]!r} is no name")
    return line(value)


def _proportion(value: dict[str, Any]) -> Proportion:
    low, middle, high = (_within(value[key], 1) for key in ("low", "value", "high"))
    return Proportion(middle, low, high, int(_within(value["n"], MOST)))


def _within(value: Any, most: float) -> float:
    """A number from 0 to `most`, which may come from anybody's run folder."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{str(value)[:LONGEST_NAME]!r} is not a number from 0 to {most:g}")
    return value


def _number(row: Row, key: str) -> float:
    try:
        return float(row[key])
    except (KeyError, ValueError):
        return math.nan


def _explain(name: str, error: Exception) -> str:
    return f"{name} lacks {error}" if isinstance(error, KeyError) else f"{name}: {error}"
