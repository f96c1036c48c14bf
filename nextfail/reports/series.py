"""Any logged metric of several runs: its table, and its figure over training."""

import math
import re
from difflib import get_close_matches
from pathlib import Path
from statistics import fmean
from textwrap import shorten

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from nextfail.errors import UserError
from nextfail.files import Inside
from nextfail.reports.collect import Collection, Group, group_by
from nextfail.reports.formats import Grid
from nextfail.reports.record import Run
from nextfail.reports.style import STYLE, colour, render
from nextfail.runs.folder import RunFolder
from nextfail.runs.table import Row, number, read_rows

COLUMNS = ("objective", "model", "seeds", "first", "last", "smallest", "largest")

Point = tuple[float, float]  # training problems seen, value
Curves = tuple[Group, list[list[Point]]]


def full_name(metric: str, collection: Collection) -> str:
    """`split/column`; a column alone is of the validation set, or of the only split that has logged it."""
    if "/" in metric:
        return metric
    found = [name for name in _every(collection) if name.endswith(f"/{metric}")]
    return found[0] if len(found) == 1 else f"validation/{metric}"


def series(run: Run, metric: str) -> list[Point]:
    """Training problems seen and finite values of a metric, in this order; empty if the run has none.

    Args:
        metric: `split/column` of metrics.csv.
    """
    split, _, column = metric.partition("/")
    rows = [row for row in _rows(run) if row.get("split") == split]
    try:
        found = [(number(row, "step") * run.batch, number(row, column)) for row in rows]
        return sorted(each for each in found if all(map(math.isfinite, each)))
    except (LookupError, TypeError, ValueError):  # somebody else's folder may have any settings
        return []


def gather(collection: Collection, metric: str) -> list[list[Curves]]:
    """The groups of each task that have logged a metric, each with the `series` of its runs.

    Raises:
        UserError: no run has logged a finite value of it; names the nearest metrics that there are.
    """
    held = [(group, [found for run in group.runs if (found := series(run, metric))]) for group in collection.groups]
    if kept := [(group, curves) for group, curves in held if curves]:
        return group_by(kept, lambda each: each[0].task)
    every = _every(collection) - {metric}
    near = get_close_matches(metric, sorted(every), 3, 0.4) or sorted(every)[:8]
    hint = f"choose one of those logged, such as {', '.join(near)}" if near else "they have logged nothing"
    raise UserError(f"--metric {metric}: no run has logged a finite value of it: {hint}")


def _rows(run: Run) -> list[Row]:
    try:
        return read_rows(RunFolder(run.folder).metrics_csv)
    except UserError:
        return []


def _every(collection: Collection) -> set[str]:
    """Names of all metrics that some run has logged."""
    return {name for group in collection.groups for run in group.runs for name in _logged(run)}


def _logged(run: Run) -> set[str]:
    return {
        f"{row['split']}/{key}" for row in _rows(run) if "split" in row for key in row if key not in ("split", "step")
    }


def grids(tasks: list[list[Curves]], metric: str) -> list[Grid]:
    """A table per task, with a row per group: means over the seeds that have logged the metric."""
    return [_grid(same[0][0].task, same, metric) for same in tasks]


def _grid(task: str, groups: list[Curves], metric: str) -> Grid:
    return Grid(f"{task}, {metric}", COLUMNS, [_row(*each) for each in groups], task)


def _row(group: Group, curves: list[list[Point]]) -> list[str]:
    values = [[value for _, value in curve] for curve in curves]
    shown = [fmean(pick(each) for each in values) for pick in (lambda v: v[0], lambda v: v[-1], min, max)]
    return [group.objective, group.model, str(len(values)), *(f"{value:.4g}" for value in shown)]


@matplotlib.rc_context(STYLE)
def draw(tasks: list[list[Curves]], metric: str) -> Figure:
    """One panel per task and a line per run, over training problems seen."""
    figure = Figure(figsize=(6.4, 2.6 * len(tasks) + 0.3), layout="constrained")
    for axes, same in zip(figure.subplots(len(tasks), 1, squeeze=False)[:, 0], tasks, strict=True):
        for i, (group, curves) in enumerate(same):
            _lines(axes, group, curves, ("-", "--", ":", "-.")[i % 4] if group.differs else "-")
        axes.set_title(same[0][0].task, loc="left", fontweight="bold")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylabel(metric)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.supxlabel("training problems seen", fontsize=8)
    return figure


def _lines(axes: matplotlib.axes.Axes, group: Group, curves: list[list[Point]], dashes: str) -> None:
    label: str | None = shorten(f"{group.objective}, {group.model}", 40, placeholder="...")
    for curve in curves:
        seen, values = zip(*curve, strict=True)
        shape = "." if len(curve) == 1 else ""
        axes.plot(seen, values, label=label, color=colour(group.objective), ls=dashes, lw=1.2, marker=shape)
        label = None


def write(tasks: list[list[Curves]], metric: str, files: Inside) -> list[Path]:
    """Write the figure beside those of a report; returns its paths."""
    name = f"metric_{re.sub(r'[^A-Za-z0-9]', '_', metric)}"
    drawn = render(draw(tasks, metric))
    for suffix, content in drawn.items():
        files.write(f"figures/{name}.{suffix}", content)
    return [files.root / "figures" / f"{name}.{suffix}" for suffix in drawn]
