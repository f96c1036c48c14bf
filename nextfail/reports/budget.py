"""The figure of costs: exact match against FLOPs, and what each seed needed until 0.95."""

from collections.abc import Sequence
from statistics import median
from textwrap import shorten

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from nextfail.reports.collect import Group, chance_of, group_by
from nextfail.reports.leaderboard import cost, flops_a_problem, judged, ranked
from nextfail.reports.record import Run
from nextfail.reports.style import CHANCE, STYLE, colour, marker

NEVER = "never"
WIDEST = 36  # characters of a label


@matplotlib.rc_context(STYLE)
def costs(groups: Sequence[Group]) -> Figure | None:
    """Two panels per task with several groups; None if there is no such task, or nothing to draw.

    Left: exact match on the validation set (of first_hop_only, the hard token) against FLOPs of training, a line per
    seed. Right: FLOPs until 0.95, a dot per seed and a bar at the median, best group first; seeds that never reached it
    are hollow, at the end.
    """
    tasks = [ranked(same) for same in group_by(groups, lambda group: group.task) if len(same) > 1]
    tasks = [kept for same in tasks if len(kept := [group for group in same if any(map(curve, group.runs))]) > 1]
    if not tasks:
        return None
    heights = [max(2.2, 0.2 * len(same) + 0.5) for same in tasks]
    figure = Figure(figsize=(7.6, sum(heights) + 0.4), layout="constrained")
    grid = figure.subplots(len(tasks), 2, squeeze=False, height_ratios=heights)
    for (left, right), same in zip(grid, tasks, strict=True):
        most = max(found[0][-1] for group in same for run in group.runs if (found := curve(run)))
        for group in same:
            _curves(left, group)
        _rows(right, same, most)
        left.axhline(chance_of(same), **CHANCE)
        left.set(ylim=(-0.02, 1.03), yticks=(0, 0.5, 1), ylabel="exact match")
        left.set_title(same[0].task, loc="left", fontweight="bold")
        for axes in (left, right):
            axes.set_xlim(0, most * (1.02 if axes is left else 1.2))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.xaxis.set_major_locator(MaxNLocator(4))
    grid[-1, 0].set_xlabel("FLOPs of training")
    grid[-1, 1].set_xlabel("FLOPs until 0.95")
    return figure


def curve(run: Run) -> tuple[list[float], list[float]] | None:
    """FLOPs of training and exact match at each validation; None if they are unknown."""
    each, found = flops_a_problem(run), judged(run)
    return None if each is None or not found else ([seen * each for seen, _ in found], [value for _, value in found])


def _curves(axes: Axes, group: Group) -> None:
    for flops, exact in filter(None, map(curve, group.runs)):
        shape = marker(group.runs[0].model) if len(flops) == 1 else ""
        axes.plot(flops, exact, color=colour(group.objective), lw=1.1, alpha=0.85, marker=shape, ms=4)


def _rows(axes: Axes, groups: Sequence[Group], most: float) -> None:
    """A row per group, labelled in its colour: the labels are the legend of both panels."""
    for y, group in enumerate(groups):
        shade, shape = colour(group.objective), marker(group.runs[0].model)
        took = cost(group, ())
        reached, left = took.flops, len(group.results) - len(took.problems)
        if reached:
            axes.plot(reached, [y] * len(reached), shape, ms=5, mfc=shade, mec="0.2", mew=0.5, ls="", clip_on=False)
            axes.plot([median(reached)], [y], "|", ms=13, mew=1.6, color="0.15")
        for i in range(left):
            axes.plot(most * (1.08 + 0.04 * i), y, shape, ms=5, mfc="white", mec=shade, mew=1.2, clip_on=False)
    axes.axvline(most * 1.03, color="0.8", lw=0.6)
    place = axes.get_xaxis_transform()
    axes.text(most * 1.05, 1.01, NEVER, transform=place, fontsize=6.5, color="0.3", va="bottom", in_layout=False)
    axes.set(ylim=(len(groups) - 0.5, -0.6))
    alone = len({group.model for group in groups}) == 1
    names = [group.objective if alone else f"{group.objective}, {group.model}" for group in groups]
    axes.set_yticks(range(len(groups)), [shorten(name, WIDEST, placeholder="...") for name in names])
    for label, group in zip(axes.get_yticklabels(), groups, strict=True):
        label.set_color(colour(group.objective))
        label.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="0.92", lw=0.6)
