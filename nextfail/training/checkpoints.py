"""Robust checkpoints: written atomically, with the previous one kept, and loaded without executing code."""

import io
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from nextfail import stop
from nextfail.errors import RunCut, UserError
from nextfail.files import Inside, open_regular
from nextfail.runs.folder import BEST, LAST, PREVIOUS, RunFolder
from nextfail.runs.identity import READABLE, SCHEMA
from nextfail.runs.lock import Lock
from nextfail.training.module import TaskModule

NEW = "new.ckpt"
"""A complete checkpoint that has not yet replaced the last one."""


class NotWholeError(UserError):
    """A checkpoint is damaged; the previous one may be used instead."""


class Checkpoints(Checkpoint):
    """Saves after every validation: `last.ckpt`, the previous one, and the best on the validation set.

    On Ctrl-C or SIGTERM it waits for the end of the step, and of its validation if one is due, saves, and raises
    RunCut. A second Ctrl-C exits immediately.

    Args:
        run: folder of the run.
        identity: hash of the run, stored in each checkpoint.
        val_every: steps between validations.
        lock: of the run's folder; nothing is saved once it is lost.
        saved: called with the step of each saved checkpoint.
    """

    def __init__(
        self,
        run: RunFolder,
        identity: str,
        val_every: int,
        lock: Lock,
        saved: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.run, self.identity, self.val_every, self.lock, self.saved = run, identity, val_every, lock, saved
        self.best, self.saved_step = -1.0, -1
        self.handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.handlers = stop.listen()  # only now, so that these replace Lightning's handlers

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0  # otherwise accumulated gradients would be lost
        if stop.requested is not None and whole and trainer.global_step % self.val_every:
            self.save(trainer)
            _leave(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        value = float(trainer.callback_metrics[f"validation/{pl_module.objective.judged_by}"])
        better, self.best = value > self.best, max(value, self.best)
        self.save(trainer, best=better)
        if stop.requested is not None:
            _leave(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stop.unlisten(self.handlers)
        if self.saved_step != trainer.global_step:  # there was no validation at the last step
            self.save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        stop.unlisten(self.handlers)

    def save(self, trainer: L.Trainer, best: bool = False) -> None:
        """Write `last.ckpt`, and `best.ckpt` if it is the best; the old `last.ckpt` becomes `previous.ckpt`.

        Raises:
            UserError: the disk is full, or the folder cannot be written; earlier checkpoints are kept.
            RunCut: the run was taken over by another process.
        """
        self.lock.check()
        files = self.run.files.below(self.run.checkpoints.name)
        try:
            trainer.save_checkpoint(self.run.checkpoints / NEW)
            if best:  # first, so that a kill in between is repaired when this step is repeated
                with open_regular(self.run.checkpoints / NEW) as whole, files.writing(BEST) as file:
                    shutil.copyfileobj(whole, file)
        except UserError:
            files.remove(NEW)
            raise
        files.move(LAST, PREVIOUS)
        files.move(NEW, LAST)
        self.saved_step = trainer.global_step
        self.saved(self.saved_step)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["nextfail"] = {"schema": SCHEMA, "identity": self.identity}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


class WholeFiles(TorchCheckpointIO):
    """Writes Lightning's checkpoints atomically, without following links."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()  # torch hides the error of a full disk
        torch.save(checkpoint, content)
        with content.getbuffer() as view:  # released here: some Python 3.12 crash when they collect it after an error
            Inside(Path(path).parent).write(Path(path).name, view)


def _leave(trainer: L.Trainer) -> NoReturn:
    raise RunCut(f"cut at step {trainer.global_step:,} and saved; the same command resumes from there")


def read_checkpoint(path: Path, identity: str) -> dict[str, Any]:
    """Load a checkpoint of the run with this hash, as tensors and plain values only: no code in it is executed.

    Raises:
        UserError: it is missing, damaged, not from nextfail, or of another run or schema.
    """
    try:
        # torch warns about foreign formats, which are refused below
        with warnings.catch_warnings(action="ignore"), open_regular(path) as file:
            _require_plain(file, path)
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is not made of tensors and plain values alone, and is not loaded: it could run code"
        ) from error
    except UserError:
        raise
    except Exception as error:  # torch, zipfile and pickle raise many types for damaged bytes
        raise NotWholeError(f"{path} is a damaged checkpoint") from error
    own = checkpoint.get("nextfail") if isinstance(checkpoint, dict) else None
    if not isinstance(own, dict) or not {"state_dict", "global_step"} <= checkpoint.keys():
        raise UserError(f"{path} is not a checkpoint of nextfail")
    if own.get("schema") not in READABLE:
        readable = ", ".join(map(str, READABLE))
        raise UserError(f"{path} has schema {own.get('schema')!r}; this version reads schemas {readable}")
    if own.get("identity") != identity:
        raise UserError(f"{path} belongs to another run ({own.get('identity')}; this one is {identity})")
    return checkpoint


def _require_plain(file: BinaryIO, path: Path) -> None:
    """Refuse an archive that unpacks to more than its own size; torch does not compress."""
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(part.file_size for part in parts) > size:
        raise UserError(f"{path} is compressed, which no checkpoint of nextfail is, and is not loaded")


def latest_whole(folder: Path, identity: str) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint of this run, None if there is none at all, and what is wrong with newer ones.

    Raises:
        UserError: there are checkpoints, but none that training can resume from.
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
        raise UserError(f"{'; '.join(complaints)}: on_existing=restart starts over")
    return None, complaints
