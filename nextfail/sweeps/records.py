"""Records of the runs requested in a sweep, so that missing runs can be named."""

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
"""Maximum length of a file name in bytes."""

RECORDS = ".sweeps"
"""Subfolder of a sweep with one file for each set of runs requested there."""


def remember(folder: Path, runs: dict[str, list[str]]) -> None:
    """Record that one command requested these runs; repeating it changes nothing.

    Args:
        folder: folder of the sweep.
        runs: overrides of each run, by the name of its folder.
    """
    mark = hashlib.sha256("\n".join(sorted(runs)).encode()).hexdigest()[:16]
    name = f"{RECORDS}/{mark}.json"
    if lenient(folder / name, Sweep) != {"runs": runs}:  # some may have been removed by `forget`
        Inside(folder).write_json(name, {"runs": runs})


def remembered(folder: Path, links: bool = True) -> dict[str, list[str]]:
    """Overrides of every run ever requested below a folder, by path relative to that folder.

    Malformed records, and entries that lead out of their sweep's folder, are skipped.
    """
    found: dict[str, list[str]] = {}
    for place, runs in _sweeps(folder, links):
        for each in runs.values():
            found |= {str(place.relative_to(folder) / name): overrides for name, overrides in each.items()}
    return found


def never_begun(folder: Path) -> list[Path]:
    """Recorded runs below a folder whose folders do not exist; links are not followed."""
    return sorted(path for name in remembered(folder, links=False) if not (path := folder / name).exists())


def forget(folder: Path, runs: Iterable[Path]) -> None:
    """Delete runs from the records below a folder, so that they no longer count as missing; delete empty records."""
    struck = set(runs)
    for place, records in _sweeps(folder, links=False):
        for record, named in records.items():
            left = {name: overrides for name, overrides in named.items() if place / name not in struck}
            if not left:
                Inside(place).remove(f"{RECORDS}/{record}")
            elif left != named:
                Inside(place).write_json(f"{RECORDS}/{record}", {"runs": left})


def _sweeps(folder: Path, links: bool) -> Iterator[tuple[Path, dict[str, dict[str, list[str]]]]]:
    """Sweep folders at or below a folder; for each, the runs of every record by file name."""
    for place, below, files in walk(folder, links=links):
        if "run.json" in files:
            below.clear()  # a run, not a sweep
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
    """Whether a file system accepts this name."""
    try:
        return "\0" not in name and len(name.encode()) <= LONGEST
    except UnicodeEncodeError:
        return False
