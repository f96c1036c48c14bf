"""Write the claims: a self-contained index.html, claims.csv, and each figure."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from statistics import fmean

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table

from nextfail import __version__
from nextfail.files import Inside
from nextfail.reports.collect import Collection, Group
from nextfail.runs.table import csv_text
from nextfail.studies.pitfalls import verdict
from nextfail.studies.pitfalls.claims import CLAIMS, GRAPHS, MODELS, Cell, Claim, Range, beside, cells
from nextfail.studies.pitfalls.verdict import Verdict
from nextfail.text import terminal

FOLDER = "figures/claims"
CAPTIONS = {
    "dots": "Every seed is a dot with its 95 % interval, hollow where its outcome says nothing about the objective; "
    "grey is what was published.",
    "tokens": "Accuracy of each generated position on the validation set, over training.",
    "forced": "Accuracy of each position over training: forced (fed the truth before it) and generated (fed itself), "
    "on problems of the training set and on held-out ones.",
}


@dataclass(frozen=True)
class Row:
    """One configuration's results and verdict on a claim."""

    model: str
    measured: list[str]  # one per seed
    problems: str
    ended: str
    verdict: Verdict


@dataclass(frozen=True)
class Section:
    """A claim with its cells and figures.

    Args:
        figures: SVG files by kind, as in CAPTIONS.
    """

    claim: Claim
    cells: list[Cell]
    figures: dict[str, bytes]

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells per verdict, in the order of verdicts."""
        words = [cell.verdict.word for cell in self.cells]
        return {word: words.count(word) for word in verdict.WORDS if word in words}

    @property
    def words(self) -> dict[tuple[str, str], str]:
        """The verdict for each graph and model."""
        return {(cell.graph, cell.model): cell.verdict.word for cell in self.cells}

    @property
    def missing(self) -> list[str]:
        """Graphs and models without any run."""
        return [f"{cell.graph} {cell.model}" for cell in self.cells if not cell.rows]

    @property
    def commands(self) -> list[str]:
        """Commands that train everything that is missing."""
        return list(dict.fromkeys(cell.command for cell in self.cells if cell.command))

    def rows(self, cell: Cell) -> list[Row]:
        """The configurations of a cell, formatted for printing."""
        return [_row(self.claim, group, found) for group, found in cell.rows]

    def published(self, cell: Cell) -> str:
        """The published number; empty if there is none."""
        return _percent(self.claim.published.get(cell.graph))


def sections(collection: Collection) -> list[Section]:
    """Every claim, tested against a collection of runs."""
    held = [(claim, cells(claim, collection)) for claim in CLAIMS]
    return [Section(claim, found, dict(_figures(claim, found, collection))) for claim, found in held]


def write(collection: Collection, held: Sequence[Section], files: Inside) -> list[Path]:
    """Write page, table and figures into a folder that `report.claim` has checked; returns paths of page and table.

    Raises:
        UserError: they cannot be written.
    """
    figures = {f"{each.claim.name}_{kind}.svg": svg for each in held for kind, svg in each.figures.items()}
    files.write("index.html", html(collection, held))
    files.write("claims.csv", table_csv(held))
    for old in files.names(FOLDER):
        if old.endswith(".svg"):
            files.remove(f"{FOLDER}/{old}")  # left by an earlier report
    for name, svg in figures.items():
        files.write(f"{FOLDER}/{name}", svg)
    return [files.root / "index.html", files.root / "claims.csv"]


def html(collection: Collection, held: Sequence[Section]) -> str:
    """The content of index.html."""
    ran = {column for section in held for column, word in section.words.items() if word != verdict.NOT_RUN}
    environment = Environment(
        loader=PackageLoader("nextfail.studies.pitfalls", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    environment.filters["data_uri"] = lambda svg: f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
    return environment.get_template("page.html").render(
        version=__version__,
        runs=sum(len(group.results) for group in collection.groups),
        columns=sorted(ran, key=_place),
        untouched=[graph for graph in GRAPHS if graph not in collection.by_task],
        sections=held,
        captions=CAPTIONS,
        words=verdict.WORDS,
        level=verdict.LEVEL,
        margin=verdict.EQUAL,
        problems=collection.problems,
    )


def _shown(value: object) -> object:
    """Remove control characters from text on the page; the template then escapes it."""
    return terminal(value) if type(value) is str or isinstance(value, PurePath) else value


def table_csv(held: Sequence[Section]) -> str:
    """claims.csv: one row per claim, graph, model and configuration, or one that states that there is none."""
    columns = ("claim", "graph", "model", "verdict", "why", "seeds", "measured", "published", "problems", "command")
    rows: list[dict[str, object]] = []
    for section in held:
        for cell in section.cells:
            shared = {"claim": section.claim.name, "graph": cell.graph, "published": section.published(cell)}
            for row in section.rows(cell) or [Row(cell.model, [], "", "", cell.verdict)]:
                told = {"verdict": row.verdict.word, "why": row.verdict.why, "measured": "; ".join(row.measured)}
                counted = {"seeds": len(row.measured), "problems": row.problems.replace(",", "")}
                rows.append({**shared, "model": row.model, **told, **counted, "command": cell.command})
    return csv_text(columns, rows)


def table(held: Sequence[Section]) -> Table | None:
    """Verdict counts for each claim that a run is about, for the terminal; None if there is none."""
    held = [section for section in held if set(section.counts) != {verdict.NOT_RUN}]
    if not held:
        return None
    shown = Table(title="the paper's claims (graphs and models with each verdict)", title_justify="left")
    for column in ("claim", *verdict.WORDS):
        shown.add_column(column, justify="left" if column == "claim" else "right")
    for section in held:
        shown.add_row(section.claim.title, *(str(section.counts.get(word, "")) for word in verdict.WORDS))
    return shown


def _place(column: tuple[str, str]) -> tuple[int, str, int, str]:
    """Sort key of a graph and model: the paper's graphs and MODELS first, in their order."""
    graph, model = column
    paper = GRAPHS.index(graph) if graph in GRAPHS else len(GRAPHS)
    usual = MODELS.index(model) if model in MODELS else len(MODELS)
    return paper, graph, usual, model


def _row(claim: Claim, group: Group, found: Verdict) -> Row:
    shares = [share for result in group.results if (share := claim.measured(result))]
    seen = [result.samples_seen for result in group.results]
    solved = verdict.solved_of(group.results) if group.results else ""
    return Row(
        group.model,
        [f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]" for share in shares],
        f"{fmean(seen):,.0f}" if seen else "",
        "; ".join(filter(None, [group.so_far, solved])),
        found,
    )


def _figures(claim: Claim, found: list[Cell], collection: Collection) -> Iterator[tuple[str, bytes]]:
    from nextfail.reports.figures import tokens
    from nextfail.reports.style import render
    from nextfail.studies.pitfalls import figures  # matplotlib is slow to import

    shown = beside(claim, collection)
    drawn = {"dots": figures.dots(claim, found)}
    if claim.curves == "tokens":
        drawn["tokens"] = tokens(shown)
    if claim.curves == "forced":
        drawn["forced"] = figures.forced(shown)
    for kind, figure in drawn.items():
        if figure:
            yield kind, render(figure)["svg"]


def _percent(share: Range | None) -> str:
    if share is None:
        return ""
    low, high = (f"{100 * value:.3g}" for value in share)
    return f"{high} %" if low == high else f"{low} to {high} %"
