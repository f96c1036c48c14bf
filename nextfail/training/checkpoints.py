"""Checkpoints that survive: written whole or not at all, the one before kept, loaded without running code."""

import os
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from nextfail import stop
from nextfail.errors import RunCut, UserError
from nextfail.runs.identity import READABLE, SCHEMA
from nextfail.runs.lock import Lock

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class NotWholeError(UserError):
    """A checkpoint is damaged, so that the one before it may serve."""


class Checkpoints(Checkpoint):
    """Saves after every validation: `last.ckpt`, the one before it, and the best by validation exact match.

    On Ctrl-C or SIGTERM it lets the step end, and its validation if one is due, saves, and leaves with RunCut. A second
    Ctrl-C leaves at once.

    Args:
        folder: where they go.
        identity: hash of the run, written into each.
        val_every: steps between validations.
        lock: of the run's folder; nothing is saved once it is lost.
    """

    def __init__(self, folder: Path, identity: str, val_every: int, lock: Lock) -> None:
        self.folder, self.identity, self.val_every, self.lock = folder, identity, val_every, lock
        self.best, self.saved_step = -1.0, -1
        self.handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.handlers = stop.listen()  # only now, so that these replace Lightning's own

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if stop.requested is not None and trainer.global_step % self.val_every:
            self.save(trainer)
            _leave(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        value = float(trainer.callback_metrics["validation/exact_match"])
        better, self.best = value > self.best, max(value, self.best)
        self.save(trainer, best=better)
        if stop.requested is not None:
            _leave(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stop.unlisten(self.handlers)
        if self.saved_step != trainer.global_step:  # no validation fell on the last step
            self.save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        stop.unlisten(self.handlers)

    def save(self, trainer: L.Trainer, best: bool = False) -> None:
        """Write `last.ckpt`, and `best.ckpt` if this is it; what was last becomes `previous.ckpt`.

        Raises:
            UserError: the disk is full, or the folder cannot be written; what was saved before is still there.
            RunCut: the run was taken over by another process.
        """
        self.lock.check()
        last, partial = self.folder / LAST, self.folder / "partial"
        try:
            self.folder.mkdir(exist_ok=True)
            trainer.save_checkpoint(partial)
            _flush(partial)
            if best:  # first, so that a kill in between is mended when this step is reached again
                shutil.copyfile(partial, self.folder / "partial-best")
                _flush(self.folder / "partial-best")
                (self.folder / "partial-best").replace(self.folder / BEST)
            if last.exists():
                last.replace(self.folder / PREVIOUS)
            partial.replace(last)
            self.saved_step = trainer.global_step
        except OSError as error:
            for path in self.folder.glob("partial*"):
                path.unlink(missing_ok=True)
            raise UserError(f"cannot save a checkpoint in {self.folder}: {error.strerror or error}") from error

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["nextfail"] = {"schema": SCHEMA, "identity": self.identity}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


def _flush(path: Path) -> None:
    """Make sure that a file is on the disk before it gets its name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _leave(trainer: L.Trainer) -> NoReturn:
    raise RunCut(f"cut at step {trainer.global_step:,} and saved; the same command goes on from there")


def read_checkpoint(path: Path, identity: str) -> dict[str, Any]:
    """Load a checkpoint of the run with this hash, as tensors and plain values alone: nothing in it is executed.

    Raises:
        UserError: it is missing, not whole, not one of ours, or of another run or schema.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of foreign formats, which are refused below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is not made of tensors and plain values alone, and is not loaded: it could run code"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise NotWholeError(f"{path} is not a whole checkpoint") from error
    own = checkpoint.get("nextfail") if isinstance(checkpoint, dict) else None
    if not isinstance(own, dict):
        raise UserError(f"{path} is not a checkpoint of nextfail")
    if own.get("schema") not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise UserError(f"{path} has schema {own.get('schema')!r}; this version reads schema {readable}")
    if own.get("identity") != identity:
        raise UserError(f"{path} belongs to another run ({own.get('identity')}; this one is {identity})")
    return checkpoint


def latest_whole(folder: Path, identity: str) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint of this run, or None if there is none at all, and what is wrong with newer ones.

    Raises:
        UserError: there are checkpoints, and none of them can be gone on from.
    """
    complaints: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.exists():
            try:
                read_checkpoint(path, identity)
                return path, complaints
            except NotWholeError as error:
                complaints.append(str(error))
    if complaints:
        raise UserError(f"{'; '.join(complaints)}: on_existing=restart begins anew")
    return None, complaints
