"""Figures of a claim: measured against published values, and forced against generated accuracy."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nextfail.reports.collect import Group
from nextfail.reports.figures import UNJUDGED, legend, lines, titled
from nextfail.reports.style import CHANCE, STYLE, colour, marker
from nextfail.studies.pitfalls.claims import Cell, Claim

PUBLISHED: dict[str, Any] = {"color": "0.84", "zorder": 0}
NARROWEST = 0.012  # minimum width of a published range, as a fraction of the axis
METRICS = {
    "exact_match": "exact match on the test set",
    "hard_token_accuracy": "accuracy of the hard token on the test set",
    "cheat_accuracy": "share of test paths completed from the first hop on",
}
PANELS = {  # panels of `forced`: split and kind of the curve
    "forced, training set": ("train_set", "forced_token_accuracy"),
    "forced, held out": ("validation", "forced_token_accuracy"),
    "generated, training set": ("train_set", "token_accuracy"),
    "generated, held out": ("validation", "token_accuracy"),
}


@matplotlib.rc_context(STYLE)
def dots(claim: Claim, cells: Sequence[Cell]) -> Figure | None:
    """One dot with interval per seed, on top of the published range, for every configuration; None without results."""
    rows = [(cell, group) for cell in cells for group, _ in cell.rows if group.results]
    if not rows:
        return None
    names = [textwrap.fill(f"{cell.graph}, {group.model}", 36) for cell, group in rows]
    heights = [0.3 + 0.13 * name.count("\n") for name in names]  # inches, like the y axis
    places = np.cumsum(heights) - np.array(heights) / 2
    figure = Figure(figsize=(7.2, sum(heights) + 1.05), layout="constrained")
    axes = figure.subplots()
    for y, (cell, group) in zip(places, rows, strict=True):
        _row(axes, y, claim, cell, group)
    axes.set_yticks(places, names)
    axes.set(xlim=(0, 1), ylim=(sum(heights), 0), xlabel=METRICS[claim.metric])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="0.92", lw=0.6)
    models = dict.fromkeys(group.runs[0].model for _, group in rows)
    keys: list[Any] = [Line2D([], [], ls="", marker=marker(model), ms=5, color="0.5", label=model) for model in models]
    if any(outcome in UNJUDGED for _, group in rows for outcome in group.outcomes):
        keys.append(Line2D([], [], ls="", marker="o", ms=5, mfc="white", mec="0.5", label=" or ".join(UNJUDGED)))
    if any(cell.graph in claim.published for cell, _ in rows):
        keys.append(Patch(**PUBLISHED, label="published"))
    keys.append(Line2D([], [], **CHANCE, label="chance, 1/d"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    return figure


def _row(axes: Axes, y: float, claim: Claim, cell: Cell, group: Group) -> None:
    """Draw one configuration: published range, chance, and each seed with its Wilson interval."""
    if cell.graph in claim.published:
        low, high = claim.published[cell.graph]
        low = min(low, high - NARROWEST)
        axes.barh(y, high - low, 0.22, low, **PUBLISHED)
    axes.vlines(group.chance, y - 0.12, y + 0.12, colors=CHANCE["color"], linestyles=":", lw=CHANCE["lw"], zorder=1)
    results = [(result, share) for result in group.results if (share := claim.measured(result))]
    shade, shape = colour(group.objective), marker(group.runs[0].model)
    spread = np.linspace(-0.07, 0.07, len(results)) if len(results) > 1 else [0.0]
    for offset, (result, share) in zip(spread, results, strict=True):
        axes.hlines(y + offset, share.low, share.high, colors=shade, lw=1, zorder=2)
        face = "white" if result.outcome in UNJUDGED else shade
        axes.plot(share.value, y + offset, shape, ms=4, mfc=face, mec=shade if face == "white" else "0.2", mew=0.6,
                  zorder=3, clip_on=False)  # fmt: skip
    axes.annotate(group.ended, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=7, color="0.3")


@matplotlib.rc_context(STYLE)
def forced(groups: Sequence[Group]) -> Figure | None:
    """Accuracy of every position during training, forced and generated, on training and held-out problems.

    One row per configuration; None if no run has such curves.
    """
    rows = [group for group in groups if any(run.curve(*PANELS["forced, held out"]) for run in group.runs)]
    if not rows:
        return None
    figure = Figure(figsize=(7.4, 1.75 * len(rows) + 0.6), layout="constrained")
    grid = figure.subplots(len(rows), len(PANELS), squeeze=False, sharex="row", sharey=True)
    for place, group in zip(grid, rows, strict=True):
        for axes, (name, (split, kind)) in zip(place, PANELS.items(), strict=True):
            curves = [(curve, run.state == "done") for run in group.runs if (curve := run.curve(split, kind))]
            if curves:
                lines(axes, group, curves, cheat=False)
            else:
                axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="0.5", fontsize=7)
            titled(axes, name, f"{group.task}, {group.model}", colour(group.objective))
        place[0].set_ylabel("accuracy")
    figure.supxlabel("training problems seen", fontsize=8)
    legend(figure, rows, 4, cheat=False)
    return figure
