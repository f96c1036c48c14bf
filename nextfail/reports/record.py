"""One run as read from its folder, in any state: identity, state, result, curves, examples."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from nextfail.errors import UserError
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import Identity
from nextfail.runs.records import ODD, Proportion, Result, lenient, shares
from nextfail.runs.status import survey
from nextfail.runs.table import number, read_rows
from nextfail.tasks.facts import Facts, facts
from nextfail.text import line

OLDER = {"first_hop_only": "hard_token_accuracy"}
"""Metric that judges an objective, if not exact_match, for old results that do not state it."""

COSTS = ("steps", "samples_seen", "flops", "parameters", "seconds", "samples_per_second")
"""Cost columns of results.csv, read from the result."""

_MALFORMED = (OSError, LookupError, TypeError, ValueError, ArithmeticError)


@dataclass(frozen=True)
class Curve:
    """Accuracies at each validation; NaN if missing.

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
        facts: facts of its task.
        state: one of status.STATES, or unreadable.
        reason: why it is not done; empty if it is.
        step: last known step.
        result: None unless it is done.
        shares: metrics of the result that are proportions, including task-specific ones.
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
    shares: dict[str, Proportion]

    @property
    def hash(self) -> str:
        """Hash of the identity, by which copies of a run in several folders are recognized."""
        return self.identity.hash

    @property
    def judged_by(self) -> str:
        """The metric that determines its outcome."""
        told = self.result.judged_by if self.result else None
        return line(told or OLDER.get(self.objective, "exact_match"))

    @property
    def forced_hop(self) -> Proportion | None:
        """Forced accuracy of the hard token; None if it was not measured, or if there is not exactly one."""
        forced, place = self.result.forced_token_accuracy if self.result else None, self.facts.hard_position
        return None if forced is None or place is None or place >= len(forced) else forced[place]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.identity.settings["seed"])

    @property
    def batch(self) -> int:
        """Training problems per step."""
        settings = self.identity.settings
        batches: int = settings["budget"].get("options", {}).get("accumulate_grad_batches", 1)
        return batches * int(settings["data"]["batch_size"])

    def curve(self, split: str = "validation", kind: str = "token_accuracy") -> Curve | None:
        """Accuracies during training, or None if metrics.csv contains none.

        Args:
            split: validation, or train_set if the run measured it.
            kind: token_accuracy (generated) or forced_token_accuracy.
        """
        try:
            rows = read_rows(RunFolder(self.folder).metrics_csv)
            by_step = {number(row, "step"): row for row in rows if row.get("split") == split}
            steps = sorted(step for step in by_step if not math.isnan(step))
            samples = [step * self.batch for step in steps]
        except (UserError, *_MALFORMED):
            return None
        positions = range(self.facts.length)
        tokens = [[number(by_step[step], f"{kind}_{i}") for i in positions] for step in steps]
        if all(math.isnan(value) for row in tokens for value in row):
            return None
        cheat, exact = ([number(by_step[step], key) for step in steps] for key in ("cheat_accuracy", "exact_match"))
        return Curve(samples, tokens, cheat, exact)

    def examples(self) -> list[Any]:
        """The test problems of examples.json, as parsed by the task; empty if the file is missing or malformed."""
        return self.facts.examples(lenient(RunFolder(self.folder).examples_json, list[Any]) or [])


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises:
        UserError: run.json is missing, malformed or of another schema.
    """
    files = RunFolder(folder)
    identity, choices = files.identity(), files.run().get("choices")
    if choices is None:
        raise UserError(f"run.json {ODD}: it has no choices")
    status = survey([folder])[folder]
    state, reason, step = status["state"], status.get("reason", ""), status.get("step", 0)
    result, content = None, None
    if files.result_json.exists():
        try:
            (result, content), state, reason = files.whole_result(), "done", ""
            result = replace(result, outcome=line(result.outcome))
        except UserError as error:
            state, reason = "unreadable", str(error)
    try:
        known = facts(str(identity.classes["task"]["name"]), identity.settings["task"], content)
    except _MALFORMED as error:
        raise UserError(f"run.json: {error}") from error
    shared = shares(content) if content else {}
    return Run(folder, identity, known, line(choices["model"]), line(choices["objective"]), state, reason, step, result,
               shared)  # fmt: skip
