"""Share of a demo-sized step that is spent in Lightning and our callbacks."""

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from benchmarks.measure import Row, Timings, below
from benchmarks.work import Work, compose
from nextfail.runs.folder import RunFolder
from nextfail.training.build import make_data, make_module, make_task
from nextfail.training.callbacks import Heartbeat, StopAt, StopWhenDiverged
from nextfail.training.checkpoints import Checkpoints
from nextfail.training.trainer import make_trainer, quieten

STEPS, ROUNDS = 10, 20  # steps per side and round; rounds
OVERRIDES = ("callbacks=none", f"trainer.max_steps={STEPS * (ROUNDS + 1)}")


def lightning_share() -> list[Row]:
    """A Trainer as in `nextfail-train`, alternating every few steps with as many steps of a bare loop."""
    quieten()
    bare = Work(*OVERRIDES)
    number = itertools.count()
    config = compose(*OVERRIDES)
    config["trainer"]["val_every"] = config["trainer"]["max_steps"] + 1  # no validation
    turns = Turns(lambda: bare.step(bare.data.train_batch(next(number))))
    with tempfile.TemporaryDirectory() as path:
        fit(config, RunFolder(Path(path)), turns)
    ratio = turns.timings().ratio("lightning", "bare")
    share = 100 * (1 - 1 / ratio)
    return [Row("Lightning's share of a demo step", share, "%", "bare loop", ratio, **below(10, share))]


def fit(config: dict[str, Any], folder: RunFolder, turns: "Turns") -> None:
    """Train as nextfail.training.run does, with one more callback."""
    task = make_task(config)
    data, module = make_data(config, task), make_module(config, task)
    with folder.locked() as lock:
        heartbeat = Heartbeat(folder, config["data"]["batch_size"], 0)
        checkpoints = Checkpoints(folder, "benchmark", config["trainer"]["val_every"], lock)
        own = [StopWhenDiverged(), StopAt(None), heartbeat, checkpoints, turns]
        make_trainer(config, folder, own, 0).fit(module, datamodule=data)


class Turns(Callback):
    """Pauses Lightning's clock every few steps, and times as many steps with `bare_step`."""

    def __init__(self, bare_step: Callable[[], None]) -> None:
        self.bare_step = bare_step
        self.seconds: dict[str, list[float]] = {"lightning": [], "bare": []}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.since = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step % STEPS == 0:
            now = time.process_time()
            for _ in range(STEPS):
                self.bare_step()
            end = time.process_time()
            self.seconds["lightning"].append(now - self.since)
            self.seconds["bare"].append(end - now)
            self.since = time.process_time()

    def timings(self) -> Timings:
        """All rounds except the first."""
        return Timings({side: each[1:] for side, each in self.seconds.items()})
