"""Any logged metric of several runs: its table, and its figure over training."""

import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from statistics import fmean
from textwrap import shorten
from typing import Any

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


def full_name(metric: str) -> str:
    """`split/column`; a column alone is of the validation set."""
    return metric if "/" in metric else f"validation/{metric}"


def series(run: Run, metric: str) -> list[tuple[float, float]]:
    """Training problems seen and finite values of a metric, in this order; empty if the run has none.

    Args:
        metric: `split/column` of metrics.csv.
    """
    split, _, column = metric.partition("/")
    rows = [row for row in _rows(run) if row.get("split") == split]
    try:
        batch = run.identity.settings["data"]["batch_size"]
        found = [(number(row, "step") * batch, number(row, column)) for row in rows]
        return sorted(each for each in found if all(map(math.isfinite, each)))
    except (LookupError, TypeError):  # somebody else's folder may have any settings
        return []


def require(collection: Collection, metric: str) -> None:
    """Refuse a metric of which no run has logged a finite value.

    Raises:
        UserError: names the nearest ones that there are.
    """
    runs = [run for group in collection.groups for run in group.runs]
    if not any(series(run, metric) for run in runs):
        every = {name for run in runs for name in _logged(run)} - {metric}
        near = get_close_matches(metric, sorted(every), 3, 0.4) or sorted(every)[:8]
        hint = f"choose one of those logged, such as {', '.join(near)}" if near else "they have logged nothing"
        raise UserError(f"--metric {metric}: no run has logged a finite value of it: {hint}")


def _rows(run: Run) -> list[Row]:
    try:
        return read_rows(RunFolder(run.folder).metrics_csv)
    except UserError:
        return []


def _logged(run: Run) -> set[str]:
    return {
        f"{row['split']}/{key}" for row in _rows(run) if "split" in row for key in row if key not in ("split", "step")
    }


def grids(collection: Collection, metric: str) -> list[Grid]:
    """A table per task, with a row per group: means over the seeds that have logged the metric."""
    made = []
    for groups in group_by(collection.groups, lambda group: group.task):
        rows = [_row(group, metric) for group in groups if any(series(run, metric) for run in group.runs)]
        if rows:
            made.append(Grid(f"{groups[0].task}, {metric}", COLUMNS, rows, groups[0].task))
    return made


def _row(group: Group, metric: str) -> list[str]:
    values = [[value for _, value in found] for run in group.runs if (found := series(run, metric))]
    shown = [fmean(pick(each) for each in values) for pick in (lambda v: v[0], lambda v: v[-1], min, max)]
    return [group.objective, group.model, str(len(values)), *(f"{value:.4g}" for value in shown)]


@matplotlib.rc_context(STYLE)
def draw(collection: Collection, metric: str) -> Figure:
    """One panel per task and a line per run, over training problems seen."""
    panels = [[group for group in groups if any(series(run, metric) for run in group.runs)]
              for groups in group_by(collection.groups, lambda group: group.task)]  # fmt: skip
    panels = [groups for groups in panels if groups]
    figure = Figure(figsize=(6.4, 2.6 * len(panels) + 0.3), layout="constrained")
    for axes, groups in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        for number_of, group in enumerate(groups):
            _lines(axes, group, metric, ("-", "--", ":", "-.")[number_of % 4] if group.differs else "-")
        axes.set_title(groups[0].task, loc="left", fontweight="bold")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylabel(metric)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.supxlabel("training problems seen", fontsize=8)
    return figure


def _lines(axes: matplotlib.axes.Axes, group: Group, metric: str, dashes: str) -> None:
    labels: Sequence[str | None] = [shorten(f"{group.objective}, {group.model}", 40, placeholder="...")]
    for run in group.runs:
        if found := series(run, metric):
            seen, values = zip(*found, strict=True)
            shape = "." if len(found) == 1 else ""
            look: dict[str, Any] = {"color": colour(group.objective), "ls": dashes, "lw": 1.2, "marker": shape}
            axes.plot(seen, values, label=labels[0], **look)
            labels = [None]


def write(collection: Collection, metric: str, files: Inside) -> list[Path]:
    """Write the figure beside those of a report; returns its paths."""
    name = f"metric_{re.sub(r'[^A-Za-z0-9]', '_', metric)}"
    drawn = render(draw(collection, metric))
    for suffix, content in drawn.items():
        files.write(f"figures/{name}.{suffix}", content)
    return [files.root / "figures" / f"{name}.{suffix}" for suffix in drawn]
