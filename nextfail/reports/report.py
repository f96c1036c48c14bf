"""The report on a collection of runs: tables, sentences, results.csv, report.md and figures."""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.table import Table

from nextfail.errors import UserError
from nextfail.files import Inside, read_text
from nextfail.reports import leaderboard
from nextfail.reports.collect import Collection, Group, chance_of, group_by, telling
from nextfail.reports.formats import Grid, as_markdown
from nextfail.reports.record import COSTS, Run
from nextfail.runs.identity import SECTIONS
from nextfail.runs.table import csv_text
from nextfail.text import line, markdown

MARK = "<!-- written by nextfail-report, which replaces it -->"
FIGURES = {
    "exact_match": "Exact match on the test set. Every seed is a dot, and hollow where its outcome says nothing about "
    "the objective.",
    "tokens": "Accuracy of each generated position on the validation set, over training. Bold: the mean over seeds, in "
    "which a run that ended early keeps its last value. The labels at the right name the curves.",
    "costs": "Left: exact match on the validation set (of first_hop_only, the hard token) against FLOPs of training, a "
    "line per seed. Right: FLOPs until 0.95, a dot per seed and a bar at the median; hollow if it was never reached.",
    "paths": "One test problem, and what each model generated for it: of the first problems, the one on which the "
    "models differ most. Wrong tokens are highlighted.",
}
SUFFIXES = ("png", "svg")
SHARES = ("exact_match", "hard_token_accuracy", "cheat_accuracy")  # always columns of results.csv
NOTES = ("accuracies and samples (training problems seen) are means over the seeds that are done",)
PROBLEM_COLUMNS = ("folder", "state", "why")


def table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a task's table, one row per group."""
    metrics = groups[0].runs[0].facts.columns
    columns = ["objective", "model", "exact match", "every seed", "solved", *metrics, "outcome", "samples"]
    return columns, [_row(group, list(metrics.values())) for group in groups]


def _row(group: Group, metrics: Sequence[str]) -> list[str]:
    exact = [f"{result.exact_match.value:.3f}" for result in group.results]
    means = [_number(group.mean(metric)) for metric in ("exact_match", *metrics)]
    solved = f"{group.outcomes.get('solved', 0)}/{len(exact)}"
    samples = f"{fmean(result.samples_seen for result in group.results):,.0f}"
    return [group.objective, group.model, means[0], " ".join(exact), solved, *means[1:], group.ended, samples]


def heading(task: str, groups: Sequence[Group]) -> str:
    """The title of a task's table."""
    chance = chance_of(groups)
    return task if math.isnan(chance) else f"{task}, chance {chance:.3f}"


def in_words(collection: Collection) -> list[str]:
    """The findings, one sentence per task."""
    sentences = []
    for task, groups in collection.by_task.items():
        chance = chance_of(groups)
        known = "" if math.isnan(chance) else f", where chance is {chance:.3f}"
        sentences.append(f"On {task}{known}, {_sentence(groups)}.")
    return sentences


def _sentence(groups: Sequence[Group]) -> str:
    says = groups[0].runs[0].facts.says
    outcomes = dict.fromkeys([*says, *(outcome for group in groups for outcome in group.outcomes)])
    clauses = []
    for outcome in outcomes:
        names = []
        for group in groups:
            metric = group.runs[0].judged_by
            ended = [run for run in group.runs if run.result and run.result.outcome == outcome]
            if scores := [run.shares[metric].value for run in ended if metric in run.shares]:
                judged = metric.removesuffix("_accuracy").replace("_", " ")
                share = f"{len(scores)} of {len(group.results)} seeds, {judged} {fmean(scores):.3f}"
                names.append(f"{group.objective} with {group.model} ({share})")
        if names:
            subject = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
            clauses.append(f"{subject} {says.get(outcome, f'ended {outcome}')}")
    return "; ".join(clauses)


def grids(collection: Collection) -> list[Grid]:
    """The tables: of each task, what its groups scored and, if there are several, what they took."""
    made = []
    for task, groups in collection.by_task.items():
        columns, rows = table(groups)
        made.append(Grid(heading(task, groups), columns, rows, task))
        if took := _took(collection, task):
            made.append(Grid(f"{task}, costs, best first", leaderboard.COLUMNS, took, task))
    return made


def print_report(collection: Collection, console: Console) -> None:
    """Print tables, sentences and problems."""
    for grid in grids(collection):
        print_grid(console, grid)
    print_words(collection, console)


def print_words(collection: Collection, console: Console) -> None:
    """Print sentences and problems."""
    for sentence in in_words(collection):
        console.print(line(sentence))
    if collection.problems:
        print_grid(console, _problems(collection))


def _took(collection: Collection, task: str) -> list[list[str]]:
    """Cost table of a task, including groups without a result; empty if there is only one group."""
    groups = [group for group in collection.groups if group.task == task]
    return [leaderboard.row(group, groups) for group in leaderboard.ranked(groups)] if len(groups) > 1 else []


def print_grid(console: Console, grid: Grid) -> None:
    """Print a table in a terminal."""
    table = Table(title=grid.title, title_justify="left")
    for column, *cells in zip(grid.columns, *grid.rows, strict=True):
        widest = max(map(len, (*cells, *column.split())), default=1)
        table.add_column("\n".join(wrap(column, widest)), overflow="fold")  # a header is no wider than its cells
    for row in grid.rows:
        table.add_row(*row)
    console.print(table)


