"""Which runs a sweep has, so that the missing ones can be named."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path, PurePath

from nextfail.files import Inside
from nextfail.runs.find import walk
from nextfail.runs.records import Malformed, Sweep, lenient, read
from nextfail.text import line

log = logging.getLogger(__name__)

LONGEST = 255
"""Bytes of a name that a file system takes."""

RECORDS = ".sweeps"
"""Folder, inside that of a sweep, with a file for each set of runs that was ever asked for there."""


def remember(folder: Path, runs: dict[str, list[str]]) -> None:
    """Write down that these runs were asked for in one command; asking again changes nothing.

    Args:
        folder: of the sweep.
        runs: overrides by the run folder's name, below it.
    """
    mark = hashlib.sha256("\n".join(sorted(runs)).encode()).hexdigest()[:16]
    name = f"{RECORDS}/{mark}.json"
    if lenient(folder / name, Sweep) != {"runs": runs}:  # some may have been forgotten since
        Inside(folder).write_json(name, {"runs": runs})


def remembered(folder: Path, links: bool = True) -> dict[str, list[str]]:
    """Overrides of every run that was ever asked for below a folder, by its path relative to that.

    Records that are not whole are skipped, and so is what leads out of its sweep's folder.
    """
    found: dict[str, list[str]] = {}
    for place, runs in _sweeps(folder, links):
        for each in runs.values():
            found |= {str(place.relative_to(folder) / name): overrides for name, overrides in each.items()}
    return found


def never_begun(folder: Path) -> list[Path]:
    """Folders of the runs that records below a folder name and that do not exist; nothing behind links."""
    return sorted(path for name in remembered(folder, links=False) if not (path := folder / name).exists())


def forget(folder: Path, runs: Iterable[Path]) -> None:
    """Strike runs from the records below a folder, so that nobody misses them; a record without any is removed."""
    struck = set(runs)
    for place, records in _sweeps(folder, links=False):
        for record, named in records.items():
            left = {name: overrides for name, overrides in named.items() if place / name not in struck}
            if not left:
                Inside(place).remove(f"{RECORDS}/{record}")
            elif left != named:
                Inside(place).write_json(f"{RECORDS}/{record}", {"runs": left})


def _sweeps(folder: Path, links: bool) -> Iterator[tuple[Path, dict[str, dict[str, list[str]]]]]:
    """Folders of sweeps at or below one; of each, the runs of every record by its file's name."""
    for place, below, files in walk(folder, links=links):
        if "run.json" in files:
            below.clear()  # a run, and no sweep
        elif RECORDS in below:
            below.remove(RECORDS)
            records = {path.name: _read(path) for path in sorted((place / RECORDS).glob("*.json"))}
            yield place, {name: runs for name, runs in records.items() if runs}


def _read(path: Path) -> dict[str, list[str]]:
    try:
        record = read(path, Sweep)
    except Malformed as error:
        _warn(path, str(error))
        return {}
    return {name: texts for name, texts in (record["runs"] if record else {}).items()
            if not PurePath(name).is_absolute() and ".." not in PurePath(name).parts and PurePath(name).parts
            and _sane(name)}  # fmt: skip


@cache
def _warn(path: Path, why: str) -> None:
    log.warning("%s, and counts as empty", line(f"{path.parent}/{why}"))


def _sane(name: str) -> bool:
    """Whether a file system can have such a name."""
    try:
        return "\0" not in name and len(name.encode()) <= LONGEST
    except UnicodeEncodeError:
        return False
