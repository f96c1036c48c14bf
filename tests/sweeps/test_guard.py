"""What a sweep's folder may hold that came from somebody else, and what is removed from it."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synthetic import make_run

from nextfail.cli.clean import clean
from nextfail.errors import UserError
from nextfail.runs.folder import RunFolder
from nextfail.sweeps.guard import require_plain
from nextfail.sweeps.records import forget, never_begun, remember, remembered


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of somebody else's, with a failed run, a done one with checkpoints, and a record."""
    folder = tmp_path / "theirs"
    make_run(folder / "failed", exact=None, status={"state": "failed", "error": "x"})
    done = make_run(folder / "done", seed=1)
    (done / "checkpoints").mkdir()
    for name in ("last.ckpt", "best.ckpt"):
        (done / "checkpoints" / name).write_bytes(b"x")
    remember(folder, {"never": []})
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["study.log", "multirun.yaml", ".slurm", ".sweeps", "best.json"])
def test_links_in_a_sweeps_folder_are_refused(name: str, tmp_path: Path, theirs: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / name).symlink_to(theirs if name.startswith(".") else theirs / "done/result.json")
    with pytest.raises(UserError, match=f"{name} is a link"):
        require_plain(tmp_path / "s")


def test_pipes_are_refused_and_runs_behind_links_are_not(tmp_path: Path, theirs: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/moved").symlink_to(theirs / "done")
    require_plain(tmp_path / "s")
    os.mkfifo(tmp_path / "s/study.log")
    with pytest.raises(UserError, match=r"study\.log is a link or not a file"):
        require_plain(tmp_path / "s")
    os.mkfifo(theirs / "failed/train.log")
    with pytest.raises(UserError, match=r"train\.log is a link"), RunFolder(theirs / "failed").locked():
        pass


def test_nothing_is_removed_behind_links(tmp_path: Path, theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine := tmp_path / "mine").mkdir()
    make_run(mine / "a", seed=7)
    (mine / "data").symlink_to(theirs)
    before = files(theirs)
    clean([mine], keep_last=True, really=True)
    assert files(theirs) == before and capsys.readouterr().out == "nothing to remove\n"
    assert never_begun(mine) == []


def test_only_what_nextfail_wrote_is_removed(tmp_path: Path, theirs: Path) -> None:
    failed, done = theirs / "failed", theirs / "done"
    for name in ("notes.log", "thesis.log/a.tex", "wandb/x", "checkpoints/mine.pt"):
        (failed / name).parent.mkdir(exist_ok=True)
        (failed / name).write_text("mine")
    (done / "checkpoints/my-own.ckpt").write_text("mine")
    clean([theirs], keep_last=True, really=True)
    kept = ["checkpoints", "checkpoints/mine.pt", "notes.log", "thesis.log", "thesis.log/a.tex", "wandb", "wandb/x"]
    assert files(failed) == kept
    assert files(done / "checkpoints") == ["last.ckpt", "my-own.ckpt"]


def test_best_is_kept_where_it_is_all_there_is(theirs: Path) -> None:
    (theirs / "done/checkpoints/last.ckpt").unlink()
    clean([theirs / "done"], keep_last=True, really=True)
    assert files(theirs / "done/checkpoints") == ["best.ckpt"]


def test_the_folder_of_the_command_may_be_the_run(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(theirs / "failed")
    clean([Path()], keep_last=False, really=True)
    assert files(theirs / "failed") == []


def test_what_was_forgotten_and_is_asked_for_again_is_remembered(tmp_path: Path) -> None:
    remember(tmp_path, {"a": ["x"], "b": ["y"]})
    forget(tmp_path, [tmp_path / "a"])
    assert remembered(tmp_path) == {"b": ["y"]}
    remember(tmp_path, {"a": ["x"], "b": ["y"]})
    assert remembered(tmp_path) == {"a": ["x"], "b": ["y"]}


def test_names_that_no_file_system_takes_are_no_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".sweeps").mkdir()
    (tmp_path / ".sweeps/a.json").write_text(json.dumps({"runs": {"x" * 300: [], "a": []}}))
    (tmp_path / ".sweeps/b.json").write_text(json.dumps({"runs": {"\ud800": [], "b": []}}))
    (tmp_path / ".sweeps/c.json").write_text(json.dumps({"runs": {"c": "seed=1"}}))
    assert remembered(tmp_path) == {"a": [], "b": []} and "c.json does not have" in caplog.text


def test_a_trial_of_a_foreign_study_decides_on_its_own_axes_alone() -> None:
    pytest.importorskip("optuna", reason="optuna is not installed")
    from optuna.distributions import FloatDistribution

    from hydra_plugins.nextfail_plugins.optuna_sweeper import _overrides

    space = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True)}
    trial: Any = SimpleNamespace(number=3, distributions=space, params={"optimizer.lr": 0.003},
                                 user_attrs={"overrides": ["hydra.sweep.dir=/elsewhere"]})  # fmt: skip
    assert _overrides(trial, ["seed=1"], space) == ["seed=1", "optimizer.lr=0.003"]
    trial.distributions = {"hydra.sweep.dir": space["optimizer.lr"]}
    with pytest.raises(UserError, match="trial 3 of the study has different axes"):
        _overrides(trial, ["seed=1"], space)