def claim(out: Path) -> None:
    """Check that writing the report would replace nothing but an earlier report.

    Raises:
        UserError: the folder contains other files of the same names, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: choose a folder")
    names = ("report.md", "results.csv", "index.html", "claims.csv", "figures")
    theirs = [name for name in names if os.path.lexists(out / name)]
    if theirs and not _earlier(out / "report.md"):
        raise UserError(f"{out} has {' and '.join(theirs)}, and not from an earlier report: choose another --out")


def _earlier(path: Path) -> bool:
    """Whether a report.md was written by nextfail-report."""
    try:
        return read_text(path, follow=False).startswith(MARK)
    except (OSError, ValueError):
        return False


def write(collection: Collection, files: Inside) -> list[Path]:
    """Write report.md, results.csv and figures into a folder; returns their paths.

    Raises:
        UserError: as `claim`, or the folder cannot be written.
    """
    claim(files.root)
    figures = draw(collection)
    files.write("report.md", page(collection, figures))  # first: its mark identifies the folder as a report's
    files.write("results.csv", table_csv(collection))
    for file in files.names("figures"):
        name, _, suffix = file.partition(".")
        if (name in FIGURES or name.startswith("paths_")) and suffix in SUFFIXES and name not in figures:
            files.remove(f"figures/{file}")  # left by an earlier report
    for name in figures:
        for suffix in SUFFIXES:
            files.write(f"figures/{name}.{suffix}", figures[name][suffix])
    made = [files.root / "figures" / f"{name}.{suffix}" for name in figures for suffix in SUFFIXES]
    return [files.root / "report.md", files.root / "results.csv", *made]


def draw(collection: Collection) -> dict[str, dict[str, bytes]]:
    """Every figure for which there is data, by name and suffix."""
    from nextfail.reports import budget, figures, style  # slow to import; tables do not need them

    drawn = {
        "exact_match": figures.exact_match(collection.groups),
        "tokens": figures.tokens(collection.groups),
        "costs": budget.costs(collection.groups),
    }
    for made in group_by(collection.groups, lambda group: group.runs[0].facts.figure):
        if draws := made[0].runs[0].facts.figure:
            drawn[made[0].runs[0].facts.figure_name] = draws(made)
    return {name: style.render(figure) for name, figure in drawn.items() if figure}


def table_csv(collection: Collection) -> str:
    """results.csv: the rows of `records`."""
    rows = records(collection)
    return csv_text(list(rows[0]) if rows else ["task"], rows)


def records(collection: Collection) -> list[dict[str, Any]]:
    """One row per run with a readable identity, done or not, with a column for each setting that differs."""
    runs = [(group, run) for group in collection.groups for run in group.runs]
    sizes = list(dict.fromkeys(size for _, run in runs for size in run.facts.sizes))
    # task sizes and class names have columns already
    keys = [key for key in telling([run for _, run in runs])
            if key.removeprefix("task.") not in sizes and key not in SECTIONS]  # fmt: skip
    others = dict.fromkeys(metric for _, run in runs for metric in run.shares if metric not in SHARES)
    return [
        _record(group, run, sizes, [*others]) | {key: run.identity.flat.get(key) for key in keys} for group, run in runs
    ]


def _record(group: Group, run: Run, sizes: Sequence[str], others: Sequence[str] = ()) -> dict[str, Any]:
    result = run.result
    exact, hard, cheat = (run.shares.get(key) for key in SHARES)
    return {
        "task": group.task,
        **{size: run.facts.sizes.get(size) for size in sizes},
        "model": run.model,
        "objective": run.objective,
        "differs": group.differs,
        "seed": run.seed,
        "outcome": result.outcome if result else "",
        "state": run.state,
        "exact_match": exact and exact.value,
        "exact_match_low": exact and exact.low,
        "exact_match_high": exact and exact.high,
        "exact_match_n": exact and exact.n,
        "hard_token_accuracy": hard and hard.value,
        "hard_token_accuracy_low": hard and hard.low,
        "hard_token_accuracy_high": hard and hard.high,
        "cheat_accuracy": cheat and cheat.value,
        **{metric: (share := run.shares.get(metric)) and share.value for metric in others},
        "samples_to_solved": result and leaderboard.to_solved(run),
        **{cost: getattr(result, cost, None) for cost in COSTS},
        "identity": run.hash,
        "git_commit": result and result.git_commit,
        "folder": str(run.folder),
    }


def page(collection: Collection, figures: Iterable[str]) -> str:
    """The text of report.md, with the given figures embedded."""
    parts = [MARK, "# Report", *map(markdown, in_words(collection))]
    for grid in grids(collection):
        parts += [f"## {markdown(grid.title)}", as_markdown(grid)]
    seen = dict.fromkeys(outcome for group in collection.groups for outcome in group.outcomes)
    known = {outcome: words for group in collection.groups for outcome, words in group.runs[0].facts.outcomes.items()}
    notes = dict.fromkeys(note for group in collection.groups for note in group.runs[0].facts.notes)
    meanings = [f"{outcome}: {known[outcome]}" for outcome in seen if outcome in known]
    parts.append("\n".join(f"- {line}" for line in [*NOTES, *notes, *leaderboard.NOTES, *meanings]))
    for name in figures:
        caption = FIGURES.get(name, FIGURES["paths"])
        parts.append(f"![{caption}](figures/{name}.png)\n\n{caption} ([SVG](figures/{name}.svg))")
    if collection.problems:
        parts += ["## Not done, or damaged", as_markdown(_problems(collection))]
    return "\n\n".join([*parts, "Every run is a row of [results.csv](results.csv)."]) + "\n"


def _problems(collection: Collection) -> Grid:
    rows = [[str(problem.folder), problem.state, line(problem.reason)] for problem in collection.problems]
    return Grid("not done, or damaged", PROBLEM_COLUMNS, rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
