"""Sizes of benchmarks.gpu, and where its rows are written."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmarks.

    Args:
        device, trainer: torch device, and overrides of nextfail-train.
        size: depth, width and heads of the timed models. batch: problems per step.
        graphs: task options of the problems. window: duration of a timing in seconds.
        square: side of the matrices whose product measures the peak.
        steps, every: steps of the runs in `reproducible`, and between their validations.
        crowds: numbers of concurrent runs. crowd_steps: steps of each.
        every_learned: steps between validations in `learning`.
    """

    device: str
    trainer: tuple[str, ...]
    size: tuple[int, int, int]
    batch: int
    graphs: tuple[str, ...]
    window: float
    square: int
    steps: int
    every: int
    crowds: tuple[int, ...]
    crowd_steps: int
    every_learned: int


FULL = Sizes("cuda", ("trainer=gpu",), (12, 384, 6), 256, ("g2_5", "g20_5"), 1.5, 8192, 200, 50, (1, 4, 16), 300, 500)
TINY = Sizes(
    "cpu",
    ("trainer=cpu", "model.depth=1", "model.width=16", "data.train=500", "data.validation=50", "data.test=50"),
    (1, 32, 2), 4, ("g2_5",), 0.1, 64, 100, 10, (1, 2), 20, 20,
)  # fmt: skip


class Bench:
    """Sizes, the file of rows, and the deadline of a part.

    Args:
        rows: file of rows. end: deadline, in seconds of the monotonic clock, which all processes share.
        sizes: FULL or TINY.
    """

    def __init__(self, rows: Path, end: float, sizes: Sizes) -> None:
        self.rows, self.sizes, self.end = rows, sizes, end
        self.on_gpu = sizes.device == "cuda"

    def add(self, what: str, value: Any, unit: str = "", note: str = "", **more: Any) -> None:
        """Append a row to the file."""
        with self.rows.open("a") as file:
            file.write(json.dumps({"what": what, "value": value, "unit": unit, "note": note, **more}) + "\n")

    def pace(self, step: Callable[[], object], warm: int = 3) -> float:
        """Mean seconds per step over a window, after a few warm-up steps."""
        for _ in range(warm):
            step()
        self.wait()
        begin, count = time.perf_counter(), 0
        while True:
            for _ in range(5):
                step()
            count += 5
            self.wait()
            if (seconds := time.perf_counter() - begin) >= self.sizes.window:
                return seconds / count

    def wait(self) -> None:
        """Wait until the device has finished all its work."""
        if self.on_gpu:
            torch.cuda.synchronize()
