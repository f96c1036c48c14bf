"""The same run is found again, however it is spelled, and another is never taken for it."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from commands import SHORT, call, refused, runs, short, sweep, train, train_until
from synthetic import rewrite

OWN = "from nextfail.objectives import Objective\n\n\nclass Mine(Objective):\n    {}\n"


@pytest.mark.slow
def test_an_edited_class_is_another_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN.format("pass"))
    own = ("objective._target_=mine.Mine", "name=own")
    first = short(*own, cwd=tmp_path).stdout
    assert " transformer Mine seed 0" in first  # and not by the option that the class took the place of
    assert short(*own, cwd=tmp_path).stdout == first
    (folder,) = (tmp_path / "runs/own").iterdir()
    before = (folder / "result.json").read_text()
    (tmp_path / "mine.py").write_text(OWN.format("'''Another.'''"))
    told = refused("train", *SHORT, *own, cwd=tmp_path)
    assert "objective.sha256" in told and "(source of mine.Mine) asked for" in told
    assert (folder / "result.json").read_text() == before
    assert "1 refused" in call("train", "-m", *SHORT, *own, cwd=tmp_path, code=1).stderr
    assert "remove this one" in refused("train", *SHORT, *own, "seed=1", f"hydra.run.dir='{folder}'", cwd=tmp_path)
    # evaluating it says so, and finds the class in this folder
    evaluated = call("eval", folder, "--trust", "--json", cwd=tmp_path)
    assert "was trained with another version of mine.Mine" in evaluated.stderr
    short(*own, "on_existing=restart", cwd=tmp_path)
    assert (folder / "result.json").read_text() != before and len(list(tmp_path.rglob("run.json"))) == 1


@pytest.mark.slow
def test_a_run_is_found_however_it_is_spelled(tmp_path: Path) -> None:
    short("name=f", "seed=1", "objective=reverse", cwd=tmp_path)
    (folder,) = (tmp_path / "runs/f").iterdir()
    made = (folder / "result.json").stat().st_mtime_ns
    for overrides in (["objective=reverse", "seed=1"], ["seed=1", "objective=reverse", "optimizer.lr=1e-3"],
                      ["optimizer.lr=0.001", "trainer.precision=32", "objective=reverse", "seed=1"]):  # fmt: skip
        done = short(*overrides, "name=f", cwd=tmp_path)
        assert done.stdout.splitlines()[-1] == str(folder.relative_to(tmp_path))
    assert (folder / "result.json").stat().st_mtime_ns == made and runs(tmp_path / "runs/f") == {folder.name}
    # a folder that is named holds what it is asked to hold
    short("objective=reverse", "seed=1", "name=f", "hydra.run.dir=elsewhere", cwd=tmp_path)
    assert (tmp_path / "elsewhere/result.json").exists()
    short("optimizer.lr=0.001", "seed=1", "objective=reverse", "name=f", "on_existing=restart", cwd=tmp_path)
    assert len(runs(tmp_path / "runs/f")) == 2


@pytest.mark.slow
def test_a_run_that_was_cut_is_continued_however_it_is_spelled(tmp_path: Path) -> None:
    folder = tmp_path / "runs/debug/cut"
    train_until(folder, 20, signal.SIGTERM, cwd=tmp_path)
    done = train("optimizer.lr=3e-3", "seed=0", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "runs/debug/cut" and runs(tmp_path / "runs/debug") == {"cut"}
    assert (folder / "train.log").read_text().count("training from step") == 2


def test_an_identity_is_trained_once_per_sweep(tmp_path: Path) -> None:
    axes = ("optimizer.lr=1e-3,0.001,0.002", "trainer.precision=32,32-true", "seed=5,5")
    assert "2 runs: 2 done now" in call("train", "-m", *SHORT, *axes, cwd=tmp_path).stderr
    assert "2 runs: 2 done before" in call("train", "-m", *SHORT, *axes, cwd=tmp_path).stderr
    assert len(list(tmp_path.rglob("result.json"))) == 2


@pytest.mark.slow
def test_resuming_under_another_version_is_noted(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train_until(folder, 10, signal.SIGTERM, cwd=tmp_path)
    began = json.loads((folder / "run.json").read_text())["began"]
    assert began["version"] and began["id"] and set(began) == {"id", "version", "commit"}
    rewrite(folder / "run.json", began=began | {"version": "0.0.1"})
    told = train(f"hydra.run.dir={folder}", cwd=tmp_path).stderr
    assert "started with nextfail 0.0.1" in told
    assert (folder / "result.json").exists()


OLD = ("debug=default", "model.depth=1", "model.width=8", "trainer.max_steps=4", "trainer.val_every=2",
       "data.validation=16", "data.train=64", "callbacks=none", "name=old")  # fmt: skip
"""What the runs in tests/schema_1 were asked for with, by an earlier version."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Run folders of schema 1 in runs/old."""
    shutil.copytree(Path(__file__).parents[1] / "schema_1", tmp_path / "runs/old")
    return tmp_path / "runs/old"


def test_runs_of_schema_1_are_found_as_done(old: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    axes = ("objective=teacher_forcing,reverse,teacherless", "seed=0,1")
    told = call("train", "-m", *OLD, *axes, cwd=tmp_path).stderr
    assert "6 runs: 2 done before, 4 done now" in told
    single = call("train", *OLD, "objective=reverse", "seed=1", cwd=tmp_path)
    assert single.stdout.splitlines()[-1] == "runs/old/reverse"
    assert {path: path.read_bytes() for path in before} == before
    states = json.loads(call("status", "runs/old", "--json", cwd=tmp_path).stdout)
    assert [run["state"] for run in states] == ["done"] * 10  # 6 of schema 1, and 4 new


@pytest.mark.slow
def test_runs_of_schema_1_are_evaluated_reported_and_continued(old: Path, tmp_path: Path) -> None:
    folder = old / "teacher_forcing"
    evaluated = json.loads(call("eval", folder, "--json", cwd=tmp_path).stdout)
    assert evaluated["exact_match"] == json.loads((folder / "result.json").read_text())["exact_match"]
    call("report", "runs/old", cwd=tmp_path)
    rows = (old / "report/results.csv").read_text()
    assert all(name in rows for name in ("teacher_forcing", "reverse", "token_masking", "next_latent", "landmark"))
    (folder / "result.json").unlink()  # cut after its last step
    done = call("train", *OLD, "objective=teacher_forcing", "seed=0", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "runs/old/teacher_forcing"
    assert json.loads(call("eval", folder, "--json", cwd=tmp_path).stdout)["exact_match"] == evaluated["exact_match"]


@pytest.mark.slow
def test_two_sweeps_over_other_spellings_share_their_runs(tmp_path: Path) -> None:
    assert "2 runs: 2 done now" in sweep("optimizer.lr=0.003,0.001", cwd=tmp_path).stderr
    assert "2 runs: 1 done before, 1 done now" in sweep("optimizer.lr=3e-3,4e-3", cwd=tmp_path).stderr
