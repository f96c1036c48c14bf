"""The third figure of a report: one test graph as a star, with the true path and what each model generated."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from nextfail.reports.collect import Group, group_by
from nextfail.reports.examples import telling
from nextfail.reports.style import STYLE, WRONG, colour
from nextfail.tasks.path_star.examples import Example
from nextfail.tasks.path_star.facts import SIGNS

# all lengths in inches
WIDTH = 7.4  # maximum width of the figure
STEP = 0.26  # between nodes; smaller if the star would not fit
LEAST = 0.16  # smallest legible step for three stars in a row; longer arms get the whole width
MARGIN = 0.17  # around a star
TOKEN = 0.21  # per token of a written path
LINE = 0.135  # per line of text
HEAD = 0.21  # panel header without its subtitle
NARROWEST = 1.8  # minimum panel width, to fit its title

TRUTH = "#F0E442"  # the highlighter
Points = dict[int, tuple[float, float]]


KEYS = [
    Line2D([], [], color=TRUTH, lw=6, label="true path"),
    Line2D([], [], color="0.3", lw=1.6, marker=">", ms=4, label="generated"),
    Line2D([], [], color=WRONG, lw=1.4, ls="--", label="generated, but not an edge"),
    Line2D([], [], color="0.1", marker="o", mfc="white", mew=1.6, ls="", label="goal"),
]


@dataclass(frozen=True)
class Panel:
    """An example with title and subtitle; `objective` is None if only the problem is drawn."""

    example: Example
    num_nodes: int
    title: str
    subtitle: str
    objective: str | None = None


@dataclass(frozen=True)
class Star:
    """Node positions of a graph, relative to the start at the centre, and the space they need."""

    points: Points
    step: float
    width: float
    height: float


@matplotlib.rc_context(STYLE)
def paths(groups: Sequence[Group]) -> Figure | None:
    """One test graph per graph size, with the paths that all models generated; None without examples."""
    rows: list[tuple[Star, list[Panel]]] = []
    for namesakes in group_by(groups, lambda group: group.task):
        if panels := _panels(namesakes):
            star = _star(panels[0].example)
            beside = max(1, int(WIDTH / star.width))
            rows += [(star, panels[i : i + beside]) for i in range(0, len(panels), beside)]
    if not rows:
        return None
    figure = _figure(rows)
    figure.legend(handles=KEYS, loc="upper center", ncols=4)
    return figure


@matplotlib.rc_context(STYLE)
def answers(examples: Sequence[Example], num_nodes: int, objective: str) -> Figure:
    """What one model generated, one row per problem."""
    rows = []
    for example in examples:
        verdict = "right" if example.generated == example.path else "wrong"
        title = f"from {example.start} to {example.goal}: {verdict}"
        rows.append((_star(example), [Panel(example, num_nodes, title, "", objective)]))
    figure = _figure(rows)
    figure.legend(handles=KEYS, loc="upper center", ncols=2)
    return figure


def _figure(rows: list[tuple[Star, list[Panel]]]) -> Figure:
    """Rows of panels, with space for a legend."""
    heights = [star.height + HEAD + LINE * (1 + _lines(star, panels)) for star, panels in rows]
    width = max(4.6, *(star.width * len(panels) for star, panels in rows))
    height = sum(heights) + 0.3
    figure, top = Figure(figsize=(width, height)), height - 0.3
    for (star, panels), high in zip(rows, heights, strict=True):
        top -= high
        for column, panel in enumerate(panels):
            place = (column * star.width / width, top / height, star.width / width, high / height)
            _draw(figure.add_axes(place), panel, star, high, _lines(star, panels))
    return figure


def _panels(groups: list[Group]) -> list[Panel]:
    """One problem, and what each group generated for it."""
    chosen = telling(groups)
    if not chosen:
        return []
    num_nodes, first = groups[0].runs[0].facts.sizes["num_nodes"], chosen[0][2]
    problem = replace(first, generated=first.path)
    panels = [Panel(problem, num_nodes, groups[0].task, f"from {problem.start} to {problem.goal}")]
    for group, seed, example in chosen:
        verdict = "right" if example.generated == example.path else "wrong"
        subtitle = f"{group.model}, seed {seed}: {verdict}"
        panels.append(Panel(example, num_nodes, group.objective, subtitle, group.objective))
    return panels


def _star(example: Example) -> Star:
    """Arms as rays, with the true one pointing right."""
    following = {tail: head for tail, head in example.edges if tail != example.start}
    firsts = sorted(
        (head for tail, head in example.edges if tail == example.start), key=lambda head: head != example.path[1]
    )
    inner = max(0.0, 0.8 * len(firsts) / math.tau - 1)  # in steps; separates the nodes of the first ring
    radius = inner + len(example.path) - 1
    beside = 3 if radius * LEAST < WIDTH / 6 - MARGIN else 1
    step = min(STEP, (WIDTH / beside - 2 * MARGIN) / (2 * radius))
    points = {example.start: (0.0, 0.0)}
    for arm, node in enumerate(firsts):
        angle, distance = math.tau * arm / len(firsts), inner
        while node not in points:
            distance += 1
            points[node] = step * distance * math.cos(angle), step * distance * math.sin(angle)
            node = following.get(node, node)
    highest = max(abs(y) for _, y in points.values())
    width = max(NARROWEST, 2 * (radius * step + MARGIN))
    written = LINE * _written(example, width)
    return Star(points, step, width, 2 * max(highest + MARGIN, 0.3) + written)


def _lines(star: Star, panels: list[Panel]) -> int:
    """Lines of the longest subtitle in a row of panels."""
    return max(len(_wrapped(star, panel)) for panel in panels)


def _wrapped(star: Star, panel: Panel) -> list[str]:
    return textwrap.wrap(panel.subtitle, int(star.width / 0.055))


def _draw(axes: Axes, panel: Panel, star: Star, height: float, lines: int) -> None:
    example, shade = panel.example, colour(panel.objective) if panel.objective else "0.6"
    axes.set(xlim=(0, star.width), ylim=(0, height))
    axes.set_axis_off()
    rule = height - HEAD - LINE * lines
    axes.text(0.08, height - 0.09, panel.title, fontweight="bold", va="center")
    axes.text(0.08, height - 0.17, "\n".join(_wrapped(star, panel)), fontsize=6.5, color="0.3", va="top")
    axes.plot([0.08, star.width - 0.08], [rule, rule], color=shade, lw=3, solid_capstyle="butt")
    middle = (rule + LINE * (1 + _written(example, star.width))) / 2
    points = {node: (x + star.width / 2, y + middle) for node, (x, y) in star.points.items()}
    for tail, head in example.edges:
        axes.plot(*zip(points[tail], points[head], strict=True), color="0.8", lw=0.8, zorder=1)
    axes.plot(*zip(*(points[node] for node in example.path), strict=True), color=TRUTH, lw=20 * star.step, zorder=0)
    if panel.objective:
        _arrows(axes, points, example, star.step, shade)
    _nodes(axes, points, example, star.step, shade if panel.objective else None)
    _tokens(axes, panel, star.width)


def _arrows(axes: Axes, points: Points, example: Example, step: float, shade: str) -> None:
    """The generated path; hops that are not edges of the graph are dashed arcs."""
    for tail, head in pairwise(example.generated):
        if tail in points and head in points and tail != head:
            look: dict[str, Any] = {"color": shade}
            if (tail, head) not in example.edges:
                look = {"color": WRONG, "ls": (0, (3, 2)), "connectionstyle": "arc3,rad=-0.35"}
            size = 21 * step  # points: half of a node
            look |= {"arrowstyle": "-|>", "mutation_scale": 30 * step, "shrinkA": size, "shrinkB": size}
            axes.add_patch(FancyArrowPatch(points[tail], points[head], lw=1.5, zorder=4, **look))


def _nodes(axes: Axes, points: Points, example: Example, step: float, shade: str | None) -> None:
    """The nodes; those on the generated path in its colour."""
    size = 42 * step  # points: 0.6 of a step
    for node, (x, y) in points.items():
        visited = shade is not None and node in example.generated
        look: dict[str, Any] = {"mec": shade, "mew": 1.4} if visited else {"mec": "0.6", "mew": 0.6}
        if node == example.goal:
            axes.plot(x, y, "o", ms=size + 4, mfc="white", mec="0.1", mew=1.4, zorder=2)
        axes.plot(x, y, "s" if node == example.start else "o", ms=size, mfc="white", zorder=3, **look)
        if step > 0.14:  # otherwise numbers do not fit
            axes.text(x, y - 0.003, str(node), fontsize=22 * step, ha="center", va="center_baseline", zorder=5)


def _tokens(axes: Axes, panel: Panel, width: float) -> None:
    """The generated path as text, with wrong tokens highlighted."""
    generated, path = panel.example.generated, panel.example.path
    lines, a_line = _written(panel.example, width), int(width / TOKEN)
    for i, (token, true) in enumerate(zip(generated, path, strict=True)):
        row, column = divmod(i, a_line)
        beside = min(a_line, len(path) - row * a_line)
        x = width / 2 + TOKEN * (column - (beside - 1) / 2)
        look: dict[str, Any] = {} if token == true else {"color": WRONG, "fontweight": "bold"}
        axes.text(
            x, LINE * (lines - row + 0.5), _sign(token, panel.num_nodes), fontsize=7, ha="center", va="center", **look
        )


def _written(example: Example, width: float) -> int:
    """Lines that a path takes."""
    return math.ceil(len(example.path) / int(width / TOKEN))


def _sign(token: int, num_nodes: int) -> str:
    """Text of a token: nodes by number, an objective's own tokens as a question mark."""
    if token < num_nodes:
        return str(token)
    return SIGNS[token - num_nodes] if token - num_nodes < len(SIGNS) else "?"
