"""Figures of trees for reports: from the root down, with the true path and what each model generated."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from nextfail.reports.collect import Group, group_by
from nextfail.reports.examples import telling
from nextfail.reports.style import STYLE, WRONG, colour
from nextfail.tasks.path_star.figure import KEYS, TRUTH
from nextfail.tasks.tree.examples import Example, children, depths

# all lengths in inches
WIDTH, HEIGHT = 2.3, 2.3  # of a panel
BESIDE = 3  # panels in a row

Panel = tuple[Example, str, str]
"""A problem with an answer, a title and the objective."""

Points = dict[int, tuple[float, float]]


@matplotlib.rc_context(STYLE)
def trees(groups: Sequence[Group]) -> Figure | None:
    """For each tree size one test problem, with what every model generated for it; None without examples."""
    panels: list[Panel] = []
    for namesakes in group_by(groups, lambda group: group.task):
        for group, seed, example in telling(namesakes):
            verdict = "right" if example.generated == example.path else "wrong"
            title = f"{group.objective}\n{group.runs[0].model}, seed {seed}: {verdict}"
            panels.append((example, title, group.objective))
    return _figure(panels) if panels else None


@matplotlib.rc_context(STYLE)
def answers(examples: Sequence[Example], objective: str) -> Figure:
    """What one model generated, one panel per problem."""
    words = {True: "right", False: "wrong"}
    return _figure([(each, f"from {each.root} to {each.leaf}: {words[each.generated == each.path]}", objective)
                    for each in examples])  # fmt: skip


def _figure(panels: Sequence[Panel]) -> Figure:
    columns = min(BESIDE, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(4.6, WIDTH * columns), HEIGHT * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, *panel)
    for axes in [*grid][len(panels) :]:
        axes.set_axis_off()
    figure.legend(handles=KEYS, loc="outside upper center", ncols=4)
    return figure


def _draw(axes: Axes, example: Example, title: str, objective: str) -> None:
    shade, points = colour(objective), _points(example)
    axes.set_title(title, color="0.2")
    axes.set_axis_off()
    axes.margins(0.1)
    for tail, head in example.edges:
        axes.plot(*zip(points[tail], points[head], strict=True), color="0.8", lw=0.8, zorder=1)
    axes.plot(*zip(*(points[node] for node in example.path), strict=True), color=TRUTH, lw=5, zorder=0)
    for tail, head in pairwise(example.generated):
        if tail in points and head in points and tail != head:
            look: dict[str, Any] = {"color": shade}
            if (tail, head) not in example.edges:
                look = {"color": WRONG, "ls": (0, (3, 2)), "connectionstyle": "arc3,rad=-0.35"}
            axes.add_patch(FancyArrowPatch(points[tail], points[head], arrowstyle="-|>", mutation_scale=8, shrinkA=5,
                                           shrinkB=5, lw=1.5, zorder=4, **look))  # fmt: skip
    for node, (x, y) in points.items():
        edge = shade if node in example.generated else "0.6"
        if node == example.leaf:
            axes.plot(x, y, "o", ms=14, mfc="white", mec="0.1", mew=1.4, zorder=2)
        axes.plot(x, y, "s" if node == example.root else "o", ms=10, mfc="white", mec=edge, zorder=3)
        axes.text(x, y, str(node), fontsize=6, ha="center", va="center_baseline", zorder=5)


def _points(example: Example) -> Points:
    """Leaves side by side, every other node centred above its children."""
    deep, below = depths(example), children(example)
    down, left = [], [example.root]  # depth first, so that no two edges cross
    while left:
        down.append(node := left.pop())
        left += below.get(node, [])
    leaves = [node for node in down if node not in below]
    across = {leaf: float(place) for place, leaf in enumerate(leaves)}
    for node in sorted(below, key=lambda node: -deep[node]):
        across[node] = sum(across[child] for child in below[node]) / len(below[node])
    return {node: (across[node], -float(deep[node])) for node in deep}
