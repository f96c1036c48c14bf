"""One display for all runs of a sweep, whatever launches them: it reads their status.json."""

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.live import Live
from rich.table import Table

from nextfail.runs.files import read_json
from nextfail.runs.folder import RunFolder
from nextfail.runs.naming import one_line
from nextfail.runs.status import COLUMNS, Status, cells, describe

_displays: list["SweepDisplay"] = []


class SweepDisplay(Callback):
    """A live table on a terminal, a line now and then elsewhere, and a line for each run that ends.

    Args:
        every: seconds between two lines where there is no terminal.
    """

    def __init__(self, every: float = 30.0) -> None:
        self.every = every

    def __getstate__(self) -> dict[str, Any]:
        return {"every": self.every}  # Hydra sends its callbacks to the workers

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.folder, self.start = Path(config.hydra.sweep.dir), time.time()
        self.console = Console(stderr=True)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._show, daemon=True)
        self.interrupted = False
        self.announced: set[str] = set()
        self.handler = signal.signal(signal.SIGINT, self._interrupt)
        self.thread.start()
        _displays.append(self)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.close()
        if not self._runs():
            self._say(f"{self.folder}: nothing new")

    def close(self) -> None:
        """Say how many runs ended how, and why which of them failed; once."""
        if self.ended.is_set():
            return
        self.ended.set()
        self.thread.join()
        signal.signal(signal.SIGINT, self.handler)
        runs = self._runs()
        self._announce(runs)
        states = [run["state"] for run in runs.values()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        if counts:
            self._say(f"{self.folder}: {counts}")
        for name, run in runs.items():
            if run["state"] == "failed":
                self._say(f"  {name} failed: {run.get('error')} (see error.txt there)")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True  # the workers got the signal too, and save
        self._say("stopping: running jobs save first (Ctrl-C again to leave at once)")

    def _runs(self) -> dict[str, Status]:
        """Status of every run with a sign of life since the start, by folder name."""
        found = {path.parent.name: read_json(path) for path in sorted(self.folder.glob("*/status.json"))}
        return {name: status for name, status in found.items() if status and status["time"] >= self.start}

    def _show(self) -> None:
        if self.console.is_terminal:
            with Live(console=self.console, refresh_per_second=2, transient=True) as live:
                while not self.ended.wait(1.0):
                    runs = self._runs()
                    self._announce(runs)
                    live.update(_table(runs))
            return
        said = time.monotonic()
        while not self.ended.wait(1.0):
            runs = self._runs()
            self._announce(runs)
            if time.monotonic() - said >= self.every:
                said = time.monotonic()
                for name, run in runs.items():
                    if run["state"] == "running":
                        self._say(f"{name}: {describe(run)}")

    def _announce(self, runs: dict[str, Status]) -> None:
        """Print the result of each run that ended since the last look."""
        for name, run in runs.items():
            if run["state"] == "done" and name not in self.announced:
                self.announced.add(name)
                if result := RunFolder(self.folder / name).result():
                    self._say(one_line(result))

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _table(runs: dict[str, Status]) -> Table:
    table = Table("run", *COLUMNS, box=None)
    for name, run in runs.items():
        if run["state"] in ("running", "starting"):
            table.add_row(name, *cells(run))
    return table


def close() -> None:
    """End every display of this process, also after an error."""
    while _displays:
        _displays.pop().close()
