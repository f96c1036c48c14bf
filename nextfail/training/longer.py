"""Continuation of a finished run with a larger budget, in its own folder."""

import io
from pathlib import Path
from typing import Any

import torch

from nextfail.runs.folder import BEST, LAST, RunFolder
from nextfail.runs.table import Table, read_rows
from nextfail.training.checkpoints import read_checkpoint


def adopt(folder: RunFolder, shorter: RunFolder, identity: str) -> Path:
    """Initialise a folder as if its run had been interrupted where a shorter one ended; returns the checkpoint.

    Args:
        folder: of the longer run, claimed, without a checkpoint.
        shorter: the same run with a smaller budget, finished.
        identity: hash of the longer run.

    Raises:
        UserError: a checkpoint of the shorter run is missing or damaged.
    """
    of_it = shorter.run()["hash"]
    checkpoints = {name: read_checkpoint(shorter.checkpoints / name, of_it) for name in (BEST, LAST)}
    step = int(checkpoints[LAST]["global_step"])
    for path in (shorter.metrics_csv, shorter.timing_csv):
        rows = [row for row in read_rows(path) if row.get("split") != "test"]
        Table(folder.files, path.name, step).add(*rows)
    files = folder.files.below(folder.checkpoints.name)
    for name, checkpoint in checkpoints.items():  # last.ckpt last: it makes the folder complete
        files.write(name, _bytes(checkpoint | {"nextfail": checkpoint["nextfail"] | {"identity": identity}}))
    return folder.checkpoints / LAST


def _bytes(checkpoint: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    torch.save(checkpoint, content)
    return content.getvalue()
