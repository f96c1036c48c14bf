"""Overhead of sweeps: skipping finished runs, reading states, and making a run resumable while it trains."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, below
from benchmarks.work import compose
from nextfail.cli.status import statuses
from nextfail.files import Inside
from nextfail.paths import CONF
from nextfail.runs import lock, naming, table
from nextfail.runs.folder import RunFolder, record
from nextfail.runs.identity import SCHEMA, Identity
from nextfail.training import callbacks, checkpoints

RUNS = 1000  # runs of a finished sweep
MANY = 5000  # runs whose status is read

# Hydra's own sweeper and launcher, our configuration, and an empty job
EMPTY = f"""
import hydra
from nextfail.sweeps import job

@hydra.main(version_base="1.3", config_path={str(CONF)!r}, config_name="train")
def nothing(cfg):
    return 0.0

nothing()
"""


def done_sweep() -> list[Row]:
    """Skipping finished runs, relative to Hydra composing and launching as many empty jobs.

    A fake torch module makes any job fail that imports it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(RUNS):
            done_run(folder / "runs/default" / naming.run_folder([f"seed={seed}"]), seed)
        (folder / "torch.py").write_text("raise SystemExit('torch was imported')")
        (folder / "empty.py").write_text(EMPTY)
        sweep = ("-m", f"seed=range({RUNS})")
        said, ours = timed(folder, "-m", "nextfail.cli.train", *sweep)
        assert f"{RUNS} runs: {RUNS} done before" in said, said
        _, hydra = timed(folder, "empty.py", *sweep, "hydra/launcher=basic", "hydra/sweeper=basic")
    peer = f"Hydra, {RUNS:,} empty jobs"
    return [Row(f"a sweep of {RUNS:,} runs that are done", ours, "s", peer, ours / hydra, **below(1.2, ours / hydra))]


def many_statuses() -> list[Row]:
    """Reading the states of many runs, of several kinds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(MANY):
            path = folder / f"seed={seed}"
            done_run(path, seed)
            if seed % 4:
                (path / "result.json").unlink()
                Inside(path).write_json(
                    "status.json", {"state": ("cut", "failed", "running")[seed % 3], "time": time.time()}
                )
        begun = time.perf_counter()
        found = statuses([folder])
        seconds = time.perf_counter() - begun
        assert len(found) == MANY
    return [Row(f"status of {MANY:,} runs", seconds, "s", **below(3, seconds))]


def safety() -> list[Row]:
    """Share of a demo run's training time that is spent on lock, status, tables and checkpoints."""
    from nextfail.training.run import train

    spent: dict[str, float] = {}
    config = compose("callbacks=none", "trainer.max_steps=500", "trainer.val_every=50")  # as in experiment=demo
    with tempfile.TemporaryDirectory() as name, counted(spent):
        folder = RunFolder(Path(name))
        with folder.locked() as held:
            extra = {"choices": {"model": "transformer", "objective": "teacher_forcing"}, "files": {}}
            folder.claim(Identity.of(config), extra, "resume")
            result = train(config, folder, held)
    share = 100 * sum(spent.values()) / result["seconds"]
    parts = ", ".join(f"{what} {100 * seconds / result['seconds']:.2f} %" for what, seconds in spent.items())
    return [Row(f"of the demo's training time: {parts}", share, "%", **below(2, share))]


@contextmanager
def counted(spent: dict[str, float]) -> Iterator[None]:
    """Sum up the wall seconds spent on lock, status, tables and checkpoints."""
    places: list[tuple[Any, str, str]] = [
        (checkpoints.Checkpoints, "save", "checkpoints"),
        (callbacks.Heartbeat, "write", "status"),
        (table.Table, "add", "tables"),
        (lock.Lock, "check", "lock"),
    ]
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    depth = [0]

    def clocked(body: Callable[..., Any], what: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            depth[0] += 1
            try:
                return body(*arguments, **named)
            finally:
                depth[0] -= 1
                if depth[0] == 0:  # nested calls count towards the outer one
                    spent[what] = spent.get(what, 0.0) + time.perf_counter() - begun

        return call

    for (owner, name, body), (_, _, what) in zip(kept, places, strict=True):
        setattr(owner, name, clocked(body, what))
    try:
        yield
    finally:
        for owner, name, body in kept:
            setattr(owner, name, body)


def done_run(path: Path, seed: int) -> None:
    """Write a run folder of the default configuration with this seed, as if it were done."""
    global _recipe
    if _recipe is None:
        _recipe = Identity.of(compose())
    identity = replace(_recipe, settings=_recipe.settings | {"seed": seed})
    path.mkdir(parents=True)
    proportion = {"value": 0.5, "low": 0.48, "high": 0.52, "n": 2000}
    Inside(path).write_json("run.json", record(identity, {"choices": {"model": "transformer", "objective": "reverse"}}))
    Inside(path).write_json(
        "result.json",
        {
            "schema": SCHEMA,
            "outcome": "clever_hans",
            "identity": identity.hash,
            "exact_match": proportion,
            "steps": 1,
            "samples_seen": 1,
        },
    )


_recipe: Identity | None = None


def timed(folder: Path, *arguments: str) -> tuple[str, float]:
    """Run a Python program; returns its stderr and wall seconds."""
    begun = time.perf_counter()
    environment = {"PYTHONPATH": f"{folder}:{CONF.parent}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stderr, time.perf_counter() - begun
