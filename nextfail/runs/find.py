"""Find run folders below a folder, including those behind links."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nextfail.errors import UserError

BEHIND_LINKS = 3
"""Maximum depth behind a link, which may lead anywhere: a folder of sweeps, a sweep, a run."""


def find(folders: Sequence[Path], empty: bool = False, links: bool = True) -> list[Path]:
    """Folders with a run.json or result.json, at or below the given ones, without duplicates.

    Args:
        empty: whether the result may be empty.
        links: whether to follow links.

    Raises:
        UserError: a folder does not exist, or there is no run in any of them.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}")
        for place, below, files in walk(folder, links=links):
            below[:] = [name for name in below if name not in ("checkpoints", "figures")]  # contain no runs
            if "run.json" in files or "result.json" in files:
                found.setdefault(place.resolve(), place)
    if not (found or empty):
        raise UserError(f"no run found in {', '.join(map(str, folders))}: a run folder has a run.json in it")
    return sorted(found.values())


def walk(folder: Path, levels: int | None = None, links: bool = True) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As os.walk: each folder, and the names of folders and files in it. Every folder is visited once, despite links.

    Folders removed from the first list are not entered.

    Args:
        levels: maximum depth; None for no limit.
        links: whether to follow links.
    """
    yield from _walk(folder, levels, links, set())


def _walk(
    folder: Path, levels: int | None, links: bool, seen: set[tuple[int, int]]
) -> Iterator[tuple[Path, list[str], list[str]]]:
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
        for each in below if links else ():
            if (link := place / each).is_symlink():
                yield from _walk(link, BEHIND_LINKS if levels is None else levels, links, seen)
