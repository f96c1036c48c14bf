"""nextfail-status: list runs that are done, running, pending, cut, failed or missing.

nextfail-status runs/demo
nextfail-status runs/demo --watch
nextfail-status runs/demo --forget
nextfail-status runs/demo --json
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.live import Live
from rich.text import Text

from nextfail.cli.common import parser_of
from nextfail.errors import guarded
from nextfail.runs.find import find
from nextfail.runs.naming import tally
from nextfail.runs.records import Status
from nextfail.runs.status import STATES, describe, survey
from nextfail.sweeps.records import forget, never_begun, remembered
from nextfail.terminal import console, say
from nextfail.text import line

COLOURS = {
    "running": "cyan",
    "pending": "blue",
    "cut": "yellow",
    "failed": "red",
    "missing": "magenta",
    "done": "green",
}
"""Colour of each state, in output order: states that need attention come first."""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    parser = parser_of("nextfail-status", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders, or folders of sweeps")
    parser.add_argument("--watch", action="store_true", help="refresh until no run is running or pending")
    parser.add_argument(
        "--every", type=_seconds, default=5.0, metavar="SECONDS", help="seconds between two refreshes (default: 5)"
    )
    parser.add_argument("--forget", action="store_true", help="forget the runs that were requested but never started")
    parser.add_argument("--json", action="store_true", help="one JSON object for each run, in a list")
    return parser


def main() -> None:
    """Entry point."""
    arguments = parser().parse_args()
    if arguments.watch and arguments.json:
        parser().error("--watch and --json cannot be used together")
    guarded("nextfail-status", lambda: show(arguments))


def show(arguments: argparse.Namespace) -> None:
    """Print the status as requested."""
    for folder in arguments.folders if arguments.forget else ():
        forget(folder, never_begun(folder))
    runs = statuses(arguments.folders)
    shown = console()
    if arguments.json:
        say(json.dumps([{**status, "folder": str(folder)} for folder, status in runs.items()], indent=1))
    elif arguments.watch and shown.is_terminal:
        with Live(_page(runs), console=shown, auto_refresh=False) as live:
            for page in _looks(arguments.folders, arguments.every):
                live.update(_page(page), refresh=True)
    else:
        shown.print(_page(runs), soft_wrap=True)
        for page in _looks(arguments.folders, arguments.every) if arguments.watch else ():
            shown.print(counts(page))


def statuses(folders: Sequence[Path]) -> dict[Path, Status]:
    """The status of each run at or below the given folders, including requested runs that never started.

    Raises:
        UserError: a folder does not exist, or none of them contains a run.
    """
    asked = {folder / name for folder in folders for name in remembered(folder)}
    known = find(folders, empty=bool(asked))
    by_place = {path.resolve(): path for path in [*sorted(asked), *known]}
    return dict(sorted(survey(by_place.values()).items()))


def counts(runs: dict[Path, Status]) -> str:
    """`8 runs: 3 done, 1 running, 4 missing`."""
    return tally([status["state"] for status in runs.values()], {state: state for state in STATES})


def _looks(folders: Sequence[Path], every: float) -> Iterator[dict[Path, Status]]:
    """Poll until nothing is running or pending in two polls in a row (there may be a gap between two runs)."""
    idle = 0
    while idle < 2:
        time.sleep(every)
        runs = statuses(folders)
        going = any(status["state"] in ("running", "pending") for status in runs.values())
        idle = 0 if going else idle + 1
        yield runs


def _page(runs: dict[Path, Status]) -> Text:
    page, order = Text(counts(runs)), list(COLOURS)
    for folder, status in sorted(runs.items(), key=lambda item: order.index(item[1]["state"])):
        state = status["state"]
        page.append(f"\n{state:9}", COLOURS[state]).append(line(_near(folder)))
        page.append(f"  {line(_detail(status))}", "dim")
    return page


def _seconds(text: str) -> float:
    if not 0 < (seconds := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds


def _near(folder: Path) -> str:
    return os.path.relpath(folder) if folder.is_absolute() else str(folder)


def _detail(status: Status) -> str:
    if status["state"] == "done":
        exact = status["exact_match"]
        return str(status["outcome"]) + ("" if exact is None else f", exact match {exact:.3f}")
    if status["state"] == "running":
        return f"{describe(status)}; {status['reason'].partition(', ')[2]}"
    return str(status["reason"])


if __name__ == "__main__":
    main()
