"""Which runs a sweep has, so that the missing ones can be named."""

import hashlib
import os
from pathlib import Path

from nextfail.runs.files import read_json, write_json

RECORDS = ".sweeps"
"""Folder, inside that of a sweep, with a file for each set of runs that was ever asked for there."""


def remember(folder: Path, runs: dict[str, list[str]]) -> None:
    """Write down that these runs were asked for in one command; asking again changes nothing.

    Args:
        folder: of the sweep.
        runs: overrides by the run folder's name, below it.
    """
    mark = hashlib.sha256("\n".join(sorted(runs)).encode()).hexdigest()[:16]
    path = folder / RECORDS / f"{mark}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"runs": runs})


def remembered(folder: Path) -> dict[str, list[str]]:
    """Overrides of every run that was ever asked for below a folder, by its path relative to that.

    Records that are not whole are skipped.
    """
    found: dict[str, list[str]] = {}
    for place, below, files in os.walk(folder):
        if "run.json" in files:
            below.clear()  # a run, and no sweep
        elif RECORDS in below:
            below.remove(RECORDS)
            relative = Path(place).relative_to(folder)
            for path in sorted((Path(place) / RECORDS).glob("*.json")):
                record = read_json(path)
                runs = record.get("runs") if isinstance(record, dict) else None
                if isinstance(runs, dict):
                    found |= {str(relative / name): list(overrides) for name, overrides in runs.items()}
    return found
