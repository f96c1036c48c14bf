"""Two figures of a report: exact match of every seed, and accuracy per token during training."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from nextfail.reports.collect import Group, chance_of, group_by
from nextfail.reports.record import Curve
from nextfail.reports.style import CHANCE, STYLE, WRONG, colour, marker

Array = NDArray[np.float64]

CHEAT: dict[str, Any] = {"color": "0.1", "ls": (0, (4, 2)), "lw": 1.4, "zorder": 5}
MEAN: dict[str, Any] = {"ms": 16, "mew": 1.6, "color": "0.15"}
WIDEST = 4  # maximum number of panels in a row
LABEL_GAP = 0.09  # minimum distance of two labels at a panel's edge, in panel heights
UNJUDGED = ("undertrained", "diverged")  # outcomes that say nothing about the objective; drawn hollow


@matplotlib.rc_context(STYLE)
def exact_match(groups: Sequence[Group]) -> Figure | None:
    """Exact match of every seed, one row per configuration and one panel per task; None if no run is done."""
    panels = group_by((group for group in groups if group.results), lambda group: group.task)
    if not panels:
        return None
    names = [[textwrap.fill(f"{group.objective}, {group.model}", 44) for group in panel] for panel in panels]
    heights = [0.1 + sum(0.15 + 0.12 * (1 + name.count("\n")) for name in panel) for panel in names]  # inches
    figure = Figure(figsize=(7.2, sum(heights) + 0.4 * len(panels) + 0.75), layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes, panel, labels in zip(grid[:, 0], panels, names, strict=True):
        for y, group in enumerate(panel):
            _seeds(axes, y, group)
        axes.axvline(chance_of(panel), **CHANCE)
        axes.set_yticks(range(len(panel)), labels)
        axes.set(xlim=(0, 1), ylim=(len(panel) - 0.5, -0.5))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color="0.92", lw=0.6)
        axes.set_title(panel[0].task, loc="left", fontweight="bold")
    grid[-1, 0].set_xlabel("exact match on the test set")
    models = dict.fromkeys(group.runs[0].model for panel in panels for group in panel)
    keys = [_dot(marker(model), label=model, color="0.5") for model in models]
    if any(outcome in UNJUDGED for panel in panels for group in panel for outcome in group.outcomes):
        keys.append(_dot("o", label=" or ".join(UNJUDGED), mfc="white", mec="0.5"))
    keys += [_dot("|", label="mean over seeds", **MEAN), Line2D([], [], **CHANCE, label="chance, 1/d")]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 4))
    return figure


def _seeds(axes: Axes, y: int, group: Group) -> None:
    """Draw one row: a dot per seed, hollow if its outcome says nothing about the objective."""
    shade, shape, results = colour(group.objective), marker(group.runs[0].model), group.results
    spread = np.linspace(-0.2, 0.2, len(results)) if len(results) > 1 else [0.0]
    for offset, result in zip(spread, results, strict=True):
        look: dict[str, Any] = {"mfc": shade, "mec": "0.2", "mew": 0.5}
        if result.outcome in UNJUDGED:
            look = {"mfc": "white", "mec": shade, "mew": 1.3}
        axes.plot(result.exact_match.value, y + offset, shape, ms=5, zorder=3, clip_on=False, **look)
    axes.plot(np.mean([result.exact_match.value for result in results]), y, "|", zorder=2, clip_on=False, **MEAN)
    _beside(axes, 1.03, y, group.ended, fontsize=7, color="0.3")


def _beside(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    """Write text to the right of a panel: x in axes widths, y in data coordinates."""
    axes.annotate(text, (x, y), xycoords=("axes fraction", "data"), va="center", **look)


def _dot(shape: str, **look: Any) -> Line2D:
    return Line2D([], [], ls="", marker=shape, **{"ms": 5} | look)


@matplotlib.rc_context(STYLE)
def tokens(groups: Sequence[Group]) -> Figure | None:
    """Generated accuracy of every position during training, one panel per configuration; None without curves.

    Each row holds one task, and one model if there are many panels. The mean over seeds keeps the last value of a
    finished run, since it may have stopped early because it was solved.
    """
    panels = [(group, curves) for group in groups if (curves := _curves(group))]
    if not panels:
        return None
    rows = []
    for same in group_by(panels, lambda panel: panel[0].task):
        models = [same] if len(same) <= WIDEST else group_by(same, lambda panel: panel[0].runs[0].model)
        rows += [block[i : i + WIDEST] for block in models for i in range(0, len(block), WIDEST)]
    columns = max(map(len, rows))
    figure = Figure(figsize=(max(1.85 * columns + 0.4, 4.4), 1.95 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False, sharey=True)
    for axes, row in zip(grid, rows, strict=True):
        for place, (group, curves) in zip(axes, row, strict=False):
            lines(place, group, curves)
            titled(place, group.objective, f"{group.task}, {group.model}\n{group.so_far}", colour(group.objective))
        for place in axes[len(row) :]:
            place.set_axis_off()
        axes[0].set_ylabel("accuracy")
    figure.supxlabel("training problems seen", fontsize=8)
    legend(figure, [group for group, _ in panels], 3 if columns > 2 else 2)
    return figure


def lines(axes: Axes, group: Group, curves: list[tuple[Curve, bool]], cheat: bool = True) -> None:
    """Draw accuracies during training: each position, with the mean over seeds in bold, and the cheat.

    Args:
        curves: curve of each seed, and whether that run is done.
    """
    length, hard = group.runs[0].facts.length, group.runs[0].facts.hard_position
    samples, mean = _mean(curves)
    shape = "." if len(samples) == 1 else ""  # a single point draws no line
    for position in sorted(range(length), key=lambda i: i == hard):  # the hard token on top
        look = _look(position, length, hard)
        for curve, _ in curves if len(curves) > 1 else []:
            axes.plot(curve.samples, np.array(curve.tokens)[:, position], **look | {"lw": 0.5, "alpha": 0.4})
        axes.plot(samples, mean[:, position], marker=shape, **look)
    names = [*map(str, range(length)), "cheat"] if cheat else [*map(str, range(length))]
    if cheat:
        axes.plot(samples, mean[:, length], marker=shape, **CHEAT)
    axes.axhline(group.chance, **CHANCE)
    _end_labels(axes, dict(zip(names, mean[-1], strict=False)), str(hard))
    axes.set(ylim=(-0.02, 1.03), yticks=(0, 0.5, 1), xlim=(0, samples[-1] * 1.02))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(3))


def titled(axes: Axes, title: str, text: str, shade: str) -> None:
    """Put a title, a short text and a coloured line above a panel."""
    under = "\n".join(line for part in text.splitlines() for line in textwrap.wrap(part, 34))
    axes.annotate(under, (0, 1), (0, 6), "axes fraction", "offset points", va="bottom", fontsize=6.5, color="0.3")
    axes.set_title(title, loc="left", fontweight="bold", pad=9 + 8 * (1 + under.count("\n")))
    axes.spines["top"].set(visible=True, color=shade, linewidth=3, position=("outward", 3))


def _curves(group: Group) -> list[tuple[Curve, bool]]:
    """The curves of a group's runs, and whether each run is done."""
    found = [(run.curve(), run.state == "done") for run in group.runs]
    return [(curve, done) for curve, done in found if curve]


