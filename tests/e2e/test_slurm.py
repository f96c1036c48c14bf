"""Sweeps on a real SLURM, the one-node cluster of tests/slurm/cluster.py: make test-slurm."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import assert_same, call, command, run_of, states, trained, until

sys.path.append(str(Path(__file__).parents[1] / "slurm"))
import cluster

pytestmark = pytest.mark.slurm

RUN = ("debug=default", "name=s", "model.depth=1", "model.width=16", "trainer.val_every=20", "callbacks=none")
SHORT = (*RUN, "trainer.max_steps=40")
LONG = (*RUN, "trainer.max_steps=1200")  # long enough to be met while it runs
SLURM = ("hydra/launcher=slurm", "hydra.launcher.mem_gb=0.5", "hydra.launcher.timeout_min=10")


@pytest.fixture(autouse=True, scope="module")
def _cluster() -> Iterator[None]:
    assert cluster.CONF.exists(), "no cluster: make test-slurm brings one up"
    os.environ["SLURM_CONF"] = str(cluster.CONF)
    yield
    cluster.call("scancel", "--user=root")


class Sweep:
    """A sweep under way, as a command of its own."""

    def __init__(self, cwd: Path, *overrides: str) -> None:
        self.cwd = cwd
        arguments = command("train", "-m", *overrides)
        self.process = subprocess.Popen(arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def folder(self, seed: int) -> Path:
        return run_of(self.cwd, seed)

    def trained(self, seed: int) -> Path:
        return trained(self.cwd, seed)

    def end(self, code: int) -> str:
        """What it said on stderr."""
        out, err = self.process.communicate(timeout=240)
        assert self.process.returncode == code, f"exit code {self.process.returncode}\n{out}\n{err}"
        return err


def job(folder: Path) -> str:
    """Id of the job that a run was sent off as."""
    return str(json.loads((folder / "job.json").read_text())["job"])


def pid(folder: Path) -> int:
    return int(json.loads((folder / "status.json").read_text())["pid"])


def restarts(name: str) -> int:
    """How often SLURM started a job again."""
    match = re.search(r"Restarts=(\d+)", cluster.call("scontrol", "show", "job", name))
    assert match
    return int(match[1])


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LONG with seed 0 on this machine, without SLURM and without a cut."""
    folder = tmp_path_factory.mktemp("uncut")
    call("train", *LONG, "seed=0", "hydra.run.dir=run", cwd=folder)
    return folder / "run"


def test_sweep_in_arrays_gives_the_bits_of_the_local_one(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "local").mkdir()
    axes = ("objective=teacher_forcing,reverse", "seed=0,1,2")
    done = call("train", "-m", *SHORT, *axes, *SLURM, "hydra.launcher.array_parallelism=2", cwd=tmp_path / "slurm")
    assert "6 runs: 6 done now" in done.stderr
    call("train", "-m", *SHORT, *axes, cwd=tmp_path / "local")
    runs = sorted((tmp_path / "local/runs/s").glob("*seed=*"))
    assert len(runs) == 6
    for run in runs:
        assert_same(run, tmp_path / "slurm/runs/s" / run.name)
    scripts = [path.read_text() for path in sorted((tmp_path / "slurm/runs/s/.slurm").glob("*_submission.sh"))]
    assert any("--array=0-4%2" in script for script in scripts)  # MaxArraySize is 5
    assert len(scripts) == 2 and any("--dependency=afterany:" in script for script in scripts)
    again = call("train", "-m", *SHORT, *axes, *SLURM, cwd=tmp_path / "local")
    assert "6 runs: 6 done before" in again.stderr  # what a laptop did counts on the cluster


@pytest.mark.parametrize("how", ["requeue", "USR2", "TERM"])
def test_requeued_run_ends_as_if_nothing_had_happened(tmp_path: Path, uncut: Path, how: str) -> None:
    sweep = Sweep(tmp_path, *LONG, "seed=0", *SLURM)
    name = job(folder := sweep.trained(0))
    if how == "requeue":  # preemption, or an administrator
        cluster.call("scontrol", "requeue", name)
    else:  # the time limit is near; a partition that warns before it preempts
        cluster.call("scancel", f"--signal={how}", name)
    assert "1 run: 1 done now" in sweep.end(code=0)
    assert restarts(name) == 1
    assert_same(uncut, folder)


