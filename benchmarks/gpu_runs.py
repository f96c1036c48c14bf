"""Parts of benchmarks.gpu that run commands as a user does."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_sizes import Bench
from benchmarks.work import Work
from nextfail.runs.records import lenient
from nextfail.runs.table import read_rows

ROOT = Path(__file__).parents[1]
DEMO = ("-m", "experiment=demo")
PROBLEMS = "f0f0a62d"  # expected value of `problems()`


def tests(bench: Bench) -> None:
    """Run the tests that need a GPU, and check that the same problems are sampled as elsewhere."""
    files = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-m", "gpu", "-p", "no:cacheprovider", *files]
    command += ["-n", "12"] if bench.on_gpu else []  # most of the time is spent compiling kernels
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_CACHE_AUTOTUNING"}
    environment["MAMBA_DETERMINISTIC"] = "1"  # no autotuning, which takes minutes
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
        while process.poll() is None and time.monotonic() < bench.end - 3:
            time.sleep(0.2)
        said.seek(0)
        output = said.read().strip()
    lines = output.splitlines()
    skipped = {line.partition(": ")[2] for line in lines if line.startswith("SKIPPED")}
    bench.add("pytest -m gpu", lines[-1] if lines else "", note="; ".join(sorted(skipped)))
    drawn = problems()
    bench.add("the same problems are drawn as elsewhere", drawn == PROBLEMS, note=f"digest {drawn}")
    if process.returncode != 0:
        sys.exit(output[-6000:])


def problems() -> str:
    """Hash of a test set and two training batches of G(2,5), as sampled by a run with seed 0."""
    data = Work("data=online").data
    batches = [data.test, data.train_batch(0), data.train_batch(1)]
    drawn = b"".join(part.long().numpy().tobytes() for batch in batches if batch for part in batch[:2])
    return hashlib.sha256(drawn).hexdigest()[:8]


def reproducible(bench: Bench) -> None:
    """Whether a seed gives the same bits: in a second run, without CUDA graphs, and in an interrupted, resumed run."""
    sizes = bench.sizes
    run = ["trainer.precision=32-true", f"trainer.max_steps={sizes.steps}", f"trainer.val_every={sizes.every}"]
    with tempfile.TemporaryDirectory() as path:
        folders = {name: Path(path) / name for name in ("one", "other", "eager", "cut")}
        processes = {
            name: start(bench, path, *run, f"trainer.cuda_graphs={name != 'eager'}", f"hydra.run.dir={folder}")
            for name, folder in folders.items()
        }
        curve = folders["cut"] / "metrics.csv"
        while processes["cut"].poll() is None and not (curve.exists() and "validation" in curve.read_text()):
            time.sleep(0.01)
        processes["cut"].send_signal(signal.SIGTERM)
        for name, process in processes.items():
            require(process, (0, 130) if name == "cut" else (0,))
        was_cut = processes["cut"].returncode == 130
        step = content(folders["cut"] / "status.json").get("step")
        require(start(bench, path, *run, f"hydra.run.dir={folders['cut']}"))
        cut = f", cut at step {step}" if was_cut else ", ended before it could be cut"
        for name, what, more in (
            ("other", "two runs of one seed", ""),
            ("eager", "one with trainer.cuda_graphs and one without", ""),
            ("cut", "and one cut and resumed", cut),
        ):
            files = [folders[each] / "checkpoints" / "last.ckpt" for each in ("one", name)]
            one, other = (torch.load(file, map_location="cpu", weights_only=True)["state_dict"] for file in files)
            apart = max(float((one[key].double() - other[key].double()).abs().max()) for key in one)
            same = apart == 0 and curve_of(folders["one"]) == curve_of(folders[name])
            note = f"largest difference of a weight {apart:.2g} after {sizes.steps} steps{more}"
            bench.add(f"{what} end with the same bits", same, note=note)


def crowd(bench: Bench) -> None:
    """Throughput of concurrent runs of the demo's size on one GPU, through nextfail-train."""
    alone = 0.0
    for number in bench.sizes.crowds:
        with tempfile.TemporaryDirectory() as path:
            many = [f"hydra.launcher.per_gpu={number}", f"hydra.launcher.n_jobs={number}", *DEMO, "name=crowd"]
            length = [f"trainer.max_steps={bench.sizes.crowd_steps}", f"trainer.val_every={bench.sizes.crowd_steps}"]
            begin = time.perf_counter()
            seeds = f"seed={','.join(map(str, range(number)))}"
            require(start(bench, path, *many, *length, "objective=teacher_forcing", seeds))
            seconds = time.perf_counter() - begin
            results = [content(file) for file in Path(path).glob("runs/crowd/*/result.json")]
        rate = sum(result["samples_per_second"] for result in results)
        alone = alone or rate
        note = f"{rate / alone:.2f} times one run; the whole command {seconds:.0f} s"
        bench.add(f"demo runs at once: {len(results)}", rate, "problems/s", note)


def learning(bench: Bench) -> None:
    """The failure and its remedies on G(2,5), as in the demo, until the time limit."""
    with tempfile.TemporaryDirectory() as path:
        every = f"trainer.val_every={bench.sizes.every_learned}"
        process = start(bench, path, "hydra.launcher.per_gpu=3", *DEMO, "seed=0", "name=learning", every)
        last = min(bench.end - 12, time.monotonic() + (1e9 if bench.on_gpu else 25))
        while process.poll() is None and time.monotonic() < last:
            time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        require(process, (0, 130))
        for folder in sorted(file.parent for file in Path(path).glob("runs/learning/*/metrics.csv")):
            run, rows = content(folder / "run.json"), curve_of(folder)
            keys = ("exact_match", "hard_token_accuracy", "cheat_accuracy")
            curve = [[int(row["step"]) * run["data"]["batch_size"], *map(row.get, keys)]
                     for row in rows if row["split"] == "validation"]  # fmt: skip
            if not curve:
                continue  # stopped before its first validation
            named = dict(zip(keys, curve[-1][1:], strict=True))
            note = ", ".join(f"{key} {value}" for key, value in named.items() if value and key != "exact_match")
            bench.add(
                f"G(2,5) {run['choices']['objective']} seed {run['seed']}", float(named["exact_match"]), "exact match",
                f"{note}; {curve[-1][0]:,} problems", curve=curve, columns=["problems", *keys],
            )  # fmt: skip


def start(bench: Bench, where: str, *arguments: str) -> subprocess.Popen[str]:
    """Start nextfail-train in a folder."""
    command = [sys.executable, "-m", "nextfail.cli.train", *bench.sizes.trainer, "callbacks=none", *arguments]
    return subprocess.Popen(command, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def require(process: subprocess.Popen[str], codes: tuple[int, ...] = (0,)) -> None:
    """Wait for a command; exit with its output on any other exit code."""
    said, _ = process.communicate()
    if process.returncode not in codes:
        sys.exit(f"{said}\nexit code {process.returncode} of {' '.join(map(str, process.args))}")  # type: ignore[arg-type]


def content(file: Path) -> dict[str, Any]:
    """Content of a JSON file; empty if it is missing or malformed."""
    return dict(lenient(file, dict[str, Any]) or {})


def curve_of(folder: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv."""
    return read_rows(folder / "metrics.csv")
