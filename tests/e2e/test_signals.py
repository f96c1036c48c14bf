"""Closed sessions, Ctrl-C at any moment, odd locks and folders, as a user meets them at the command line."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest
from commands import TINY, call, command, refused, states, train_until, until, wait_for

SWEEP = ("train", "-m", "debug=default", "name=s", "model.depth=1", "model.width=16", "callbacks=none",
         "trainer.val_every=20")  # fmt: skip
TWO = "seed=0,1"


@pytest.fixture(autouse=True)
def signals_are_not_ignored() -> None:
    """As it is unless the tests themselves run in the background of a script, or under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def own_terminal() -> None:
    """Let this process have its standard input as the terminal of its session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_run_in_a_session_that_closes_is_saved(tmp_path: Path) -> None:
    folder, (ours, theirs) = tmp_path / "run", pty.openpty()
    process = subprocess.Popen(
        command("train", *TINY, "trainer.max_steps=4000", f"hydra.run.dir={folder}"), cwd=tmp_path,
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=own_terminal,
    )  # fmt: skip
    os.close(theirs)
    wait_for(folder / "metrics.csv", "\n20,validation")
    os.close(ours)  # the window is closed: SIGHUP, and nobody reads what is written
    assert process.wait(timeout=60) == 130
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["checkpoint"]) == ("cut", status["step"]) and status["step"] >= 20
    assert not (folder / "error.txt").exists()
    said = call("status", folder, cwd=tmp_path).stdout
    assert f"the same command resumes from step {status['step']:,}" in said


@pytest.mark.slow
def test_nohup_is_respected(tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    code, errors = train_until(tmp_path / "run", 20, signal.SIGHUP, cwd=tmp_path)
    assert code == 0, errors


@pytest.mark.faults
def test_a_sweep_in_a_session_that_closes_is_saved(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(*SWEEP, "trainer.max_steps=4000", "hydra.launcher.n_jobs=1", TWO), cwd=tmp_path, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    until(lambda: list(tmp_path.glob("runs/s/*/checkpoints/last.ckpt")))
    os.killpg(process.pid, signal.SIGHUP)  # as a terminal does, to all of its processes
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert states(tmp_path / "runs") == {"0": "cut", "1": "missing"}


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_two_signals_at_once_leave_no_worker_behind(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(*SWEEP, "trainer.max_steps=20000", TWO), cwd=tmp_path, stderr=subprocess.DEVNULL, text=True
    )
    until(lambda: len([*tmp_path.glob("runs/s/*/checkpoints/last.ckpt")]) == 2)
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(number)
    process.wait(timeout=60)
    until(lambda: set(states(tmp_path / "runs").values()) == {"cut"}, 30)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("made", "seconds"), [("multirun.yaml", 0.0), (".sweeps", 0.0), (".sweeps", 1.0), (".sweeps", 3.0)]
)
def test_ctrl_c_early_in_a_sweep_starts_nothing_more(made: str, seconds: float, tmp_path: Path) -> None:
    """While runs are planned, while the first processes start, and while they import torch."""
    process = subprocess.Popen(
        command(*SWEEP, "trainer.max_steps=4000", TWO), cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    until((tmp_path / "runs/s" / made).exists)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 130, errors
    assert not any(text in errors for text in ("EOF", "Traceback", "failed", "refused")), errors
    assert not list(tmp_path.glob("runs/s/*/error.txt"))
    log = [*tmp_path.glob("runs/s/*/metrics.csv")]
    time.sleep(3)
    assert [*tmp_path.glob("runs/s/*/metrics.csv")] == log, "nothing was begun afterwards"


@pytest.mark.slow
def test_a_long_temporary_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    told = call(*SWEEP, "trainer.max_steps=20", TWO, cwd=tmp_path, env={"TMPDIR": str(folder)})
    assert "2 runs: 2 done now" in told.stderr


@pytest.mark.faults
def test_a_lock_that_is_none_does_not_hold_a_sweep_up(tmp_path: Path) -> None:
    call(*SWEEP, "trainer.max_steps=20", TWO, cwd=tmp_path)
    one, other = sorted(tmp_path.glob("runs/s/*seed=*"))
    for run in (one, other):
        (run / "result.json").unlink()
    (one / ".lock").mkdir()
    (other / ".lock").write_text("{}")
    os.utime(other / ".lock", (2**31, 2**31))  # 2038
    told = call(*SWEEP, "trainer.max_steps=20", TWO, cwd=tmp_path, code=1).stderr
    assert "2 runs: 1 done now, 1 failed" in told and "cannot lock the run" in told
    assert (one / ".lock").is_dir()


@pytest.mark.parametrize("name", ["../../evil", "/absolute", "a/../../../evil"])
def test_a_name_that_leads_out_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    name = name.replace("/absolute", str(tmp_path / "evil"))
    (inside := tmp_path / "a/b").mkdir(parents=True)
    for sweep in ((), ("-m",)):
        assert f"name={name!r} is not the name of a folder below runs/" in refused(
            "train", *sweep, *TINY, f"name={name}", cwd=inside
        )
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/b"]


def test_a_users_own_folder_is_left_as_it_is(tmp_path: Path) -> None:
    (mine := tmp_path / "mine").mkdir()
    for name in ("metrics.csv", "thesis.tex", "train.log"):
        (mine / name).write_text("mine")
    told = refused("train", *TINY, "hydra.run.dir=mine", cwd=tmp_path)
    assert f"{mine} has metrics.csv, thesis.tex, and is not a run of nextfail" in told
    assert {path.name: path.read_text() for path in mine.iterdir()} == dict.fromkeys(
        ("metrics.csv", "thesis.tex", "train.log"), "mine"
    )


def test_a_sweep_follows_no_link_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "photo").write_text("mine")
    (tmp_path / "runs/s").mkdir(parents=True)
    (tmp_path / "runs/s/multirun.yaml").symlink_to(tmp_path / "photo")
    assert "multirun.yaml is a link" in refused(*SWEEP, TWO, cwd=tmp_path)
    (tmp_path / "runs/s/multirun.yaml").unlink()
    (tmp_path / "runs/s/.sweeps").symlink_to(tmp_path / "theirs")
    assert ".sweeps is a link" in refused(*SWEEP, TWO, cwd=tmp_path)
    assert (tmp_path / "photo").read_text() == "mine" and not [*(tmp_path / "theirs").iterdir()]


def test_clean_and_status_as_commands(tmp_path: Path) -> None:
    call(*SWEEP, "trainer.max_steps=20", TWO, cwd=tmp_path)
    assert "nothing to remove" in call("clean", "runs", cwd=tmp_path).stdout
    assert "--yes removes them" in call("clean", "runs", "--keep", "last", cwd=tmp_path).stdout
    call("clean", "runs", "--keep", "last", "--yes", cwd=tmp_path)
    assert {path.name for path in tmp_path.glob("runs/s/*/checkpoints/*")} == {"last.ckpt"}
