import csv
import io
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from rich.console import Console
from synthetic import OTHER_EDGES, example, make_run

from nextfail.errors import UserError
from nextfail.files import Inside
from nextfail.reports import figures, report, style
from nextfail.reports.collect import collect
from nextfail.tasks.path_star import figure as star

FILES = {f"{name}.{suffix}" for name in report.FIGURES for suffix in ("png", "svg")}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds that cheat, one solved in reverse, one of an unknown objective that is undertrained, one cut."""
    folder = tmp_path / "runs"
    for seed, exact, hard in ((0, 0.5, 0.52), (1, 0.48, 0.49)):
        make_run(folder / f"objective=teacher_forcing,seed={seed}", seed=seed, exact=exact, hard=hard, cheat=0.99)
    solved = {"exact": 1.0, "hard": 1.0, "cheat": None, "outcome": "solved", "examples": [example([7, 1, 4])]}
    make_run(folder / "objective=reverse", objective="reverse", **solved)
    make_run(folder / "objective=zigzag", objective="zigzag", exact=0.1, hard=0.2, cheat=0.3, outcome="undertrained")
    make_run(folder / "cut", objective="reverse", seed=1, exact=None, status={"state": "cut"})
    return folder


def lines(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def test_markdown_holds_means_seeds_and_outcomes(runs: Path, tmp_path: Path) -> None:
    report.write(collect([runs]), Inside(tmp_path / "out"))
    text = (tmp_path / "out/report.md").read_text()
    assert "## G(2,3), chance 0.500" in text
    table = lines(text)
    assert [
        "teacher_forcing",
        "transformer",
        "0.490",
        "0.500 0.480",
        "0/2",
        "0.505",
        "0.990",
        "2 clever_hans",
        "2,000",
    ] in table
    assert ["reverse", "transformer", "1.000", "1.000", "1/1", "1.000", "-", "1 solved", "2,000"] in table
    assert [str(runs / "cut"), "cut", "at step 20 of 20; the same command resumes from the start"] in table
    assert {f"figures/{name}" for name in FILES} <= set(text.replace("(", " ").replace(")", " ").split())


def test_sentences_never_call_undertrained_a_failure(runs: Path) -> None:
    (sentence,) = report.in_words(collect([runs]))
    cheat, solved, undertrained = sentence.split("; ")
    assert "teacher_forcing with transformer (2 of 2 seeds, exact match 0.490) learned the cheat" in cheat
    assert solved == "reverse with transformer (1 of 1 seeds, exact match 1.000) solved it"
    assert undertrained.startswith("zigzag") and "says nothing about the objective" in undertrained
    assert "fail" not in sentence


def test_one_group_may_end_in_two_ways(tmp_path: Path) -> None:
    make_run(tmp_path / "a", seed=0, exact=0.97, outcome="solved")
    make_run(tmp_path / "b", seed=1, exact=0.51)
    found = collect([tmp_path])
    assert report.table(found.groups)[1][0][4] == "1/2"
    assert found.groups[0].ended == "1 clever_hans, 1 solved"
    (sentence,) = report.in_words(found)
    assert (
        "(1 of 2 seeds, exact match 0.510) learned" in sentence
        and "(1 of 2 seeds, exact match 0.970) solved" in sentence
    )


def test_csv_has_a_row_a_run(runs: Path) -> None:
    rows = {row["folder"]: row for row in csv.DictReader(io.StringIO(report.table_csv(collect([runs]))))}
    assert len(rows) == 5
    done, cut = rows[str(runs / "objective=teacher_forcing,seed=1")], rows[str(runs / "cut")]
    expected = {"task": "G(2,3)", "degree": "2", "path_length": "3", "num_nodes": "50", "model": "transformer",
                "objective": "teacher_forcing", "seed": "1", "outcome": "clever_hans", "state": "done",
                "exact_match": "0.48", "exact_match_low": "0.45", "exact_match_high": "0.51", "exact_match_n": "1000",
                "hard_token_accuracy": "0.49", "cheat_accuracy": "0.99", "steps": "20", "samples_seen": "2000",
                "parameters": "1234", "seconds": "4.0", "samples_per_second": "500.0"}  # fmt: skip
    assert expected.items() <= done.items()
    assert cut["state"] == "cut" and cut["exact_match"] == cut["outcome"] == cut["steps"] == ""
    assert rows[str(runs / "objective=reverse")]["cheat_accuracy"] == ""


def test_csv_has_a_column_for_every_setting_that_differs(tmp_path: Path) -> None:
    for i, (lr, decay, query) in enumerate([(0.1, 0, "after"), (0.2, 1, "before"), (0.1, 1, "before")]):
        make_run(tmp_path / str(i), optimizer={"lr": lr, "decay": decay}, written={"query": query}, seed=i)
    rows = list(csv.DictReader(io.StringIO(report.table_csv(collect([tmp_path])))))
    by_seed = {row["seed"]: [row[key] for key in ("optimizer.lr", "optimizer.decay", "task.query")] for row in rows}
    assert by_seed == {"0": ["0.1", "0", "after"], "1": ["0.2", "1", "before"], "2": ["0.1", "1", "before"]}
    assert (
        "data.batch_size" not in rows[0]
        and not {"task.degree", "data.query"} & set(rows[0])
        and len(rows[0]) == len(set(rows[0]))
    )


def test_the_terminal_shows_the_same_table(runs: Path) -> None:
    console = Console(file=io.StringIO(), width=160, markup=False)
    report.print_report(collect([runs]), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("G(2,3), chance 0.500", "0.500 0.480", "2 clever_hans", "solved it", "the same command resumes"):
        assert text in shown


def test_figures_are_images(runs: Path, tmp_path: Path) -> None:
    made = report.write(collect([runs]), Inside(tmp_path / "out"))
    assert {path.name for path in made} == FILES | {"report.md", "results.csv"}
    for path in (tmp_path / "out/figures").iterdir():
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
                darkest, lightest = image.convert("L").getextrema()
                assert darkest < 100 and lightest == 255  # something is drawn
        else:
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_report_is_the_same_each_time(runs: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        report.write(collect([runs]), Inside(tmp_path / out))
    for name in FILES:
        assert (tmp_path / "one/figures" / name).read_bytes() == (tmp_path / "two/figures" / name).read_bytes(), name


def test_every_seed_is_a_dot_and_undertrained_ones_are_hollow(runs: Path) -> None:
    figure = figures.exact_match(collect([runs]).groups)
    assert figure is not None
    (axes,) = figure.axes
    dots = [(line.get_xdata()[0], line.get_markerfacecolor()) for line in axes.lines if line.get_marker() == "o"]
    orange, blue = style.colour("teacher_forcing"), style.colour("reverse")
    assert sorted(dots) == [(0.1, "white"), (0.48, orange), (0.5, orange), (1.0, blue)]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [0.5]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "|"] == pytest.approx([0.49, 1.0, 0.1])


def test_colours_and_markers_are_fixed_and_apart() -> None:
    assert len({style.colour(name) for name in ("teacher_forcing", "reverse", "teacherless")}) == 3
    assert style.colour("my_own") == style.colour("my_own") != style.WRONG
    assert style.marker("transformer") != style.marker("mamba") != style.marker("my_own")


def test_means_over_seeds_keep_the_last_value_of_a_run_that_ended_early(tmp_path: Path) -> None:
    make_run(tmp_path / "early", seed=0, tokens={10: [1.0, 0.8, 0.6], 20: [1.0, 1.0, 1.0]})
    make_run(tmp_path / "late", seed=1, tokens={10: [1.0, 0.2, 0.4], 20: [1.0, 0.4, 0.4], 30: [1.0, 0.5, 0.2]})
    cut = {10: [1.0, 0.5, 0.5]}
    make_run(tmp_path / "cut", seed=2, exact=None, tokens=cut, status={"state": "cut"})
    figure = figures.tokens(collect([tmp_path]).groups)
    assert figure is not None
    (axes,) = figure.axes
    (hard,) = [line for line in axes.lines if line.get_color() == style.WRONG and line.get_linewidth() > 1]
    assert list(hard.get_xdata()) == [1000, 2000, 3000]
    # a run that was cut says nothing of later steps
    assert list(hard.get_ydata()) == pytest.approx([(0.8 + 0.2 + 0.5) / 3, (1.0 + 0.4) / 2, (1.0 + 0.5) / 2])
    assert sum(line.get_color() == style.WRONG for line in axes.lines) == 4  # the mean and three seeds


def test_what_ends_together_shares_a_label(tmp_path: Path) -> None:
    make_run(tmp_path / "a", tokens={10: [1.0, 0.5, 0.99]})
    figure = figures.tokens(collect([tmp_path]).groups)
    assert figure is not None
    assert {"0, 2, cheat", "1"} <= {text.get_text() for text in figure.axes[0].texts}


def test_the_problem_drawn_is_one_that_tells_models_apart(tmp_path: Path) -> None:
    both_right = example([7, 1, 4])
    make_run(tmp_path / "a", examples=[both_right, example([5, 6, 0], OTHER_EDGES)])
    make_run(tmp_path / "b", objective="reverse", examples=[both_right, example([5, 2, 8], OTHER_EDGES)])
    make_run(tmp_path / "c", objective="teacherless", examples=[both_right, example([5, 51, 8], OTHER_EDGES)])
    figure = star.paths(collect([tmp_path]).groups)
    assert figure is not None
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts[0][:2] == ["G(2,3)", "from 5 to 8"]
    assert [panel[:2] for panel in texts[1:]] == [
        ["teacher_forcing", "transformer, seed 0: wrong"],
        ["reverse", "transformer, seed 0: right"],
        ["teacherless", "transformer, seed 0: wrong"],
    ]
    assert texts[3][-3:] == ["5", "=", "8"]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that lie over each other by more than a point."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts: list[Text] = figure.findobj(Text)  # type: ignore[assignment]
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(renderer).padded(-1)) for text in shown]
    return [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)]


@pytest.mark.parametrize("kind", [figures.exact_match, figures.tokens, star.paths])
@pytest.mark.parametrize("many", [False, True])
def test_no_label_lies_over_another(tmp_path: Path, kind: object, many: bool) -> None:
    rng = np.random.default_rng(0)
    make_run(tmp_path / "one")
    for i in range(12 if many else 0):
        objective = ("teacher_forcing", "reverse", "teacherless", "a_rather_long_name_of_mine")[i % 4]
        tokens = {10 * k: list(rng.random(3)) for k in range(1, 5)}
        make_run(tmp_path / str(i), objective=objective, model=("transformer", "mamba")[i % 2], depth=8 + i % 3, seed=i,
                 degree=2 + (i > 8), exact=rng.random(), tokens=tokens)  # fmt: skip
    figure = kind(collect([tmp_path]).groups)  # type: ignore[operator]
    with style.matplotlib.rc_context(style.STYLE):
        assert overlaps(figure) == []


def test_without_examples_and_curves_there_are_fewer_figures(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report.write(collect([runs]), Inside(out))
    (out / "figures/mine.png").write_text("mine")
    for path in [*runs.glob("*/examples.json"), *runs.glob("*/metrics.csv")]:
        path.unlink()
    report.write(collect([runs]), Inside(out))
    assert {path.name for path in (out / "figures").iterdir()} == {"exact_match.png", "exact_match.svg", "mine.png"}
    text = (out / "report.md").read_text()
    assert "figures/exact_match.png" in text and "figures/tokens.png" not in text
    assert "nothing to draw in metrics.csv and examples.json" in text


def test_only_unreadable_runs_make_a_report_of_problems(tmp_path: Path) -> None:
    (make_run(tmp_path / "runs/a") / "run.json").write_text("{")
    report.write(collect([tmp_path / "runs"]), Inside(tmp_path / "out"))
    assert [str(tmp_path / "runs/a"), "unreadable"] in [
        row[:2] for row in lines((tmp_path / "out/report.md").read_text())
    ]
    assert not (tmp_path / "out/figures").exists()


def test_what_is_not_ours_is_not_replaced(runs: Path, tmp_path: Path) -> None:
    found = collect([runs])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        report.write(found, Inside(tmp_path / "file"))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/results.csv").write_text("mine")
    with pytest.raises(UserError, match=r"has results\.csv, and not from an earlier report"):
        report.write(found, Inside(tmp_path / "theirs"))
    assert (tmp_path / "theirs/results.csv").read_text() == "mine"
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    (tmp_path / "file/notes.txt").write_text("mine")  # a folder with other things may take a report
    report.write(found, Inside(tmp_path / "file"))
    assert (tmp_path / "file/notes.txt").read_text() == "mine"


def call(*arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command; its last line on stdout names the libraries it imported."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sorted({name.partition('.')[0] for name in sys.modules})))\n"
        "from nextfail.cli.report import main\n"
        "main()"
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == code, done.stderr
    return done


def test_command_writes_beside_the_runs_and_needs_no_heavy_library(runs: Path) -> None:
    *shown, imported = call(runs).stdout.splitlines()
    assert {path.name for path in (runs / "report").iterdir()} == {
        "report.md",
        "results.csv",
        "index.html",
        "claims.csv",
        "figures",
    }
    assert str(runs / "report/report.md") in shown
    assert not {"torch", "lightning", "hydra"} & set(imported.split())
    assert call(runs).returncode == 0  # again, over its own report


def test_help_needs_neither_matplotlib_nor_pandas() -> None:
    imported = call("--help").stdout.splitlines()[-1].split()
    assert "nextfail" in imported
    assert not {"matplotlib", "pandas", "numpy", "torch", "lightning", "hydra"} & set(imported)


def test_mistakes_are_one_message_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in (("nowhere", "there is no folder"), ("empty", "no run found")):
        done = call(tmp_path / folder, code=2)
        assert done.stderr.startswith(f"nextfail-report: {message}") and done.stderr.count("\n") == 1
    assert "Traceback" in call(tmp_path / "empty", code=1, NEXTFAIL_DEBUG="1").stderr


@pytest.mark.parametrize("length", [2, 3, 5])
def test_a_legend_names_what_answers_of_a_length_have(length: int) -> None:
    facts = SimpleNamespace(places=("hard", "rest", "first"), hard_position=1, length=length)
    groups: Any = [SimpleNamespace(runs=[SimpleNamespace(facts=facts)])]
    figure = Figure()
    figures.legend(figure, groups, columns=3)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[0] == "hard" and ("rest" in texts) is (length > 2)
