"""How much benchmarks.gpu measures, and where its rows go."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Args:
        device, trainer: torch's, and the option of nextfail-train.
        size: of the models whose steps are timed. batch: problems in a step.
        graphs: of the problems. window: seconds in which steps are counted.
        square: side of the matrices whose product is the peak.
        steps, every: of a run that is cut, and between its validations.
        crowds: runs at once. crowd_steps: of each.
        every_learned: steps between the validations of what is to be learned.
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
    """Sizes, the file of rows, and the time that is left.

    Args:
        rows: file. end: by which to be done, of the clock that all processes share.
        sizes: FULL or TINY.
    """

    def __init__(self, rows: Path, end: float, sizes: Sizes) -> None:
        self.rows, self.sizes, self.end = rows, sizes, end
        self.on_gpu = sizes.device == "cuda"

    def add(self, what: str, value: Any, unit: str = "", note: str = "", **more: Any) -> None:
        """Keep a row."""
        with self.rows.open("a") as file:
            file.write(json.dumps({"what": what, "value": value, "unit": unit, "note": note, **more}) + "\n")

    def pace(self, step: Callable[[], object], warm: int = 3) -> float:
        """Seconds of a step, the mean over a window after a few that do not count."""
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
        """Until the device has done all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize()
