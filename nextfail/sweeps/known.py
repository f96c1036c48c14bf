"""Existing runs in a folder, found by identity rather than by folder name."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nextfail import source
from nextfail.errors import UserError
from nextfail.runs import records
from nextfail.runs.folder import BEST, LAST, RunFolder
from nextfail.runs.identity import Identity


@dataclass(frozen=True)
class Shorter:
    """A run that differs from a requested run only by a smaller trainer.max_steps.

    Args:
        run: folder of the shorter run.
        steps: trainer.max_steps of the shorter run.
        obstacle: why the requested run cannot continue it; None if it can.
    """

    run: RunFolder
    steps: int
    obstacle: str | None

    def __str__(self) -> str:
        """Message to print before the requested run starts."""
        there = f"{os.path.relpath(self.run.path)}: the same run exists with trainer.max_steps={self.steps}"
        if self.obstacle is None:
            return f"{there}; it is continued in a folder of its own"
        return f"{there}, and cannot be continued, since {self.obstacle}: this one starts at step 0"


class Known:
    """The runs directly below a folder, read lazily.

    Args:
        folder: folder of a sweep, or runs/NAME.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._identities: dict[Path, Identity | None] = {}

    def same(self, identity: Identity) -> RunFolder | None:
        """The run with this identity that is done, or else one with a checkpoint to resume from."""
        return self._by_hash.get(identity.hash)

    def shorter(self, identity: Identity) -> Shorter | None:
        """The longest run that differs only by a smaller trainer.max_steps; preferably one that can be continued."""
        found = []
        for run, steps in self._budgets:
            if steps < identity.settings["budget"]["max_steps"]:
                other = self._identity(run)
                if other and other.kin == identity.kin:
                    found.append(Shorter(run, steps, obstacle(identity, other, run)))
        return max(found, key=lambda each: (each.obstacle is None, each.steps), default=None)

    def _identity(self, run: RunFolder) -> Identity | None:
        """The identity of a run; None if its run.json is invalid or of an unknown schema."""
        if run.path not in self._identities:
            try:
                self._identities[run.path] = run.identity()
            except UserError:
                self._identities[run.path] = None
        return self._identities[run.path]

    @cached_property
    def _begun(self) -> list[RunFolder]:
        runs = [RunFolder(path.parent) for path in sorted(self.folder.glob("*/run.json"))]
        return [run for run in runs if run.checkpoints.exists() or run.result() is not None]

    @cached_property
    def _by_hash(self) -> dict[str, RunFolder]:
        found: dict[str, RunFolder] = {}
        for run in self._begun:
            identity = self._identity(run)
            if identity and (identity.hash not in found or run.result() is not None):
                found[identity.hash] = run
        return found

    @cached_property
    def _budgets(self) -> list[tuple[RunFolder, int]]:
        """max_steps of each run, read without computing its full identity, which takes longer."""
        found = []
        for run in self._begun:
            content: Any = records.lenient(run.run_json, dict[str, Any]) or {}
            budget = content.get("budget")
            steps = budget.get("max_steps") if isinstance(budget, dict) else None
            if isinstance(steps, int):
                found.append((run, steps))
        return found


def obstacle(identity: Identity, other: Identity, run: RunFolder) -> str | None:
    """Why a run cannot continue another one that differs only in its number of steps and validation interval."""
    schedule = source.find(str(identity.settings["scheduler"]["_target_"]))
    if schedule is None or schedule.parameters is None or "max_steps" in schedule.parameters:
        name = identity.classes["scheduler"]["name"]
        return f"its learning rate depends on trainer.max_steps (scheduler={name}; constant does not)"
    intervals = [each.settings["budget"]["val_every"] for each in (other, identity)]
    if intervals[0] != intervals[1]:
        return f"it was validated every {intervals[0]} steps, and this one every {intervals[1]}"
    if run.result() is None:
        return "it is not done"
    whole = all((run.checkpoints / name).exists() for name in (LAST, BEST))
    return None if whole else "its checkpoints are gone"
