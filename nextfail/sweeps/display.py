"""Progress display for all runs of a sweep, independent of the launcher: it reads their status.json."""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.table import Table

from nextfail.runs import records
from nextfail.runs.naming import one_line
from nextfail.runs.records import Status
from nextfail.runs.status import COLUMNS, describe, row
from nextfail.sweeps.plan import Job
from nextfail.terminal import console

EVERY = 30.0  # seconds between progress lines without a terminal


class Display:
    """A live table on a terminal, periodic lines elsewhere, and one line for each run that finishes.

    Args:
        jobs: jobs of the sweep.
        news: returns a message about jobs that are not running yet.
    """

    def __init__(self, jobs: Sequence[Job], news: Callable[[], str]) -> None:
        self.jobs, self.news = jobs, news
        self.console = console(error=True)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._show, daemon=True)
        self.announced = {job.number for job in jobs if job.state == "before"}

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.thread.join()
        self._announce()

    def say(self, text: str) -> None:
        """Print a line above the live table."""
        self.console.print(text, soft_wrap=True)

    def _show(self) -> None:
        if self.console.is_terminal:
            with Live(console=self.console, refresh_per_second=2, transient=True) as live:
                while not self.ended.wait(1.0):
                    self._announce()
                    live.update(Group(_table(self._running()), self.news()))
            return
        said = time.monotonic()
        while not self.ended.wait(1.0):
            self._announce()
            if time.monotonic() - said >= EVERY:
                said = time.monotonic()
                for name, status in self._running().items():
                    self.say(f"{name}: {describe(status)}")
                if text := self.news():
                    self.say(text)

    def _running(self) -> dict[str, Status]:
        going = [job for job in self.jobs if job.state in ("todo", "elsewhere")]
        found = {job.name: records.lenient(job.folder.status_json, Status) or {} for job in going}
        return {name: status for name, status in found.items() if status.get("state") == "running"}

    def _announce(self) -> None:
        """Print the result of each run that finished since the last call."""
        for job in self.jobs:
            if job.state == "done" and job.number not in self.announced:
                self.announced.add(job.number)
                if result := job.folder.result():
                    self.say(one_line(result))


def _table(runs: dict[str, Status]) -> Table:
    table = Table("run", *COLUMNS, box=None)
    for name, status in runs.items():
        table.add_row(name, *row(status))
    return table
