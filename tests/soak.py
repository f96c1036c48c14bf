"""Kill with SIGKILL at random moments, many of them in the middle of writing a checkpoint, and count what is lost.

python tests/soak.py --kills 300 --sweeps 20 --seed 0 --out soak.json      # make soak

A run is killed, and looked at, and gone on with, over and over until it ends; then it must be the same, bit for bit, as
one that was never killed, and the next begins. In the second part it is sweeps of three runs at two at a time of which
one worker is killed, or the whole command. Lost is: a run whose end differs; a run that cannot go on; a kill that
costs more than the steps since the last checkpoint; a checkpoint, table, status or result that is damaged.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

sys.path.append(str(Path(__file__).parent / "e2e"))
from commands import command, result, weights

from nextfail.errors import RunCut, UserError
from nextfail.files import Inside
from nextfail.runs.folder import RunFolder
from nextfail.runs.lock import owner_of
from nextfail.runs.records import lenient
from nextfail.runs.table import read_rows
from nextfail.training.checkpoints import latest_whole, read_checkpoint

STEPS, EVERY = 24, 2
RUN = ("debug=default", "model.depth=2", "model.width=128", "data.batch_size=16", f"trainer.max_steps={STEPS}",
       f"trainer.val_every={EVERY}", "data.train=2000", "data.validation=20", "data.test=20")  # fmt: skip
LONGEST_SWEEP = 8.0  # seconds from the first sign of life of a sweep to a kill
LONGEST = 1.5  # seconds from the start of a process to its death, unless a write is waited for


def main() -> None:
    """Entry point; exit code 0 only if nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--sweeps", type=int, default=20, metavar="KILLS", help="of workers and whole commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    counts = soak(arguments.kills, arguments.seed, Console(stderr=True))
    counts.update(sweeps(arguments.sweeps, arguments.seed))
    print("\n".join(f"{number:6} {what}" for what, number in counts.items()))
    if arguments.out:
        Inside(arguments.out.parent).write_json(
            arguments.out.name, {"kills": arguments.kills, "seed": arguments.seed, "counts": dict(counts)}
        )
    sys.exit(counts["lost"] > 0)


def soak(kills: int, seed: int, console: Console | None = None) -> Counter[str]:
    """Kill so many times, and count: kills, those in the middle of a write, runs that ended, and what was lost."""
    draw = random.Random(seed)
    counts = Counter(dict.fromkeys(("kills", "in the middle of a checkpoint", "runs ended", "lost"), 0))
    with tempfile.TemporaryDirectory() as name:
        whole, folder = Path(name) / "whole", Path(name) / "killed"
        train(whole).join()
        while counts["kills"] < kills:
            step = checkpoint_step(folder)
            process = train(folder)
            if draw.random() < 0.5:
                await_write(process, folder, draw)
            else:
                process.join(draw.uniform(0.0, LONGEST))
            killed = process.is_alive()
            process.kill()
            process.join()
            counts["kills"] += killed
            counts["in the middle of a checkpoint"] += any(folder.glob("checkpoints/.new.ckpt.*"))
            for complaint in losses(folder, step):
                counts["lost"] += 1
                print(complaint, file=sys.stderr)
            if not killed:
                counts["runs ended"] += 1
                if not same(whole, folder):
                    counts["lost"] += 1
                    print("a run that was killed ended otherwise than one that was not", file=sys.stderr)
                shutil.rmtree(folder)
            if console is not None and console.is_terminal:
                console.print(dict(counts), end="\r")
    return counts