def test_real_time_limit(tmp_path: Path) -> None:
    endless = (*RUN, "trainer.max_steps=1000000", "seed=0")
    sweep = Sweep(tmp_path, *endless, *SLURM, "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=20")
    name = job(folder := sweep.trained(0))
    until(lambda: restarts(name) == 1, seconds=150)
    until(lambda: (folder / "train.log").read_text().count("training from step") == 2)
    first, second = re.findall(r"training from step (\d+)", (folder / "train.log").read_text())
    assert int(first) == 0 < 20 <= int(second)
    cluster.call("scancel", name)
    assert "1 run: 1 cut" in sweep.end(code=1)


def test_time_limit_without_requeue_ends_as_cut(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, *LONG, "seed=0", *SLURM, "hydra.launcher.requeue=0")
    cluster.call("scancel", "--signal=USR2", job(sweep.trained(0)))
    told = sweep.end(code=1)
    assert "1 run: 1 cut" in told and "hydra.launcher.requeue" in told
    assert states(tmp_path / "runs/s") == {"0": "cut"}


def test_one_cancelled_one_killed_one_whole(tmp_path: Path, uncut: Path) -> None:
    sweep = Sweep(tmp_path, *LONG, "seed=0,1,2", *SLURM)
    cancelled, killed = sweep.trained(1), sweep.trained(2)
    cluster.call("scancel", job(cancelled))
    os.kill(pid(killed), signal.SIGKILL)  # as the kernel does to a job that takes too much memory
    began = time.monotonic()
    until(lambda: states(tmp_path / "runs/s").get("1") == states(tmp_path / "runs/s").get("2") == "cut")
    assert time.monotonic() - began < 30
    told = sweep.end(code=1)
    assert "3 runs: 1 done now, 2 cut" in told
    (reason,) = [line for line in told.splitlines() if "seed=1" in line and "cut:" in line]
    assert f"job {job(cancelled)} ended: CANCELLED" in reason
    (reason,) = [line for line in told.splitlines() if "seed=2" in line and "cut:" in line]
    assert f"job {job(killed)} ended: FAILED" in reason
    assert_same(uncut, sweep.folder(0))
    again = Sweep(tmp_path, *LONG, "seed=0,1,2", *SLURM).end(code=0)
    assert "3 runs: 1 done before, 2 done now" in again


def test_controller_that_is_away_for_a_while(tmp_path: Path, uncut: Path) -> None:
    sweep = Sweep(tmp_path, *LONG, "seed=0,1", *SLURM)
    folder = sweep.trained(0)
    cluster.stop("slurmctld")
    time.sleep(15)  # longer than two questions to it are apart
    cluster.start("slurmctld")
    assert "2 runs: 2 done now" in sweep.end(code=0)
    assert_same(uncut, folder)


def test_detached_sweep_is_found_again(tmp_path: Path) -> None:
    sent = call("train", "-m", *LONG, "seed=0,1", *SLURM, "hydra.launcher.detach=true", cwd=tmp_path)
    assert "2 runs: 2 sent to SLURM" in sent.stderr
    assert set(states(tmp_path / "runs/s").values()) <= {"pending", "running"}
    names = {job(folder) for folder in (tmp_path / "runs/s").glob("*seed=*")}
    again = Sweep(tmp_path, *LONG, "seed=0,1", *SLURM).end(code=0)
    assert "2 runs: 2 done now" in again
    assert {job(folder) for folder in (tmp_path / "runs/s").glob("*seed=*")} == names  # nothing was sent twice


def test_command_that_is_killed_leaves_its_jobs_alone(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, *LONG, "seed=0", *SLURM)
    name = job(sweep.trained(0))
    sweep.process.kill()
    again = Sweep(tmp_path, *LONG, "seed=0", *SLURM)
    assert "1 run: 1 done now" in again.end(code=0)
    assert job(again.folder(0)) == name


def test_job_that_cannot_begin_is_failed_with_its_log(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, *SHORT, "seed=0", *SLURM, "hydra.launcher.setup=[exit 3]")
    told = sweep.end(code=1)
    assert "1 run: 1 failed" in told and "FAILED (exit code 3:0)" in told and "_log.err" in told


def test_what_sbatch_refuses_is_told(tmp_path: Path) -> None:
    told = Sweep(tmp_path, *SHORT, "seed=0,1", *SLURM, "hydra.launcher.partition=nowhere").end(code=1)
    assert "2 runs: 2 refused" in told and "invalid partition" in told and "Traceback" not in told
    assert states(tmp_path / "runs/s") == {"0": "missing", "1": "missing"}
