"""Somebody else's run folder: nothing of it leads to a file of the user's, and no text of it is more than text."""

import csv
import io
import json
from pathlib import Path

import pytest
from synthetic import change, make_run, rewrite

from nextfail.cli import report as report_command
from nextfail.cli import status as status_command
from nextfail.errors import UserError
from nextfail.reports.collect import collect
from nextfail.runs.folder import RunFolder
from nextfail.sweeps.records import RECORDS, remembered
from nextfail.training.load import remake_module

HOSTILE = "\x1b]0;owned\x07<script>alert(1)</script> $x^$ [a](javascript:b) | \n# =1+1"
FORMULA = '=HYPERLINK("http://x")'


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in ("photo.png", "diary.svg", "notes.md"):
        (folder / name).write_text("mine")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make_run(tmp_path / "runs/a")
    report_command.run([tmp_path / "runs"], None)
    return tmp_path / "runs"


def untouched(theirs: Path) -> bool:
    return {path.name: path.read_text() for path in theirs.iterdir()} == dict.fromkeys(
        ("photo.png", "diary.svg", "notes.md"), "mine"
    )


@pytest.mark.parametrize("name", ["figures/exact_match.png", "report.md", "results.csv", "index.html", "claims.csv"])
def test_a_report_replaces_a_link_and_not_its_target(name: str, runs: Path, theirs: Path) -> None:
    (runs / "report" / name).unlink()
    (runs / "report" / name).symlink_to(theirs / "photo.png")
    if name == "report.md":  # nothing says any more that this is a report
        with pytest.raises(UserError, match="not from an earlier report"):
            report_command.run([runs], None)
    else:
        report_command.run([runs], None)
        assert not (runs / "report" / name).is_symlink()
    assert untouched(theirs)


@pytest.mark.parametrize("name", ["report/figures/claims", "report/figures", "report"])
def test_a_report_enters_no_linked_folder(name: str, runs: Path, theirs: Path) -> None:
    place = runs / name
    place.rename(theirs.parent / "moved")
    place.symlink_to(theirs)
    with pytest.raises(UserError, match=r"is a link|not from an earlier report"):
        report_command.run([runs], None)
    assert untouched(theirs)


@pytest.mark.parametrize("name", ["checkpoints", "train.log", "metrics.csv", "status.json", "tensorboard/hparams.yaml"])
def test_a_run_is_not_trained_through_links(name: str, tmp_path: Path, theirs: Path) -> None:
    run = RunFolder(make_run(tmp_path / "run", exact=None))
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(theirs if name == "checkpoints" else theirs / "notes.md")
    with pytest.raises(UserError, match=f"{name} is a link to outside"), run.locked():
        pass
    assert untouched(theirs)


@pytest.mark.parametrize(
    "name", ["metrics.csv", "examples.json", "run.json", "notes.txt", "checkpoints", "result.json"]
)
def test_a_users_own_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(UserError, match=f"has {name}, and is not a run of nextfail"), RunFolder(folder).locked():
        pass
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [(name, "mine")]


def test_a_users_own_run_json_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"hash": "md5", "mine": true}')
    (tmp_path / "metrics.csv").write_text("mine")
    with pytest.raises(UserError, match=r"has metrics\.csv, run\.json, and is not a run of nextfail"):
        RunFolder(tmp_path).require_ours()


def test_records_of_sweeps_do_not_lead_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / RECORDS
    folder.mkdir(parents=True)
    runs = {"../theirs": [], "a/../../b": [], "/etc": [], "": [], ".": [], "x\0y": [], "seed=1": ["seed=1"]}
    (folder / "a.json").write_text(json.dumps({"runs": runs}))
    (folder / "b.json").write_text(json.dumps({"runs": ["x"]}))
    (folder / "c.json").write_text(json.dumps({"runs": {"seed=2": 3}}))
    assert remembered(tmp_path) == {"sweep/seed=1": ["seed=1"]}


def test_a_model_on_the_hub_is_asked_for_only_with_trust(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    classes = json.loads((folder / "run.json").read_text())["classes"] | {
        "objective": {"name": "reverse", "revision": 1}
    }
    rewrite(folder / "run.json", source="someone/model", objective={"_target_": "nextfail.objectives.Reverse"},
            classes=classes)  # fmt: skip
    with pytest.raises(UserError, match=r"someone/model, and there is no such folder.*--trust"):
        remake_module(RunFolder(folder))


def test_a_status_drives_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "runs" / "a\x1b[2J\x9b", exact=None, status={"state": "failed", "error": HOSTILE})
    status_command.show(status_command.parser().parse_args([str(tmp_path / "runs")]))
    printed = capsys.readouterr().out
    assert not set("\x1b\x07\x9b") & set(printed) and r"\x1b]0;owned\x07" in printed
    assert len(printed.splitlines()) == 2, "a line for the counts and one for the run"