def _mean(curves: list[tuple[Curve, bool]]) -> tuple[Array, Array]:
    """Training problems seen (T), and means over seeds of each position and, last, of the cheat (T, L + 1)."""
    samples = np.unique(np.concatenate([curve.samples for curve, _ in curves]))
    seeds = []
    for curve, done in curves:
        values = np.column_stack([curve.tokens, curve.cheat])
        seeds.append([np.interp(samples, curve.samples, column, np.nan, column[-1] if done else np.nan)
                      for column in values.T])  # fmt: skip
    return samples, np.ma.masked_invalid(seeds).mean(0).filled(np.nan).T


def _look(position: int, length: int, hard: int | None) -> dict[str, Any]:
    """Line style of a position: the further from the start, the darker; the hard token stands out."""
    if position == hard:
        return {"color": WRONG, "lw": 2.4, "zorder": 4}
    if position == 0:
        return {"color": "0.75", "lw": 1.2, "zorder": 2}
    shade = matplotlib.colormaps["YlGnBu"](0.4 + 0.6 * (position - 2) / max(length - 3, 1))
    return {"color": shade, "lw": 1.5, "zorder": 3}


def _end_labels(axes: Axes, last: dict[str, float], hard: str) -> None:
    """Label the lines at the right edge: positions and the cheat; lines that end close together share a label."""
    left = {name: value for name, value in last.items() if np.isfinite(value)}
    while left:
        top = max(left.values())
        near = [name for name, value in left.items() if top - value < LABEL_GAP]
        left = {name: value for name, value in left.items() if name not in near}
        look: dict[str, Any] = {"color": WRONG, "fontweight": "bold"} if near == [hard] else {"color": "0.3"}
        _beside(axes, 1.02, top, _in_short(near), fontsize=6.5, **look)


def _in_short(names: list[str]) -> str:
    """Positions in order, then other names: `0, 2-4, cheat`."""
    numbers = [int(name) for name in names if name.isdecimal()]
    runs = group_by(
        enumerate(numbers), lambda pair: pair[1] - pair[0]
    )  # consecutive numbers have the same offset from their index
    parts = [str(run[0][1]) if len(run) == 1 else f"{run[0][1]}-{run[-1][1]}" for run in runs]
    return ", ".join(parts + [name for name in names if not name.isdecimal()])


def legend(figure: Figure, groups: Sequence[Group], columns: int, cheat: bool = True) -> None:
    """Draw the legend above all panels, in the terms of the task with the longest answers."""
    known = max((group.runs[0].facts for group in groups), key=lambda facts: facts.length)
    (hard_one, others, first), hard, length = known.places, known.hard_position, known.length
    keys: dict[str, Any] = {
        others: tuple(Line2D([], [], **_look(i, length, hard)) for i in range(2, length)),
        first: Line2D([], [], **_look(0, length, hard)),
        "cheat: the rest, given the first hop": Line2D([], [], **CHEAT),
        "chance, 1/d": Line2D([], [], **CHANCE),
    }
    if length == 2:
        keys.pop(others)
    if hard is not None:
        keys = {hard_one: Line2D([], [], **_look(hard, length, hard)), **keys}
    if not cheat:
        keys.pop("cheat: the rest, given the first hop")
    handlers = {tuple: HandlerTuple(ndivide=None, pad=0)}
    figure.legend(keys.values(), keys, loc="outside upper center", ncols=columns, handler_map=handlers)
