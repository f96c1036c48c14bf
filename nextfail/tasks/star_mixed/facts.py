"""Facts about star graphs of mixed lengths, for reports."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from nextfail.tasks.facts import Facts, whole
from nextfail.tasks.path_star.facts import PLACES
from nextfail.tasks.path_star.outcome import COLUMNS, NOTES, OUTCOMES, SAYS

SIZES = ("degree", "shortest", "longest", "num_nodes")


def facts(settings: Mapping[str, Any]) -> Facts:
    """Facts of one size."""
    sizes = {key: whole(settings, key) for key in SIZES}
    goal = str(settings["goal"])
    return Facts(
        title=title(**sizes, goal=goal),
        chance=chance(sizes["degree"], sizes["shortest"], sizes["longest"], goal),
        length=sizes["longest"] + 1,
        hard_position=1,
        sizes={**sizes, "goal": goal},
        places=PLACES,
        outcomes=OUTCOMES,
        says=SAYS,
        columns=COLUMNS,
        notes=NOTES,
        order=tuple(sizes.values()),
    )


def chance(degree: int, shortest: int, longest: int, goal: str) -> float:
    """Accuracy of a first hop that is a guess: 1/d, except that a goal next to the start is the first hop."""
    if goal == "leaf":
        return 1 / degree
    beside = fmean(1 / (length - 1) for length in range(shortest, longest + 1))
    return beside + (1 - beside) / degree


def title(degree: int, shortest: int, longest: int, num_nodes: int, goal: str) -> str:
    """Mixed G(2,3-5), with the number of labels if it is not 50, and whether goals are at any node."""
    labels = "" if num_nodes == 50 else f", N={num_nodes}"
    return f"Mixed G({degree},{shortest}-{longest}){labels}" + (", any goal" if goal == "any" else "")
