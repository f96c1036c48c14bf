"""Find and remove failed runs, old checkpoints, and records of runs that never started."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nextfail.errors import UserError
from nextfail.runs.find import find
from nextfail.runs.folder import RunFolder
from nextfail.runs.status import survey
from nextfail.sweeps.records import forget, never_begun

KEPT, OLD = "last.ckpt", ("previous.ckpt", "best.ckpt")


class Removal(Protocol):
    """Something that can be removed."""

    @property
    def path(self) -> Path:
        """The file or folder."""

    @property
    def why(self) -> str:
        """Why it may be removed."""

    def size(self) -> int:
        """Size in bytes."""

    def remove(self) -> str:
        """Remove it; returns what was kept and why, or an empty string."""


@dataclass(frozen=True)
class FailedRun:
    """A failed run: everything that nextfail wrote into its folder."""

    path: Path
    why: str

    def size(self) -> int:
        return _size(self.path)

    def remove(self) -> str:
        run = RunFolder(self.path)
        with run.locked():
            if survey([self.path])[self.path]["state"] not in ("failed", "running"):  # "running" is this process
                return "kept: it was trained again meanwhile"
            for name in (*OLD, KEPT):
                run.files.remove(f"{run.checkpoints.name}/{name}")
            with suppress(OSError):
                run.checkpoints.rmdir()
            for name in run.files.names():
                if name != run.lock.name and run.owns(name):
                    run.files.remove(name)
        if left := run.files.names():
            return f"kept {', '.join(left)}, which nextfail did not write"
        with suppress(OSError):  # the current directory, or a link
            self.path.rmdir()
        return ""


@dataclass(frozen=True)
class OldCheckpoint:
    """A checkpoint of a finished run, other than its last."""

    path: Path
    why: str = "old checkpoint of a run that is done"

    def size(self) -> int:
        return self.path.stat().st_size

    def remove(self) -> str:
        run = RunFolder(self.path.parent.parent)
        with run.locked():
            if run.result() is None:
                return "kept: the run is being trained again"
            run.files.remove(f"{self.path.parent.name}/{self.path.name}")
        return ""


@dataclass(frozen=True)
class NeverBegun:
    """A run in a sweep's record without a folder, for example because its axis was dropped."""

    path: Path
    folder: Path
    why: str = "never started: its entry in the sweep's record"

    def size(self) -> int:
        return 0

    def remove(self) -> str:
        forget(self.folder, [self.path])
        return ""


def removals(folders: Sequence[Path], keep_last: bool) -> Iterator[Removal]:
    """Everything removable at or below the given folders.

    Args:
        keep_last: whether to keep only the last checkpoint of each finished run.

    Raises:
        UserError: a folder does not exist, or none of the folders contains a run or a record of one.
    """
    missing = {path: folder for folder in folders for path in (never_begun(folder) if folder.is_dir() else [])}
    for path, status in survey(find(folders, empty=bool(missing), links=False)).items():
        if status["state"] == "failed":
            yield FailedRun(path, f"failed: {status['reason']}")
        elif status["state"] == "done" and keep_last:
            checkpoints = [RunFolder(path).checkpoints / name for name in OLD]
            if (RunFolder(path).checkpoints / KEPT).is_file():
                yield from (OldCheckpoint(each) for each in checkpoints if each.is_file() and not each.is_symlink())
    yield from (NeverBegun(path, folder) for path, folder in missing.items())


def remove(item: Removal) -> str:
    """Remove one item; returns what was kept and why, or an empty string."""
    try:
        return item.remove()
    except (UserError, OSError) as error:
        return f"kept: {error}"


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
