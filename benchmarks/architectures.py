"""Time and memory of a training step of each backbone at equal width and depth, on one core."""

from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.mamba import step
from benchmarks.measure import Row, alternate, at_least
from nextfail.models import Hybrid, Mamba, Mamba2, Transformer

DEPTH, WIDTH, HEADS, VOCAB = 4, 96, 4, 54  # size demo on N=50
TOKENS = 4096  # tokens per batch: 128 problems of G(2,5)
LENGTHS = (16, 32, 137, 248, 1024)  # G(2,5) with joined edges and without, G(2,20), G(10,5), and a long one
ATTENTION: dict[str, Any] = {"width": WIDTH, "heads": HEADS, "vocab_size": VOCAB}
STATES: dict[str, Any] = {"depth": DEPTH, "width": WIDTH, "vocab_size": VOCAB}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Transformer": (Transformer, {"depth": DEPTH, **ATTENTION}),
    "Transformer, convolution": (Transformer, {"depth": DEPTH, **ATTENTION, "conv": 4}),
    "Transformer, as Llama": (
        Transformer,
        {"depth": DEPTH, **ATTENTION, "positions": "rope", "norm": "rms", "mlp": "swiglu"},
    ),
    "Mamba": (Mamba, {**STATES, "d_state": 16}),
    "Mamba-2, 16 states": (Mamba2, {**STATES, "d_state": 16}),
    "Mamba-2, 64 states": (Mamba2, {**STATES, "d_state": 64}),
    "hybrid": (Hybrid, {"layers": ["mamba", "attention"], "depth": DEPTH, **ATTENTION}),
}


def architectures() -> list[Row]:
    """Forward and backward with a loss on every token, relative to the Transformer; and Mamba-2 to Mamba at T=32."""
    rows = []
    for steps in LENGTHS:
        tokens = torch.randint(VOCAB, (max(1, TOKENS // steps), steps))
        timings = alternate(5, {name: made(name, tokens) for name in KINDS})
        peaks = {name: peak(name, tokens) for name in KINDS}
        for name in KINDS:
            time, share = timings.median(name) * 1e3, peaks[name] / peaks["Transformer"]
            rows.append(Row(f"{name}, T={steps}", time, "ms", "Transformer", timings.ratio("Transformer", name)))
            rows.append(Row(f"{name}, T={steps}, memory", peaks[name], "MiB", "Transformer", share))
        if steps == 32:
            for name in ("Mamba-2, 16 states", "Mamba-2, 64 states"):
                time, ratio = timings.median(name) * 1e3, timings.ratio("Mamba", name)
                rows.append(Row(f"{name}, T={steps}", time, "ms", "Mamba, fused kernel", ratio, **at_least(1.0, ratio)))
    return rows


def made(name: str, tokens: Tensor) -> Callable[[], Tensor]:
    """A training step of one kind of backbone on tokens (B, T)."""
    kind, sizes = KINDS[name]
    return partial(step, kind(**sizes, max_length=tokens.shape[1]), tokens)


def peak(name: str, tokens: Tensor) -> float:
    """Peak memory of a step in MiB, in excess of process and model, measured in a new process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(grown, (name, tokens.tolist()))


def grown(name: str, rows: list[list[int]]) -> float:
    """See `peak`; first warms up on one problem, to compile kernels and load libraries."""
    torch.set_num_threads(1)
    tokens = torch.tensor(rows)
    made(name, tokens[:1, :16])()
    once = made(name, tokens)
    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the current value
    once()
    return (kilobytes("VmHWM") - before) / 1024


def kilobytes(key: str) -> int:
    """An entry of /proc/self/status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
