"""Running the commands as a user does, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import warm

TINY = (
    "debug=default",
    "model.depth=2",
    "model.width=32",
    "trainer.max_steps=40",
    "trainer.val_every=10",
    "optimizer.lr=0.003",
)
"""A run of a few seconds, most of which are imports."""

SHORT = ("debug=default", "model.depth=1", "model.width=16", "callbacks=none")
"""A shorter one."""


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"nextfail.cli.{name}", *map(str, arguments)]


def call(
    name: str, *arguments: object, cwd: Path, code: int = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and check its exit code; with `env`, in a process that starts from nothing."""
    if env is None:
        done = warm.call(f"nextfail.cli.{name}", [*map(str, arguments)], cwd, dict(os.environ), timeout=300)
    else:
        done = subprocess.run(
            command(name, *arguments), cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def train(*overrides: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return call("train", *TINY, *overrides, cwd=cwd, code=code)


def short(*overrides: object, cwd: Path, **more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return call("train", *SHORT, *overrides, cwd=cwd, **more)


def sweep(*overrides: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return call("train", "-m", *TINY, *overrides, cwd=cwd, code=code)


def refused(name: str, *arguments: object, cwd: Path) -> str:
    """The one message of a command that must refuse: code 2, nothing but the message on stderr."""
    done = call(name, *arguments, cwd=cwd, code=2)
    assert "Traceback" not in done.stderr
    assert done.stderr.count(f"nextfail-{name}:") == 1 and done.stderr.startswith(f"nextfail-{name}:")
    return done.stderr


def train_until(folder: Path, step: int, number: signal.Signals, *overrides: object, cwd: Path) -> tuple[int, str]:
    """Start a run, send it a signal once it has validated at `step`, and return its exit code and stderr."""
    arguments = command("train", *TINY, f"hydra.run.dir={folder}", *overrides)
    process = subprocess.Popen(arguments, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(folder / "metrics.csv", f"\n{step},validation")
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def wait_for(path: Path, text: str, seconds: float = 120) -> None:
    """Return when a file holds a text."""
    end = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < end, f"{path} never held {text!r}"
        time.sleep(0.02)


def until(true: Callable[[], object], seconds: float = 120) -> None:
    """Return when something has become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.05)


def runs(folder: Path) -> set[str]:
    """Run folders below one, by their names; every other folder is named, too."""
    return {path.name for path in folder.iterdir()}


def run_of(cwd: Path, seed: int) -> Path:
    """The folder of the one run with a seed in the sweep `name=s`."""
    (found,) = (cwd / "runs/s").glob(f"*seed={seed}")
    return found


def trained(cwd: Path, seed: int) -> Path:
    """The same, once it has validated at step 20."""
    until(lambda: list((cwd / "runs/s").glob(f"*seed={seed}")))
    wait_for(run_of(cwd, seed) / "metrics.csv", "\n20,validation")
    return run_of(cwd, seed)


def states(folder: Path) -> dict[str, str]:
    """State of each run at or below a folder, as nextfail-status tells it, by its seed or else by its folder."""
    runs = json.loads(call("status", folder, "--json", cwd=folder).stdout)
    return {run["folder"].rpartition("seed=")[2]: run["state"] for run in runs}


DIFFERENT = ("seconds", "samples_per_second", "git_commit")


def result(folder: Path) -> dict[str, Any]:
    """What must not depend on the clock, on being cut, or on a commit meanwhile."""
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return {key: value for key, value in content.items() if key not in DIFFERENT}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def assert_same(one: Path, other: Path) -> None:
    """Two runs ended with the same bits."""
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    assert result(one) == result(other)
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
