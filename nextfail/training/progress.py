"""Progress of a single run: a live line in a terminal, occasional lines elsewhere, nothing inside a sweep."""

import time
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.callbacks import Callback
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from nextfail.config import NotNegative
from nextfail.runs.records import Status
from nextfail.runs.status import COLUMNS, describe, row
from nextfail.terminal import console, say
from nextfail.training.callbacks import Heartbeat


class Progress(Callback):
    """Shows the status from the heartbeat. Silent in a sweep, which has its own display.

    Args:
        every: seconds between lines when there is no terminal.
    """

    def __init__(self, every: NotNegative) -> None:
        self.every = every
        self.console = console(error=True)
        self.live: Live | None = None
        self.silent = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.said = time.monotonic()
        if self.console.is_terminal and not self.silent:
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        now = time.monotonic()
        if not self.silent and now - self.said >= (0.5 if self.live else self.every):
            self.said = now
            status = next(each for each in trainer.callbacks if isinstance(each, Heartbeat)).status  # type: ignore[attr-defined]
            if self.live:
                self.live.update(_bar(status), refresh=True)
            else:
                say(describe(status))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.live:
            self.live.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)


def _bar(status: Status) -> Table:
    table = Table(*COLUMNS, "", box=None)
    table.add_row(*row(status), ProgressBar(total=status["max_steps"], completed=status["step"], width=30))
    return table
