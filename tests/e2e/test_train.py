"""nextfail-train from the command line: what it makes, and what it says of a mistake."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import TINY, assert_same, call, refused, sweep, train

FILES = {"run.json", "status.json", "metrics.csv", "timing.csv", "result.json", "examples.json", "train.log"}


def test_run_folder_holds_what_the_contract_lists(run_folder: Path) -> None:
    assert {path.name for path in run_folder.iterdir()} == FILES | {"checkpoints"}
    assert {path.name for path in (run_folder / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    run, result = (json.loads((run_folder / f"{name}.json").read_text()) for name in ("run", "result"))
    assert run["hash"] == result["identity"] and run["schema"] == result["schema"] == 3
    settings = {"degree": 2, "path_length": 4, "num_nodes": 50, "query": "after", "edges": "shuffled",
                "direction": "away", "edges_as": "triples", "goals": 1, "copies": 1}  # fmt: skip
    assert run["task"] == {"_target_": "nextfail.tasks.path_star.task.PathStar", **settings}
    assert run["classes"]["task"] == {"name": "path_star", "revision": 1}
    assert result["task"] == {"name": "G(2,4)", "settings": settings, "hard_position": 1}
    assert result["judged_by"] == "exact_match"
    assert run["budget"]["max_steps"] == result["steps"] == 40
    assert result["samples_seen"] == 40 * 128
    assert result["exact_match"]["n"] == 100 and len(result["token_accuracy"]) == 4
    header, *rows = (run_folder / "metrics.csv").read_text().splitlines()
    assert header.startswith("step,split,loss") and "second" not in header
    assert [row.split(",")[:2] for row in rows[:2]] == [["10", "train"], ["10", "validation"]]
    assert rows[-1].startswith("40,test")


def test_nothing_of_the_display_is_in_the_identity(run_folder: Path, tmp_path: Path) -> None:
    done = train(f"hydra.run.dir='{run_folder}'", "task=g2_4", "logger=tensorboard", "callbacks=none", cwd=tmp_path)
    assert "exact match" in done.stdout and not (run_folder / "tensorboard").exists()


def test_sweep_goes_on_past_a_failed_job(tmp_path: Path) -> None:
    done = sweep(
        "objective=teacher_forcing,reverse",
        "task.num_nodes=50,8",
        "hydra.launcher.n_jobs=2",
        cwd=tmp_path,
        code=1,
    )
    results = sorted(path.parent.name for path in (tmp_path / "runs/debug").glob("*/result.json"))
    assert len(results) == 2 and all(name.endswith("task.num_nodes=50") for name in results)
    assert "4 runs: 2 done now, 2 failed" in done.stderr
    assert "task.num_nodes=8 is too small for G(2,5): needs at least 9" in done.stderr
    again = sweep("objective=teacher_forcing,reverse", "task.num_nodes=50", cwd=tmp_path)
    assert again.stderr.splitlines() == ["2 runs: 2 done before", "to compare them: nextfail-report runs/debug"]


def test_loss_that_is_not_finite_ends_as_diverged(tmp_path: Path) -> None:
    train("hydra.run.dir=run", "optimizer.lr=1e30", cwd=tmp_path)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["outcome"] == "diverged" and result["steps"] < 40


def test_stops_at_the_target(tmp_path: Path) -> None:
    train("hydra.run.dir=run", "trainer.stop_at=1e-9", "objective=teacherless", "task=g2_3", "trainer.max_steps=400",
          cwd=tmp_path)  # fmt: skip
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] < 400 and rows[-1].startswith(f"{result['steps']},test")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.num_nodes=8"], "task.num_nodes=8 is too small for G(2,5): needs at least 9"),
        (["data=files", "data.train_file=no.txt", "data.test_file=no.txt"], "no.txt: No such file or directory"),
        (["task.degree=1"], "task.degree=1 is not a whole number of at least 2"),
        (["task.path_length=2"], "task.path_length=2 is not a whole number of at least 3"),
        (["task.num_nodes=9", "data.test=200000"], "distinct problems of G(2,5) exist"),
        (["model.heads=5"], "model.heads=5 does not divide model.width=32"),
        (["model.depth=0"], "model.depth=0 is not a whole number of at least 1"),
        (["+model.foo=1"], "unknown key model.foo"),
        (["graph=g2_4"], "unknown key graph: the graph is a task now: choose task=NAME, or set task.KEY"),
        (["data.query=before"], "unknown key data.query: did you mean task.query?"),
        (["objective=nonsense"], "objective=nonsense: there is no such option: choose one of any_order"),
        (["trainer.max_step=3"], "did you mean trainer.max_steps"),
        (["trainer.max_steps=many"], "trainer.max_steps='many' is not a whole number of at least 1"),
        (["trainer.val_every=0"], "trainer.val_every=0 is not a whole number of at least 1"),
        (["trainer.stop_at=95"], "trainer.stop_at=95 is not a number above 0 and up to 1 or null"),
        (["seed=-1"], "seed=-1 is not a whole number"),
        (["data=files"], "data.train_file has no value"),
        (["objective._target_=no.such.Thing"], "objective._target_=no.such.Thing: there is no module no"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistake_gets_one_message(overrides: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused("train", *TINY, *overrides, cwd=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_mistake_leaves_the_folder_free(tmp_path: Path) -> None:
    refused("train", *TINY, "hydra.run.dir=run", "model.heads=5", cwd=tmp_path)
    train("hydra.run.dir=run", cwd=tmp_path)


def test_traceback_on_request(tmp_path: Path) -> None:
    done = call("train", *TINY, "model.heads=5", cwd=tmp_path, code=1, env={"NEXTFAIL_DEBUG": "1"})
    assert "Traceback" in done.stderr and "does not divide" in done.stderr


def test_full_disk_costs_nothing_that_was_saved(run_folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(disk)]  # room for the first checkpoints alone
    if not shutil.which("mount") or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        run = ("task=g2_4", f"hydra.run.dir={disk}/run")
        message = refused("train", *TINY, *run, cwd=tmp_path)
        assert "No space left on device" in message
        assert (disk / "run/checkpoints/last.ckpt").exists() and not (disk / "run/result.json").exists()
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        train(*run, cwd=tmp_path)
        assert_same(run_folder, disk / "run")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_slurm_without_slurm_is_told(tmp_path: Path) -> None:
    asked = ("train", "-m", *TINY, "hydra/launcher=slurm", "seed=0,1")
    done = call(*asked, cwd=tmp_path, code=2, env={"PATH": str(tmp_path)})
    assert "there is no srun on this machine" in done.stderr and "Traceback" not in done.stderr
