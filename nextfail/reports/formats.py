"""Tables of a report as text: Markdown, CSV, LaTeX and HTML."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from nextfail.runs.table import csv_text
from nextfail.text import line, markdown

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


@dataclass(frozen=True)
class Grid:
    """A table with a title; cells are plain text, which may come from run folders.

    Args:
        rows: as many cells each as there are columns.
        about: what the title and the first cells are about, such as a task: tables about the same thing are joined in
            CSV, where rows with the same cells in shared columns become one.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    about: str = ""


def as_markdown(grid: Grid) -> str:
    """A table in Markdown, without its title."""
    escaped = [[markdown(cell) for cell in row] for row in grid.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [grid.columns, ["---"] * len(grid.columns), *escaped])


def as_csv(grids: Sequence[Grid]) -> str:
    """One table of everything: a row for each thing that the tables have rows about."""
    columns = dict.fromkeys(["task", *(column for grid in grids for column in grid.columns)])
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for grid in grids:
        for row in grid.rows:
            cells = dict(zip(grid.columns, map(_plain, row), strict=True))
            key = (grid.about, *(cells.get(name, "") for name in ("objective", "model", "seed")))
            rows[key] = rows.get(key, {"task": grid.about}) | cells
    return csv_text(list(columns), rows.values())


def _plain(cell: str) -> str:
    """A cell for programs: no thousands separators, and nothing where there is no value."""
    digits = cell.replace(",", "")
    return digits if digits.isdigit() else "" if cell == "-" else cell


def as_latex(grids: Sequence[Grid]) -> str:
    """Tables for LaTeX with the package booktabs; numbers are aligned to the right."""
    return "\n\n".join(map(_latex, grids)) + "\n"


def _latex(grid: Grid) -> str:
    columns = zip(*grid.rows, strict=True) if grid.rows else [()] * len(grid.columns)
    places = "".join("r" if any(map(_numeric, cells)) else "l" for cells in columns)
    rows = [" & ".join(map(latex, row)) + r" \\" for row in (grid.columns, *grid.rows)]
    body = "\n".join([r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"])
    return f"% {latex(grid.title)}\n\\begin{{tabular}}{{{places}}}\n{body}\n\\end{{tabular}}"


def latex(text: str) -> str:
    """Text for LaTeX, on one line and without commands."""
    return "".join(_LATEX.get(character, character) for character in line(text))


def _numeric(cell: str) -> bool:
    return cell[:1].isdigit()


def as_html(grids: Sequence[Grid]) -> str:
    """Tables for an HTML page, without styles."""
    return "\n".join(map(_html, grids)) + "\n"


def _html(grid: Grid) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(line(cell))}</{tag}>" for cell in row) + "</tr>"

    body = "\n".join(cells("td", row) for row in grid.rows)
    head = f"<caption>{escape(line(grid.title))}</caption>\n<thead>{cells('th', grid.columns)}</thead>"
    return f"<table>\n{head}\n<tbody>\n{body}\n</tbody>\n</table>"


FORMATS: dict[str, Callable[[Sequence[Grid]], str]] = {"csv": as_csv, "latex": as_latex, "html": as_html}
"""How `nextfail-report --format` prints its tables."""
