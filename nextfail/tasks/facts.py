"""Facts about tasks for reports. Modules needed here do not import torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from nextfail.source import own

SOLVED = 0.95
"""Accuracy at which a task counts as solved."""

SAYS = {
    "solved": "solved it",
    "undertrained": "ended undertrained, which says nothing about the objective yet",
    "diverged": "diverged",
}
"""Phrases for the outcomes that all tasks share."""


@dataclass(frozen=True)
class Facts:
    """Facts about a task at one size, for reports.

    Args:
        title: such as G(2,5).
        chance: exact match of a model that has learned everything except what is hard; None if only results state it.
        length: answer positions to plot.
        hard_position: position of the hard token, if there is exactly one.
        sizes: settings that become columns of results.csv.
        places: names of the hard position, those after it, and the first one.
        outcomes: meaning of each outcome.
        says: phrase for runs with an outcome, to follow their names: `solved it`.
        columns: metrics shown as table columns besides exact match, by column name.
        notes: meaning of those columns.
        order: sort key of the task in a report.
        examples: converts items of examples.json to what `figure` draws; empty if an item is malformed.
        figure: draws examples of several runs, from groups of runs; None if the task has no figure.
        figure_name: file name of the figure; starts with `paths`.
        draw: draws examples of one run, given those and its objective; None if the task has no figure.
    """

    title: str
    chance: float | None
    length: int
    hard_position: int | None = None
    sizes: dict[str, Any] = field(default_factory=dict)
    places: tuple[str, str, str] = ("the hard token", "the rest", "the first token")
    outcomes: dict[str, str] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=lambda: dict(SAYS))
    columns: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    order: tuple[Any, ...] = ()
    examples: Callable[[list[Any]], list[Any]] = list
    figure: Callable[[Any], Any] | None = None
    figure_name: str = "paths"
    draw: Callable[[list[Any], str], Any] | None = None


def facts(name: str, settings: Mapping[str, Any], result: Mapping[str, Any] | None) -> Facts:
    """Facts of a task by its public name: from `facts` in its folder or, for a user's own task, from its result.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError: the settings do not belong to this task.
    """
    if name in own() and find_spec(f"nextfail.tasks.{name}") and find_spec(f"nextfail.tasks.{name}.facts"):
        found: Facts = import_module(f"nextfail.tasks.{name}.facts").facts(settings)
        return found if found.chance is not None else replace(found, chance=_chance(result))
    told, tokens = (result or {}).get("task") or {}, (result or {}).get("token_accuracy") or []
    plain = {key: value for key, value in settings.items() if not key.startswith("_")}
    title = str(told.get("name") or name.rpartition(".")[2])
    return Facts(title, _chance(result), len(tokens), told.get("hard_position"), plain)


def whole(settings: Mapping[str, Any], key: str) -> int:
    """A size; checked, as it may come from anyone's run folder."""
    value = settings[key]
    if type(value) is not int or not 0 < value < 2**15:  # tokens have 16 bits
        raise ValueError(f"task.{key} is {str(value)[:40]!r}")
    return value


def _chance(result: Mapping[str, Any] | None) -> float | None:
    chance = (result or {}).get("chance")
    return None if chance is None else float(chance)
