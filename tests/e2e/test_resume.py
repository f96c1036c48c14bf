"""A run that was cut ends as if it had not been; a run that is done is left alone; nothing is overwritten."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from commands import TINY, assert_same, call, command, refused, train, train_until, wait_for

GRAPH = "task=g2_4"  # that of the fixture


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_cut_run_ends_as_the_uncut_one(run_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "run"
    code, errors = train_until(folder, 20, number, GRAPH, cwd=tmp_path)
    assert not (folder / "result.json").exists()
    state = json.loads((folder / "status.json").read_text())["state"]
    if number == signal.SIGKILL:
        assert (code, state) == (-9, "running")
    else:
        assert (code, state) == (130, "cut")
        assert "the same command resumes" in errors and "Traceback" not in errors
    train(f"hydra.run.dir={folder}", GRAPH, cwd=tmp_path)
    assert_same(run_folder, folder)


def test_truncated_checkpoint_falls_back_to_the_one_before(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train_until(folder, 30, signal.SIGINT, GRAPH, cwd=tmp_path)  # a kill could come between the renames of the two
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    train(f"hydra.run.dir={folder}", GRAPH, cwd=tmp_path)
    assert "is a damaged checkpoint" in (folder / "train.log").read_text()
    assert_same(run_folder, folder)


def test_done_run_is_skipped_without_torch(run_folder: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_folder.glob("*.*")}
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = call("train", *TINY, f"hydra.run.dir='{run_folder}'", GRAPH, cwd=tmp_path, env={"PYTHONPATH": path})
    assert "exact match" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in before if p.name != "train.log"} == {
        p: time for p, time in before.items() if p.name != "train.log"
    }


def test_folder_of_another_run_is_refused_with_the_difference(run_folder: Path, tmp_path: Path) -> None:
    message = refused("train", *TINY, f"hydra.run.dir='{run_folder}'", GRAPH, "seed=1", cwd=tmp_path)
    assert "seed: 0 there, 1 asked for" in message and "depth" not in message


def test_on_existing(run_folder: Path, tmp_path: Path) -> None:
    same = (*TINY, f"hydra.run.dir='{run_folder}'", GRAPH)
    assert "exists already" in refused("train", *same, "on_existing=fail", cwd=tmp_path)
    assert "choose resume, restart or fail" in refused("train", *same, "on_existing=maybe", cwd=tmp_path)


@pytest.mark.slow
def test_restart_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(f"hydra.run.dir={folder}", cwd=tmp_path)
    first = (folder / "result.json").stat().st_ino
    train(f"hydra.run.dir={folder}", "on_existing=restart", cwd=tmp_path)
    assert (folder / "result.json").stat().st_ino != first
    assert (folder / "metrics.csv").read_text().count("validation") == 4


@pytest.mark.slow
def test_truncated_result_is_made_again(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(f"hydra.run.dir={folder}", GRAPH, cwd=tmp_path)
    whole = (folder / "result.json").read_text()
    (folder / "result.json").write_text(whole[:100])
    train(f"hydra.run.dir={folder}", GRAPH, cwd=tmp_path)
    assert_same(run_folder, folder)


def test_workers_stop_when_the_sweep_is_killed(tmp_path: Path) -> None:
    arguments = command("train", "-m", *TINY, "seed=0,1", "trainer.max_steps=100000", "hydra.launcher.n_jobs=2")
    sweep = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folders = [tmp_path / "runs" / "debug" / f"model.depth=2,model.width=32,trainer.max_steps=100000,"
               f"trainer.val_every=10,optimizer.lr=0.003,seed={seed}" for seed in (0, 1)]  # fmt: skip
    for folder in folders:
        wait_for(folder / "metrics.csv", "\n10,validation")
    sweep.kill()
    sweep.wait()
    for folder in folders:
        wait_for(folder / "status.json", '"state": "cut"', seconds=30)
