"""Facts about trees, for reports."""

from collections.abc import Mapping
from typing import Any

from nextfail.tasks.facts import Facts, whole
from nextfail.tasks.tree.examples import examples
from nextfail.tasks.tree.outcome import COLUMNS, NOTES, OUTCOMES, SAYS

SIZES = ("nodes", "children", "longest", "num_nodes")
PLACES = ("position 1, mostly a choice", "positions 2 to the end", "position 0, the root")


def facts(settings: Mapping[str, Any]) -> Facts:
    """Facts of one size."""
    sizes = {key: whole(settings, key) for key in SIZES}
    return Facts(
        title=title(sizes),
        chance=None,  # estimated at evaluation and stored in the result
        length=sizes["longest"] + 1,
        sizes=sizes,
        places=PLACES,
        outcomes=OUTCOMES,
        says=SAYS,
        columns=COLUMNS,
        notes=NOTES,
        order=tuple(sizes.values()),
        examples=examples,
        figure=_figure,
        figure_name="paths_tree",
        draw=_draw,
    )


def title(sizes: Mapping[str, int]) -> str:
    """Tree(12, 2): nodes and children, with the longest path and number of labels if not the defaults."""
    longest = "" if sizes["longest"] == 6 else f", paths to {sizes['longest']}"
    labels = "" if sizes["num_nodes"] == 50 else f", N={sizes['num_nodes']}"
    return f"Tree({sizes['nodes']}, {sizes['children']}{longest}){labels}"


def _figure(groups: Any) -> Any:
    from nextfail.tasks.tree.figure import trees  # matplotlib takes most of a second

    return trees(groups)


def _draw(items: list[Any], objective: str) -> Any:
    from nextfail.tasks.tree.figure import answers

    return answers(items, objective)
