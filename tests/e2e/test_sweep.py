"""Sweeps on this machine: rerunning is resuming, no run takes another along, and nothing is trained twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from commands import assert_same, call, command, run_of, states, train_until, trained, until

TINY = ("debug=default", "name=s", "model.depth=1", "model.width=16", "trainer.val_every=20", "callbacks=none")
SHORT = (*TINY, "trainer.max_steps=20")
LONG = (*TINY, "trainer.max_steps=600")  # long enough to be met while it runs
LONGER = (*TINY, "trainer.max_steps=3000")  # and while another command starts meanwhile
TWO = "hydra.launcher.n_jobs=2"


def sweep(cwd: Path, *overrides: str, code: int = 0) -> str:
    """What a sweep says on stderr."""
    return call("train", "-m", *overrides, cwd=cwd, code=code).stderr


def start(cwd: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("train", "-m", *overrides), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str], code: int) -> str:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    return errors


def status(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return content


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LONG, seed 0, without a cut."""
    folder = tmp_path_factory.mktemp("uncut")
    call("train", *LONG, "seed=0", "hydra.run.dir=run", cwd=folder)
    return folder / "run"


def test_a_grown_sweep_runs_only_what_is_new(tmp_path: Path) -> None:
    ended = sweep(tmp_path, *SHORT, "seed=0,1").splitlines()[-2:]
    assert ended == ["2 runs: 2 done now", "to compare them: nextfail-report runs/s"]
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    grown = sweep(tmp_path, *SHORT, "seed=0,1,2", "objective=teacher_forcing")  # other names, and yet the same runs
    assert grown.splitlines()[-2] == "3 runs: 2 done before, 1 done now"
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert sweep(tmp_path, *SHORT, "seed=2,0,0,0").splitlines()[-2] == "2 runs: 2 done before"


def test_what_is_done_costs_neither_torch_nor_a_process(tmp_path: Path) -> None:
    sweep(tmp_path, *SHORT, "seed=0")
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = call("train", "-m", *SHORT, "seed=0", cwd=tmp_path, env={"PYTHONPATH": path})
    assert done.stderr.strip() == "1 run: 1 done before"


@pytest.mark.faults
def test_killed_run_leaves_the_others_alone(tmp_path: Path, uncut: Path) -> None:
    process = start(tmp_path, *LONG, "seed=0,1", TWO)
    trained(tmp_path, 0)
    os.kill(status(killed := trained(tmp_path, 1))["pid"], signal.SIGKILL)
    told = end(process, code=1)
    assert "2 runs: 1 done now, 1 cut" in told and "killed by SIGKILL" in told and killed.name in told
    assert_same(uncut, run_of(tmp_path, 0))
    assert states(tmp_path / "runs") == {"0": "done", "1": "cut"}
    assert "2 runs: 1 done before, 1 done now" in sweep(tmp_path, *LONG, "seed=0,1")


@pytest.mark.faults
def test_killed_command_is_gone_on_with(tmp_path: Path, uncut: Path) -> None:
    process = start(tmp_path, *LONG, "seed=0,1,2", TWO)
    first = trained(tmp_path, 0)
    process.kill()
    process.wait()
    until(lambda: status(first)["state"] == "cut")  # its workers notice, and save
    until(lambda: set(states(tmp_path / "runs").values()) == {"cut", "missing"})
    assert "3 runs: 3 done now" in sweep(tmp_path, *LONG, "seed=0,1,2", TWO)
    assert_same(uncut, first)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_sweep_that_is_asked_to_stop_saves_its_runs(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, *LONG, "seed=0,1,2", TWO)
    trained(tmp_path, 0), trained(tmp_path, 1)
    process.send_signal(number)
    told = end(process, code=130)
    assert "3 runs: 2 cut, 1 not started" in told and "Traceback" not in told
    assert states(tmp_path / "runs") == {"0": "cut", "1": "cut", "2": "missing"}


@pytest.mark.faults
def test_two_commands_share_a_sweep(tmp_path: Path, uncut: Path) -> None:
    commands = [start(tmp_path, *LONG, "seed=0,1,2", "hydra.launcher.n_jobs=1") for _ in range(2)]
    for process in commands:
        assert "3 runs: 3 done now" in end(process, code=0)
    for seed in range(3):
        log = (run_of(tmp_path, seed) / "train.log").read_text()
        assert log.count("training from step 0") == log.count("training from step") == 1
    assert_same(uncut, run_of(tmp_path, 0))


@pytest.mark.faults
def test_run_that_another_command_left_undone_is_taken_over(tmp_path: Path) -> None:
    first = start(tmp_path, *LONGER, "seed=0")
    trained(tmp_path, 0)
    second = start(tmp_path, *LONGER, "seed=0")
    time.sleep(4)  # it is waiting by now, or will find the lock of a dead process
    first.send_signal(signal.SIGTERM)
    end(first, code=130)
    assert "1 run: 1 done now" in end(second, code=0)


@pytest.mark.faults
def test_single_run_in_use_is_refused(tmp_path: Path) -> None:
    process = start(tmp_path, *LONG, "seed=0")
    folder = trained(tmp_path, 0)
    refused = call("train", *LONG, "seed=0", f"hydra.run.dir='{folder}'", cwd=tmp_path, code=2)
    assert f"is in use: process {status(folder)['pid']} on " in refused.stderr
    process.terminate()
    end(process, code=130)


