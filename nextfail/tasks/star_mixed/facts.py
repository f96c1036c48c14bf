"""What reports say of stars with mixed lengths."""

from collections.abc import Mapping
from typing import Any

from nextfail.tasks.facts import Facts
from nextfail.tasks.path_star.facts import PLACES, whole
from nextfail.tasks.path_star.outcome import COLUMNS, NOTES, OUTCOMES, SAYS

SIZES = ("degree", "shortest", "longest", "num_nodes")


def facts(settings: Mapping[str, Any]) -> Facts:
    """Facts of one size."""
    sizes = {key: whole(settings, key) for key in SIZES}
    goal = str(settings["goal"])
    return Facts(
        title=title(sizes["degree"], sizes["shortest"], sizes["longest"], goal),
        chance=1 / sizes["degree"],
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


def title(degree: int, shortest: int, longest: int, goal: str) -> str:
    """Mixed G(2,3-5), and whether goals are anywhere."""
    return f"Mixed G({degree},{shortest}-{longest})" + (", any goal" if goal == "any" else "")