@pytest.mark.parametrize("outcome", [HOSTILE, FORMULA, "$x^$", r"$\frac$", "a" * 200])
def test_a_report_survives_any_name(outcome: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        folder = make_run(tmp_path / f"runs/{number}", seed=number, objective=outcome, model=outcome, depth=4 + number)
        change(folder / "result.json", outcome=outcome)
    make_run(tmp_path / "runs/c", exact=None, status={"state": "failed", "error": HOSTILE})
    report_command.run([tmp_path / "runs"], None)
    out = tmp_path / "runs/report"
    page, markdown = (out / "index.html").read_text(), (out / "report.md").read_text()
    assert "<script>alert" not in page and "<script>" not in markdown.replace("\\<", "")
    assert "](javascript" not in markdown.replace("\\]", "") and "\n# =" not in markdown
    rows = [*csv.reader(io.StringIO((out / "results.csv").read_text()))]
    rows += csv.reader(io.StringIO((out / "claims.csv").read_text()))
    assert all(not cell.startswith(("=", "@")) for row in rows for cell in row)
    for text in (page, markdown, capsys.readouterr().out, *(path.read_text() for path in out.rglob("*.svg"))):
        assert not {c for c in text if ord(c) < 32 and c not in "\n\t"}
    assert (out / "figures/exact_match.png").stat().st_size > 1000


def test_a_name_that_is_none_is_a_problem_and_not_the_end(tmp_path: Path) -> None:
    make_run(tmp_path / "runs/good")
    change(make_run(tmp_path / "runs/long", seed=1) / "result.json", outcome="x" * 10_000)
    change(make_run(tmp_path / "runs/list", seed=2) / "result.json", outcome=["x"])
    found = collect([tmp_path / "runs"])
    assert sum(len(group.results) for group in found.groups) == 1
    assert {problem.folder.name for problem in found.problems} == {"long", "list"}


@pytest.mark.parametrize(
    "changed",
    [
        {"samples_seen": 10**400},
        {"flops": "1"},
        {"seconds": float("nan")},
        {"steps": [3]},
        {"exact_match": []},
        {"exact_match": {"value": 2, "low": 0, "high": 1, "n": 5}},
        {"exact_match": {"value": "0.5", "low": 0, "high": 1, "n": 5}},
        {"hard_token_accuracy": {"value": 0.5}},
        {"outcome": None},
    ],
    ids=str,
)
def test_numbers_that_are_none_are_a_problem_and_not_the_end(changed: dict[str, object], tmp_path: Path) -> None:
    make_run(tmp_path / "runs/good")
    change(make_run(tmp_path / "runs/bad", seed=1) / "result.json", **changed)
    report_command.run([tmp_path / "runs"], None)
    status_command.show(status_command.parser().parse_args([str(tmp_path / "runs")]))
    found = collect([tmp_path / "runs"])
    assert sum(len(group.results) for group in found.groups) == 1
    assert [problem.folder.name for problem in found.problems] == ["bad"]


@pytest.mark.parametrize("value", [10**6, 3.5, -3, "5", None, float("nan"), True])
def test_sizes_that_are_none_are_a_problem_and_not_the_end(value: object, tmp_path: Path) -> None:
    make_run(tmp_path / "runs/good")
    folder = make_run(tmp_path / "runs/bad", seed=1)
    task = json.loads((folder / "run.json").read_text())["task"]
    rewrite(folder / "run.json", task=task | {"path_length": value})
    report_command.run([tmp_path / "runs"], None)
    assert [problem.folder.name for problem in collect([tmp_path / "runs"]).problems] == ["bad"]


def test_runs_behind_links_are_found_once(tmp_path: Path) -> None:
    make_run(tmp_path / "scratch/sweep/a")
    make_run(tmp_path / "scratch/deep/1/2/3/4", seed=1)
    make_run(tmp_path / "runs/b", seed=2)
    (tmp_path / "runs/sweep").symlink_to(tmp_path / "scratch/sweep")
    (tmp_path / "runs/again").symlink_to(tmp_path / "scratch/sweep")
    (tmp_path / "runs/up").symlink_to(tmp_path)  # a circle
    (tmp_path / "runs/deep").symlink_to(tmp_path / "scratch/deep")
    (tmp_path / "runs/nowhere").symlink_to(tmp_path / "nothing")
    found = collect([tmp_path / "runs"])
    assert sorted(run.seed for group in found.groups for run in group.runs) == [0, 2], "of what is too deep, nothing"
    assert len(status_command.statuses([tmp_path / "runs"])) == 2