@pytest.mark.faults
def test_slurm_test_takes_the_way_of_slurm(tmp_path: Path, uncut: Path) -> None:
    process = start(tmp_path, *LONG, "seed=0,1", "hydra/launcher=slurm_test")
    os.kill(status(trained(tmp_path, 0))["pid"], signal.SIGUSR2)  # as at a time limit
    os.kill(status(trained(tmp_path, 1))["pid"], signal.SIGKILL)
    told = end(process, code=1)
    assert "2 runs: 1 done now, 1 cut" in told
    assert (run_of(tmp_path, 0) / "train.log").read_text().count("training from step") == 2
    assert_same(uncut, run_of(tmp_path, 0))
    assert "2 runs: 1 done before, 1 done now" in sweep(tmp_path, *LONG, "seed=0,1", "hydra/launcher=slurm_test")


@pytest.mark.faults
def test_truncated_status_or_result_loses_nothing(tmp_path: Path, uncut: Path) -> None:
    folder = tmp_path / "runs/s" / "run"
    train_until(folder, 20, signal.SIGTERM, *LONG, "seed=0", "optimizer.lr=0.001", cwd=tmp_path)
    (folder / "status.json").write_text('{"state": "cu')
    (folder / "result.json").write_text('{"outcome": "sol')
    assert states(tmp_path / "runs") == {str(folder): "cut"}
    call("train", *LONG, "seed=0", f"hydra.run.dir={folder}", cwd=tmp_path)
    assert_same(uncut, folder)


def test_mistakes_of_a_launcher_are_told(tmp_path: Path) -> None:
    for overrides, message in [
        (["hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0 is not a whole number of at least 1"),
        (
            ["hydra/launcher=slurm_test", "hydra.launcher.array_parallelism=0"],
            "hydra.launcher.array_parallelism=0 is not",
        ),
        (["hydra/launcher=slurm_test", "hydra.launcher.requeue=often"], "hydra.launcher.requeue='often' is not"),
        (
            ["hydra/launcher=slurm", "hydra.launcher.mem_gb=lots"],
            "hydra.launcher.mem_gb='lots' is not a number",
        ),
        (["hydra/launcher=slurm", "hydra.launcher.detach=maybe"], "hydra.launcher.detach='maybe' is not true"),
        (["hydra/sweeper=optuna", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0 is not a whole number"),
    ]:
        done = call("train", "-m", *SHORT, "seed=0", *overrides, cwd=tmp_path, code=2)
        assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.faults
def test_study_goes_on_with_what_is_left(tmp_path: Path) -> None:
    search = (*SHORT, "hydra/sweeper=optuna", "optimizer.lr=tag(log,interval(1e-4,1e-2))",
              "optimizer.weight_decay=0.1,0.2")  # fmt: skip
    assert "2 runs: 2 done now" in sweep(tmp_path, *search, "hydra.sweeper.n_trials=2")
    assert "2 runs: 2 done now" in sweep(tmp_path, *search, "hydra.sweeper.n_trials=4")
    done = call("train", "-m", *search, "hydra.sweeper.n_trials=4", cwd=tmp_path)
    assert done.stdout.startswith("best of 4 trials: exact match") and not done.stderr
    assert len(list((tmp_path / "runs/s").glob("*/result.json"))) == 4
    other = call("train", "-m", *search, "seed=1", "hydra.sweeper.n_trials=4", cwd=tmp_path, code=2)
    assert "their trials cannot be compared" in other.stderr


@pytest.mark.faults
def test_trial_that_was_cut_is_gone_on_with(tmp_path: Path) -> None:
    search = (*LONG, "hydra/sweeper=optuna", "seed=0,1,2,3,4,5,6,7", "hydra.sweeper.n_trials=1")
    process = start(tmp_path, *search)
    until(lambda: list((tmp_path / "runs/s").glob("*seed=*/metrics.csv")))
    (folder,) = (tmp_path / "runs/s").glob("*seed=*")
    process.kill()
    process.wait()
    assert "1 run: 1 done now" in sweep(tmp_path, *search)
    assert [path.parent for path in (tmp_path / "runs/s").glob("*/result.json")] == [folder]


PRETENDING = """
from nextfail.sweeps import pool
pool.gpus = lambda: ["GPU-a", "GPU-b"]
from nextfail.cli.train import main
main()
"""


def test_each_process_of_a_sweep_sees_its_own_gpu(tmp_path: Path) -> None:
    """auto finds no GPU here and takes the CPU, in a process that is told which GPU to use."""
    overrides = [*TINY, "trainer.accelerator=auto", "name=gpus", "seed=0,1,2", "trainer.max_steps=2"]
    done = subprocess.run(
        [sys.executable, "-c", PRETENDING, "-m", *overrides], cwd=tmp_path, capture_output=True, text=True
    )
    assert "3 runs: 3 done now" in done.stderr, done.stderr
    logs = [path.read_text() for path in tmp_path.glob("runs/gpus/*/train.log")]
    seen = Counter(next(name for name in ("GPU-a", "GPU-b") if f", GPU {name}" in log) for log in logs)
    assert sum(seen.values()) == 3 and set(seen) == {"GPU-a", "GPU-b"}
