"""nextfail-report --format and --metric."""

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic import change, curve, make_run
from test_report import call

from nextfail.reports import series
from nextfail.reports.collect import collect
from nextfail.reports.formats import Grid, as_csv, as_html, as_latex, latex
from nextfail.reports.report import grids
from nextfail.reports.style import colour

ODD = "a_b & <i>c</i> 50% $x$ \\end{tabular} ^~#{}"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for seed, exact in enumerate((0.5, 0.48)):
        make_run(folder / f"tf{seed}", seed=seed, exact=exact)
    make_run(folder / "rev", objective="reverse", exact=1.0, hard=1.0, cheat=None, outcome="solved")
    make_run(folder / "wide", objective="reverse", degree=3, exact=0.9, cheat=None, outcome="undertrained")
    for run in folder.iterdir():
        curve(run, {10: 0.4, 20: 0.5})
    return folder


def test_csv_has_one_row_a_group_with_score_and_cost(runs: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(grids(collect([runs]))))))
    found = [(row["task"], row["objective"], row["exact match"], row["solved"], row["outcome"]) for row in rows]
    assert found == [
        ("G(2,3)", "teacher_forcing", "0.490", "0/2 [0.00, 0.66]", "2 clever_hans"),
        ("G(2,3)", "reverse", "1.000", "1/1 [0.21, 1.00]", "1 solved"),
        ("G(3,3)", "reverse", "0.900", "0/1", "1 undertrained"),
    ]
    assert rows[1]["FLOPs a problem"] == "1.00" and rows[2]["FLOPs a problem"] == ""  # nothing to compare with
    assert rows[0]["samples"] == "2000" and rows[0]["problems to 0.95"] == ""


def test_latex_by_hand() -> None:
    grid = Grid("G(2,3), 50%", ("objective", "exact match"), (("a_b", "0.490"), ("reverse", "-")))
    assert as_latex([grid]) == (
        "% G(2,3), 50\\%\n"
        "\\begin{tabular}{lr}\n"
        "\\toprule\n"
        "objective & exact match \\\\\n"
        "\\midrule\n"
        "a\\_b & 0.490 \\\\\n"
        "reverse & - \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_text_from_run_folders_is_text_in_every_format() -> None:
    assert latex(ODD) == (
        "a\\_b \\& <i>c</i> 50\\% \\$x\\$ \\textbackslash{}end\\{tabular\\} "
        "\\textasciicircum{}\\textasciitilde{}\\#\\{\\}"
    )
    grid = Grid(ODD, ("objective", ODD), ((ODD, "1"), ("=1+1", "2")), ODD)
    table = ElementTree.fromstring(f"<body>{as_html([grid, grid])}</body>")
    assert [cell.text for cell in table.iter("td")] == [ODD, "1", "=1+1", "2"] * 2
    assert [caption.text for caption in table.iter("caption")] == [ODD] * 2
    rows = list(csv.reader(io.StringIO(as_csv([grid]))))
    assert rows[2] == [ODD, "'=1+1", "2"]  # no formula


@pytest.mark.parametrize("kind", ["csv", "latex", "html"])
def test_the_command_prints_the_tables_and_nothing_else(runs: Path, kind: str) -> None:
    *shown, _ = call(runs, "--format", kind).stdout.splitlines()  # the last line is the test's own
    text = "\n".join(shown)
    assert shown[0].startswith({"csv": "task,objective,", "latex": "% G(2,3)", "html": "<table>"}[kind])
    assert shown[-1].startswith({"csv": '"G(3,3)"', "latex": "\\end{tabular}", "html": "</table>"}[kind])
    assert "0.490" in text and str(runs) not in text
    assert (runs / "report/report.md").exists()


def test_any_logged_metric_is_shown(runs: Path) -> None:
    for seed, losses in enumerate(([2.0, 1.0], [4.0, 0.5])):
        rows = "".join(f"{10 * (i + 1)},train,{loss}\n" for i, loss in enumerate(losses))
        (runs / f"tf{seed}/metrics.csv").write_text(f"step,split,loss\n{rows}30,train,\n")
    for name in ("rev", "wide"):
        (runs / f"{name}/metrics.csv").unlink()
    found = collect([runs])
    assert series.series(found.groups[0].runs[0], "train/loss") == [(1000, 2.0), (2000, 1.0)]
    tasks = series.gather(found, "train/loss")
    (grid,) = series.grids(tasks, "train/loss")
    assert (grid.title, grid.rows) == (
        "G(2,3), train/loss",
        [["teacher_forcing", "transformer", "2", "3", "0.75", "0.75", "3"]],
    )
    (axes,) = series.draw(tasks, "train/loss").axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.0, 1.0], [4.0, 0.5]]
    assert {line.get_color() for line in axes.lines} == {colour("teacher_forcing")}
    shown = call(runs, "--metric", "train/loss").stdout
    assert "G(2,3), train/loss" in shown and "metric_train_loss.png" in shown and "clever_hans" not in shown
    assert (runs / "report/figures/metric_train_loss.svg").exists()
    line = call(runs, "--metric", "train/loss", "--format", "csv").stdout.splitlines()[1]
    assert line == '"G(2,3)",teacher_forcing,transformer,2,3,0.75,0.75,3'


def test_a_metric_of_the_validation_set_needs_no_split(runs: Path) -> None:
    assert "G(3,3), validation/exact_match" in call(runs, "--metric", "exact_match").stdout


def test_a_metric_of_one_split_needs_no_split(runs: Path) -> None:
    assert ", train/loss" in call(runs, "--metric", "loss").stdout


def test_an_unknown_metric_is_refused_with_the_nearest(runs: Path) -> None:
    told = call(runs, "--metric", "exact_mach", code=2).stderr
    assert told.startswith(
        "nextfail-report: --metric validation/exact_mach: no run has logged a finite value of it: choose one of those"
    )
    assert "validation/exact_match" in told and told.count("\n") == 1
    assert not (runs / "report").exists()
    for path in runs.glob("*/metrics.csv"):
        path.unlink()
    assert "they have logged nothing" in call(runs, "--metric", "loss", code=2).stderr


def test_a_damaged_table_is_no_obstacle(runs: Path) -> None:
    (runs / "tf0/metrics.csv").write_bytes(b"\xff\x00")
    change(runs / "tf1/result.json", flops=None)
    assert "G(2,3)" in call(runs, "--metric", "exact_match").stdout


def test_what_cannot_be_drawn_is_refused_or_left_out(runs: Path) -> None:
    make_run(runs / "odd", data={"seed": 0})  # somebody else's: no batch size
    curve(runs / "odd", {10: 0.4})
    for name in ("tf0", "tf1", "rev", "wide"):
        (runs / name / "metrics.csv").write_text(
            "step,split,loss,exact_match\n10,train,nan,\n20,train,inf,\n10,validation,,1\n"
        )
    assert "no run has logged a finite value of it" in call(runs, "--metric", "train/loss", code=2).stderr
    assert "exact_match" in call(runs, "--metric", "exact_match").stdout
