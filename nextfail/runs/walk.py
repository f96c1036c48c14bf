"""All folders below one, those behind links included."""

import os
from collections.abc import Iterator
from pathlib import Path

BEHIND_LINKS = 3
"""Levels that are looked at behind a link, which may lead anywhere: a folder of sweeps, a sweep, a run."""


def walk(folder: Path, levels: int | None = None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder, the names of folders in it, and those of files; a folder that can be reached twice comes once.

    Names that are taken out of the first list are not looked into.

    Args:
        levels: how many levels of folders; None for all.
    """
    yield from _walk(folder, levels, set())


def _walk(folder: Path, levels: int | None, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, list[str], list[str]]]:
    for name, below, files in os.walk(folder):
        place = Path(name)
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if levels is not None and len(place.relative_to(folder).parts) >= levels:
            below.clear()
        below.sort()
        yield place, below, files
        for each in below:
            if (link := place / each).is_symlink():
                yield from _walk(link, BEHIND_LINKS if levels is None else levels, seen)