def sweeps(kills: int, seed: int) -> Counter[str]:
    """Kill so many workers and whole commands, and count them, the sweeps that ended, and what was lost."""
    draw = random.Random(seed)
    counts = Counter(dict.fromkeys(("workers killed", "commands killed", "sweeps ended", "lost"), 0))
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        assert start_sweep(whole).wait() == 0
        while counts["workers killed"] + counts["commands killed"] < kills:
            process = start_sweep(killed)
            while process.poll() is None and not owners(killed):
                time.sleep(0.05)
            with suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0.0, LONGEST_SWEEP))
            pids = owners(killed)
            killed_now = process.poll() is None
            if killed_now and (not pids or draw.random() < 0.5):
                process.kill()
                counts["commands killed"] += 1
            elif killed_now:
                os.kill(draw.choice(pids), signal.SIGKILL)
                counts["workers killed"] += 1
            process.wait()
            while owners(killed):  # workers of a killed command, which save
                time.sleep(0.1)
            if process.returncode == 0:
                counts["sweeps ended"] += 1
                for run in sorted(whole.glob("runs/*/*seed=*")):
                    if not same(run, killed / run.relative_to(whole)):
                        counts["lost"] += 1
                        print(f"{run.name} of a sweep that was killed ended otherwise", file=sys.stderr)
                shutil.rmtree(killed)
            elif not killed_now:
                counts["lost"] += 1
                print("a sweep that was not killed did not end well", file=sys.stderr)
                break
    return counts


def start_sweep(folder: Path) -> "subprocess.Popen[bytes]":
    """Begin or go on with a sweep of three runs in a folder."""
    folder.mkdir(exist_ok=True)
    arguments = command(
        "train", "-m", *RUN, "trainer.max_steps=150", "callbacks=none", "seed=0,1,2", "hydra.launcher.n_jobs=2"
    )
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def owners(folder: Path) -> list[int]:
    """Processes that train runs below a folder."""
    found = [owner_of(path) for path in folder.rglob(".lock")]
    return [lock[0].pid for lock in found if lock and lock[0] and lock[0].alive(0.0)]


def train(folder: Path) -> "multiprocessing.context.ForkServerProcess":
    """Go on with the run in a process of its own, which has torch imported already."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["inside", "nextfail.training.run"])
    process = forks.Process(target=_train, args=(folder,))
    process.start()
    return process


def _train(folder: Path) -> None:
    from inside import train_here

    torch.set_num_threads(1)
    with suppress(RunCut):
        train_here(folder, *RUN)


def await_write(process: "multiprocessing.context.ForkServerProcess", folder: Path, draw: random.Random) -> None:
    """Return a moment after one of the next checkpoints began to be written."""
    for _ in range(draw.randrange(1, 4)):
        while process.is_alive() and not any(folder.glob("checkpoints/.new.ckpt.*")):
            time.sleep(0.0002)
        time.sleep(draw.uniform(0.0, 0.003))


def checkpoint_step(folder: Path) -> int:
    """Step of the newest checkpoint that can be gone on from; 0 without any."""
    run = lenient(RunFolder(folder).run_json, Any)
    if run is None:
        return 0
    path, _ = latest_whole(folder / "checkpoints", run["hash"])
    return int(read_checkpoint(path, run["hash"])["global_step"]) if path else 0


def losses(folder: Path, step: int) -> list[str]:
    """What a kill should not have cost, in words.

    Args:
        step: of the checkpoint that was there before.
    """
    run, found = RunFolder(folder), []
    for path in (run.run_json, run.status_json, run.result_json, run.examples_json):
        if path.exists() and lenient(path, Any) is None:
            found.append(f"{path.name} is damaged")
    try:
        now = checkpoint_step(folder)
    except UserError as error:
        return [*found, f"cannot go on: {error}"]
    seen = max((int(row["step"]) for row in read_rows(run.metrics_csv) if row.get("split") == "validation"), default=0)
    if now < step or now < seen - EVERY:
        found.append(f"at step {now} after a kill, with a checkpoint at {step} before and a validation at {seen} since")
    return found


def same(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits."""
    if not RunFolder(other).result():
        return False
    left, right = weights(one), weights(other)
    tables = [(folder / "metrics.csv").read_text() for folder in (one, other)]
    return tables[0] == tables[1] and result(one) == result(other) and all(torch.equal(left[k], right[k]) for k in left)


if __name__ == "__main__":
    main()
