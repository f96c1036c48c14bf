"""What reports say of a task. No module that is needed for it imports torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from nextfail.source import own

SOLVED = 0.95
"""Accuracy from which a task counts as solved."""

SAYS = {
    "solved": "solved it",
    "undertrained": "ended undertrained, which says nothing of the objective yet",
    "diverged": "diverged",
}
"""What the outcomes that tasks have in common say of those that ended so."""


@dataclass(frozen=True)
class Facts:
    """What reports say of a task at one size.

    Args:
        title: such as G(2,5).
        chance: the exact match of a model that has learned all but what is hard; None if it stands in results alone.
        length: places of an answer that are drawn.
        hard_position: place of the one hard token, if there is just one.
        sizes: settings that are columns of results.csv.
        places: what to call the hard place, those after it, and the first one.
        outcomes: what each outcome means.
        says: of some outcomes, what they say of those that ended so, after their names: `solved it`.
        columns: of metrics that are columns of a report's table beside exact match, by the column's name.
        notes: what those columns mean.
        order: sorts tasks in a report.
        examples: from the items of examples.json to what `figure` draws; none of them if any is not as expected.
        figure: draws examples of several runs, from groups of runs; None if this task has no figure.
        figure_name: of the file that `figure` becomes, beginning with `paths`.
        draw: draws examples of one run, given those and its objective; None as well.
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
    """Facts of a task by its public name: what `facts` in its folder says; of a user's own task, what its result says.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError: the settings are not those of this task.
    """
    if name in own() and find_spec(f"nextfail.tasks.{name}") and find_spec(f"nextfail.tasks.{name}.facts"):
        found: Facts = import_module(f"nextfail.tasks.{name}.facts").facts(settings)
        return found if found.chance is not None else replace(found, chance=_chance(result))
    told, tokens = (result or {}).get("task") or {}, (result or {}).get("token_accuracy") or []
    plain = {key: value for key, value in settings.items() if not key.startswith("_")}
    title = str(told.get("name") or name.rpartition(".")[2])
    return Facts(title, _chance(result), len(tokens), told.get("hard_position"), plain)


def whole(settings: Mapping[str, Any], key: str) -> int:
    """A size, which may come from anybody's run folder."""
    value = settings[key]
    if type(value) is not int or not 0 < value < 2**15:  # tokens have 16 bits
        raise ValueError(f"task.{key} is {str(value)[:40]!r}")
    return value


def _chance(result: Mapping[str, Any] | None) -> float | None:
    chance = (result or {}).get("chance")
    return None if chance is None else float(chance)
