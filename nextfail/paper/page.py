"""index.html: the claims of the paper on one page that needs nothing else."""

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nextfail import __version__
from nextfail.errors import UserError
from nextfail.paper import verdict
from nextfail.paper.claims import CLAIMS, GRAPHS, MODELS, Cell, Claim, Range, beside, cells, summary
from nextfail.paper.verdict import Verdict
from nextfail.runs.collect import Collection, Group
from nextfail.runs.files import write_text
from nextfail.runs.report import MARK

NAME = "index.html"
CAPTIONS = {
    "dots": "Every seed is a dot with its 95 % interval, hollow where its outcome says nothing of the objective; "
    "grey is what was published.",
    "tokens": "Accuracy of each generated position on the validation set, over training.",
    "forced": "Accuracy of each position over training: forced (fed the truth before it) and generated (fed itself), "
    "on problems of the training set and on held-out ones.",
}


def write(collection: Collection, out: Path) -> Path:
    """Write the page into a folder that the report has claimed; returns its path.

    Raises:
        UserError: it cannot be written.
    """
    path = out / NAME
    try:
        write_text(path, html(collection))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


def html(collection: Collection) -> str:
    """The page."""
    sections = [_section(claim, collection) for claim in CLAIMS]
    ran = {column for section in sections for column, word in section["words"].items() if word != verdict.NOT_RUN}
    standard = [(graph, model) for graph in GRAPHS for model in MODELS]
    environment = Environment(loader=PackageLoader("nextfail.paper", "."), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html").render(
        mark=MARK.strip("<!-> "),
        version=__version__,
        runs=sum(len(group.results) for group in collection.groups),
        columns=sorted(ran, key=lambda column: (column not in standard, column)),
        untouched=list(
            dict.fromkeys(graph for graph, model in standard if not {(graph, each) for each in MODELS} & ran)
        ),
        sections=sections,
        words=verdict.WORDS,
        level=verdict.LEVEL,
        margin=verdict.EQUAL,
        problems=collection.problems,
    )


def _section(claim: Claim, collection: Collection) -> dict[str, Any]:
    found = cells(claim, collection)
    return {
        "claim": claim,
        "asked": len(found),
        "cells": [_cell(claim, cell) for cell in found if cell.rows],
        "missing": [f"{cell.graph} {cell.model}" for cell in found if not cell.rows],
        "counts": summary(claim, found),
        "words": {(cell.graph, cell.model): cell.verdict.word for cell in found},
        "commands": list(dict.fromkeys(cell.command for cell in found if cell.command)),
        "figures": list(_figures(claim, found, collection)),
    }


def _cell(claim: Claim, cell: Cell) -> dict[str, Any]:
    lines = [_row(claim, group, found) for group, found in cell.rows]
    return {"graph": cell.graph, "published": _percent(claim.published.get(cell.graph)), "lines": lines}


def _row(claim: Claim, group: Group, found: Verdict) -> dict[str, Any]:
    shares = [claim.measured(result) for result in group.results]
    left = len(group.runs) - len(group.results)
    seen = [result.samples_seen for result in group.results]
    return {
        "model": group.model,
        "measured": [f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]" for share in shares if share],
        "problems": f"{fmean(seen):,.0f}" if seen else "",
        "ended": ", ".join(filter(None, [group.ended, f"{left} not done" if left else ""])),
        "verdict": found,
    }


def _figures(claim: Claim, found: list[Cell], collection: Collection) -> Iterator[dict[str, str]]:
    from nextfail.paper import figures  # matplotlib takes most of a second
    from nextfail.runs.figures import tokens
    from nextfail.runs.style import render

    shown = beside(claim, collection)
    drawn = {"dots": figures.dots(claim, found)}
    if claim.curves == "tokens":
        drawn["tokens"] = tokens(shown)
    if claim.curves == "forced":
        drawn["forced"] = figures.forced(shown)
    for name, figure in drawn.items():
        if figure:
            yield {"caption": CAPTIONS[name], "data": b64encode(render(figure)["svg"]).decode()}


def _percent(share: Range | None) -> str:
    if share is None:
        return ""
    low, high = (f"{100 * value:.3g}" for value in share)
    return f"{high} %" if low == high else f"{low} to {high} %"
