"""Training callbacks: heartbeat, training-set accuracy and early stopping."""

import math
import os
import socket
import time
from contextlib import suppress
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from nextfail.config import AtLeast1
from nextfail.errors import UserError
from nextfail.runs.folder import RunFolder
from nextfail.runs.records import Status
from nextfail.runs.slurm import this_job
from nextfail.runs.table import Table
from nextfail.tasks.base import Batch
from nextfail.tasks.data import fixed_loader
from nextfail.training.metrics import AnswerMetrics, flat
from nextfail.training.module import TaskModule


class Heartbeat(Callback):
    """Updates status.json regularly, and adds a row to timing.csv at each validation.

    Args:
        folder: of the run.
        batch_size: problems per step.
        resume_step: step of the checkpoint that training resumes from.
        every: seconds between updates.
    """

    def __init__(self, folder: RunFolder, batch_size: int, resume_step: int, every: float = 2.0) -> None:
        self.folder, self.batch_size, self.every = folder, batch_size, every
        self.timing = Table(folder.files, folder.timing_csv.name, resume_step)
        self.seconds = 0.0  # in training and validation, over all sessions of this run
        self.rate = 0.0
        self._tick: float | None = None  # when `seconds` was last counted; None before training
        self.status: Status = {"host": socket.gethostname(), "pid": os.getpid(), "job": this_job(), "step": resume_step,
                             "checkpoint": resume_step}  # fmt: skip
        self.write("starting")

    def write(self, state: str, **more: Any) -> None:
        """Rewrite status.json, keeping the fields that are not given."""
        self.status |= cast(Status, {"state": state, "time": time.time(), **more})
        self.folder.files.write_json(self.folder.status_json.name, self.status)

    def saved(self, step: int) -> None:
        """Record the step that the run would resume from."""
        self.write(self.status["state"], checkpoint=step)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tick = self._beat = time.monotonic()
        self._beat_step = trainer.global_step
        self.write("running", step=trainer.global_step, max_steps=trainer.max_steps)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._beat >= self.every:
            self._advance(trainer, now)
            pace = {}
            if self.rate:  # 0 until the first step ends, which takes several batches with accumulated gradients
                left = (trainer.max_steps - trainer.global_step) * self.batch_size / self.rate
                pace = {"samples_per_second": round(self.rate, 1), "seconds_left": round(left)}
            # without the loss: reading it would synchronise with the device
            self.write("running", step=trainer.global_step, **pace)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._advance(trainer, time.monotonic())
        row = {"seconds": f"{self.seconds:.2f}", "samples_per_second": f"{self.rate:.1f}"}
        self.timing.add({"step": str(trainer.global_step), **row})
        assert isinstance(pl_module, TaskModule)
        seen = {"loss": "train/loss"}
        seen |= {key: f"validation/{key}" for key in ("exact_match", *pl_module.task.metrics)}
        self.write("running", **{key: float(trainer.callback_metrics[name]) for key, name in seen.items()})

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._advance(trainer, time.monotonic())  # covers steps after the last validation

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        with suppress(UserError):  # the original exception is more informative
            self.write("running", step=trainer.global_step)

    def _advance(self, trainer: L.Trainer, now: float) -> None:
        if trainer.global_step > self._beat_step:
            self.rate = (trainer.global_step - self._beat_step) * self.batch_size / (now - self._beat)
            self._beat, self._beat_step = now, trainer.global_step
        self._count(now)

    def _count(self, now: float) -> None:
        if self._tick is not None:
            self.seconds += now - self._tick
            self._tick = now

    def state_dict(self) -> dict[str, Any]:
        self._count(time.monotonic())
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]


class TrainSet(Callback):
    """Measures accuracy on training problems at each validation, as split `train_set`.

    Uses the first problems of the run. It does not affect the run.

    Args:
        problems: number of training problems.
    """

    def __init__(self, problems: AtLeast1) -> None:
        self.problems = problems

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        batches = [data.train_batch(k) for k in range(-(-self.problems // data.batch_size))]
        first = Batch.join(batches).rows(slice(self.problems))
        self.batches = list(fixed_loader(first, data.eval_batch_size))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        metrics = AnswerMetrics(pl_module.task).to(pl_module.device)
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            for batch in self.batches:
                here = batch.to(pl_module.device)
                metrics.update(pl_module.objective.predict(pl_module.backbone, here), here)
        pl_module.log_dict({f"train_set/{key}": value for key, value in flat(metrics.compute()).items()})


class StopAt(Callback):
    """Ends training at the first validation whose exact match reaches a target.

    Args:
        target: between 0 and 1, or None for never.
    """

    def __init__(self, target: float | None) -> None:
        self.target, self.reached = target, False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop |= self.reached  # interrupted after the last step, before the result

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.target is not None and trainer.callback_metrics["validation/exact_match"] >= self.target:
            self.reached = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"reached": self.reached}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reached = state_dict["reached"]


class StopWhenDiverged(Callback):
    """Ends training at the first validation after a non-finite loss.

    Checks the mean loss since the last validation, in which a non-finite value persists, so no step waits for the
    device.
    """

    def __init__(self) -> None:
        self.finite = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop |= not self.finite

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer, float(trainer.callback_metrics["train/loss"]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        self._look(trainer, pl_module.window.mean().get("loss", 0.0))  # covers steps after the last validation

    def _look(self, trainer: L.Trainer, loss: float) -> None:
        if not math.isfinite(loss):
            self.finite = False
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"finite": self.finite}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.finite = state_dict["finite"]
