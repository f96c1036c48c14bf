"""Runs that a folder has already, found by what they are rather than by what their folders are called."""

from functools import cached_property
from pathlib import Path

from nextfail.errors import UserError
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import Identity


class Known:
    """The runs directly below a folder, read when first asked for.

    Args:
        folder: of a sweep, or runs/NAME.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def same(self, identity: Identity) -> RunFolder | None:
        """The run with this identity that is done, or else has a checkpoint to continue from."""
        return self._by_hash.get(identity.hash)

    def shorter(self, identity: Identity) -> tuple[RunFolder, int] | None:
        """The longest run that differs only by a smaller trainer.max_steps, with its max_steps."""
        steps = identity.settings["budget"]["max_steps"]
        fewer = [each for each in self._by_kin.get(identity.kin, []) if each[1] < steps]
        return max(fewer, key=lambda each: each[1], default=None)

    @cached_property
    def _begun(self) -> list[tuple[RunFolder, Identity]]:
        found = []
        for path in sorted(self.folder.glob("*/run.json")):
            run = RunFolder(path.parent)
            try:
                identity = run.identity()
            except UserError:
                continue  # not whole, or of a later version
            if run.checkpoints.exists() or run.result() is not None:
                found.append((run, identity))
        return found

    @cached_property
    def _by_hash(self) -> dict[str, RunFolder]:
        found: dict[str, RunFolder] = {}
        for run, identity in self._begun:
            if identity.hash not in found or run.result() is not None:
                found[identity.hash] = run
        return found

    @cached_property
    def _by_kin(self) -> dict[str, list[tuple[RunFolder, int]]]:
        found: dict[str, list[tuple[RunFolder, int]]] = {}
        for run, identity in self._begun:
            found.setdefault(identity.kin, []).append((run, identity.settings["budget"]["max_steps"]))
        return found
