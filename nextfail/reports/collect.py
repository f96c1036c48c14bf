"""Find and read run folders, and group runs that differ only by seed."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from nextfail.errors import UserError
from nextfail.reports.names import MODELS, OBJECTIVES
from nextfail.reports.record import Run, read_run
from nextfail.runs.find import find
from nextfail.runs.records import Result
from nextfail.text import line

T = TypeVar("T")

ORDER = (*OBJECTIVES, *MODELS)

MOST_KEYS = 3  # maximum number of keys in a label


@dataclass(frozen=True)
class Group:
    """Runs that differ only by their seed, sorted by seed.

    Args:
        runs: at least one.
        differs: settings that distinguish this group from others of the same task, model and objective; may be empty.
    """

    runs: list[Run]
    differs: str = ""

    @property
    def task(self) -> str:
        """The task's title, such as G(2,5)."""
        return self.runs[0].facts.title

    @property
    def model(self) -> str:
        """The model's name, with the settings that distinguish this group from others."""
        return f"{self.runs[0].model} ({self.differs})" if self.differs else self.runs[0].model

    @property
    def objective(self) -> str:
        """The objective's name."""
        return self.runs[0].objective

    @property
    def chance(self) -> float:
        """Exact match of a model that has learned everything but the hard token (1/d); NaN if unknown."""
        known = (run.facts.chance for run in self.runs)  # of some tasks, only from a result
        return next((chance for chance in known if chance is not None), math.nan)

    @property
    def results(self) -> list[Result]:
        """Results of the runs that are done."""
        return [run.result for run in self.runs if run.result]

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of results per outcome."""
        named = [result.outcome for result in self.results]
        return {outcome: named.count(outcome) for outcome in sorted(set(named))}

    @property
    def ended(self) -> str:
        """The outcomes as text: `2 solved, 1 undertrained`."""
        return ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items())

    @property
    def so_far(self) -> str:
        """The same, with the number of runs that are not done: `2 solved, 1 not done`."""
        left = len(self.runs) - len(self.results)
        return ", ".join(filter(None, [self.ended, f"{left} not done" if left else ""]))

    def mean(self, metric: str) -> float | None:
        """Mean of a proportion over the seeds that are done; None if it was not measured."""
        shares = [run.shares[metric].value for run in self.runs if metric in run.shares]
        return fmean(shares) if shares else None


@dataclass(frozen=True)
class Problem:
    """A folder that is missing from the results, or from some of the figures, and why."""

    folder: Path
    state: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """All runs found, without duplicates and in groups, and the problems with folders."""

    groups: list[Group]
    problems: list[Problem]

    @property
    def by_task(self) -> dict[str, list[Group]]:
        """Groups with a result, by task title."""
        done = [group for group in self.groups if group.results]
        return {groups[0].task: groups for groups in group_by(done, lambda group: group.task)}


def collect(folders: Sequence[Path]) -> Collection:
    """Read every run folder at or below the given ones. An unreadable one becomes a Problem, never an exception.

    Raises:
        UserError: a folder does not exist, or none of them contains a run.
    """
    runs: dict[str, Run] = {}
    problems = []
    for folder in find(folders):
        try:
            run = read_run(folder)
        except UserError as error:
            problems.append(Problem(folder, "unreadable", str(error)))
            continue
        kept, other = _better(runs.get(run.hash, run), run)
        runs[run.hash] = kept
        if other is not kept:
            problems.append(Problem(other.folder, other.state, f"the same run as {kept.folder}, which counts"))
    for run in runs.values():
        if run.state != "done":
            problems.append(Problem(run.folder, run.state, run.reason))
        elif empty := _empty_files(run):
            problems.append(Problem(run.folder, "done", f"not in every figure: nothing to draw in {empty}"))
    return Collection(grouped(runs.values()), sorted(problems, key=lambda problem: problem.folder))


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Group runs that differ only by seed, and label groups that would otherwise share a name."""
    by_seed = sorted(runs, key=lambda run: run.seed)
    alike = group_by(by_seed, lambda run: run.identity.hash_without("seed"))
    groups = []
    for namesakes in group_by(sorted(alike, key=lambda runs: _rank(runs[0])), lambda runs: _rank(runs[0])):
        labels = _labels([members[0] for members in namesakes])
        pairs = sorted(zip(labels, namesakes, strict=True), key=lambda pair: (len(pair[0]), pair[0]))
        groups += [Group(members, label) for label, members in pairs]
    return groups


def group_by(items: Iterable[T], key: Callable[[T], Any]) -> list[list[T]]:
    """Lists of items with the same key, in order of first appearance."""
    lists: dict[Any, list[T]] = {}
    for item in items:
        lists.setdefault(key(item), []).append(item)
    return list(lists.values())


def chance_of(groups: Iterable[Group]) -> float:
    """Chance on the task of these groups; NaN if none of them knows it."""
    return next((group.chance for group in groups if not math.isnan(group.chance)), math.nan)


def _rank(run: Run) -> tuple[Any, ...]:
    names = [(ORDER.index(name) if name in ORDER else len(ORDER), name) for name in (run.objective, run.model)]
    return run.facts.title.partition("(")[0], run.facts.order, run.facts.title, *names


def telling(runs: Sequence[Run]) -> list[str]:
    """Dotted keys of the settings in which runs differ, except the seed."""
    flat = [run.identity.flat for run in runs]
    keys = dict.fromkeys(key for each in flat for key in each if key != "seed")
    return [key for key in keys if any(each.get(key) != flat[0].get(key) for each in flat)]


def _labels(runs: list[Run]) -> list[str]:
    """The settings that distinguish each run from the others, except the seed: `model.depth=8, optimizer.lr=0.001`."""
    keys, labels = telling(runs), []
    for each in (run.identity.flat for run in runs):
        parts = [line(f"{key}={each[key]}") for key in keys if key in each]
        labels.append(", ".join(parts if len(parts) <= MOST_KEYS else [*parts[:MOST_KEYS], "..."]))
    return [label if labels.count(label) == 1 else f"{label} {run.hash[:4]}".strip()
            for run, label in zip(runs, labels, strict=True)]  # fmt: skip


def _empty_files(run: Run) -> str:
    found = {"metrics.csv": run.curve(), "examples.json": run.examples()}
    return " and ".join(name for name, content in found.items() if not content)


def _better(one: Run, other: Run) -> tuple[Run, Run]:
    """Of two runs with the same identity, the one to keep (the finished, else the longer one) and the one to drop."""
    if (other.state == "done", other.step) > (one.state == "done", one.step):
        return other, one
    return one, other
