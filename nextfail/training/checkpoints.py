"""Checkpoints that survive: written whole or not at all, the one before kept, loaded without running code."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from nextfail.errors import UserError
from nextfail.runs.identity import SCHEMA

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class Checkpoints(Checkpoint):
    """Saves after every validation: `last.ckpt`, the one before it, and the best by validation exact match.

    Args:
        folder: where they go.
        identity: hash of the run, written into each.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity
        self.best = -1.0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        value = float(trainer.callback_metrics["validation/exact_match"])
        better, self.best = value > self.best, max(value, self.best)
        self.save(trainer, best=better)

    def save(self, trainer: L.Trainer, best: bool = False) -> None:
        """Write `last.ckpt`, and `best.ckpt` if this is it; what was last becomes `previous.ckpt`.

        Raises:
            UserError: the disk is full, or the folder cannot be written; what was saved before is still there.
        """
        last, partial = self.folder / LAST, self.folder / "partial"
        try:
            self.folder.mkdir(exist_ok=True)
            trainer.save_checkpoint(partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            if best:  # first, so that a kill in between is mended when this step is reached again
                shutil.copyfile(partial, self.folder / "partial-best")
                (self.folder / "partial-best").replace(self.folder / BEST)
            if last.exists():
                last.replace(self.folder / PREVIOUS)
            partial.replace(last)
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


def read_checkpoint(path: Path, identity: str) -> dict[str, Any]:
    """Load a checkpoint of the run with this hash, as tensors and plain values alone: nothing in it is executed.

    Raises:
        UserError: it is missing, not whole, not one of ours, or of another run or schema.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, and is not loaded: it could run code"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a whole checkpoint") from error
    own = checkpoint.get("nextfail") if isinstance(checkpoint, dict) else None
    if not isinstance(own, dict):
        raise UserError(f"{path} is not a checkpoint of nextfail")
    if own.get("schema") != SCHEMA:
        raise UserError(f"{path} has schema {own.get('schema')!r}; this version reads schema {SCHEMA}")
    if own.get("identity") != identity:
        raise UserError(f"{path} belongs to another run ({own.get('identity')}; this one is {identity})")
    return checkpoint


def latest_whole(folder: Path, identity: str) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that can be gone on from, or None, and what is wrong with newer ones."""
    complaints: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.exists():
            try:
                read_checkpoint(path, identity)
                return path, complaints
            except UserError as error:
                complaints.append(str(error))
    return None, complaints
