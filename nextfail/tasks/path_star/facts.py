"""Facts about path-star graphs, for reports."""

from collections.abc import Mapping
from typing import Any

from nextfail.tasks.facts import Facts, whole
from nextfail.tasks.path_star.examples import examples
from nextfail.tasks.path_star.outcome import COLUMNS, NOTES, OUTCOMES, SAYS

SIGNS = ("|", "=", "/", "$")
"""Texts of the ids after the node labels."""

SIZES = ("degree", "path_length", "num_nodes")
PLACES = ("position 1, the hard token", "positions 2 to goal", "position 0, the start")


def facts(settings: Mapping[str, Any]) -> Facts:
    """Facts of one size."""
    sizes = {key: whole(settings, key) for key in SIZES}
    return Facts(
        title=title(sizes),
        chance=1 / sizes["degree"],
        length=sizes["path_length"],
        hard_position=1,
        sizes=sizes,
        places=PLACES,
        outcomes=OUTCOMES,
        says=SAYS,
        columns=COLUMNS,
        notes=NOTES,
        order=tuple(sizes.values()),
        examples=lambda items: examples(items, sizes["path_length"]),
        figure=_figure,
        draw=lambda items, objective: _draw(items, sizes["num_nodes"], objective),
    )


def title(sizes: Mapping[str, int]) -> str:
    """G(2,5), with the number of labels if it is not the default."""
    name = f"G({sizes['degree']},{sizes['path_length']})"
    usual = 50 if sizes["degree"] * (sizes["path_length"] - 1) < 50 else 100
    return name if sizes["num_nodes"] == usual else f"{name}, N={sizes['num_nodes']}"


def _figure(groups: Any) -> Any:
    from nextfail.tasks.path_star.figure import paths  # matplotlib takes most of a second

    return paths(groups)


def _draw(items: list[Any], num_nodes: int, objective: str) -> Any:
    from nextfail.tasks.path_star.figure import answers

    return answers(items, num_nodes, objective)
