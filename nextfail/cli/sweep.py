"""One display for all runs of a sweep, whatever launches them: it reads their status.json."""

import signal
import sys
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
from nextfail.runs.status import COLUMNS, cells, describe

_displays: list["SweepDisplay"] = []


class SweepDisplay(Callback):
    """A live table on a terminal, a line now and then elsewhere.

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
        self.handler = signal.signal(signal.SIGINT, self._interrupt)
        self.thread.start()
        _displays.append(self)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Print where every run of this sweep came to, once."""
        if self.ended.is_set():
            return
        self.ended.set()
        self.thread.join()
        signal.signal(signal.SIGINT, self.handler)
        runs = self._runs(self.start)
        states = [run["state"] for run in runs.values()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        print(f"{self.folder}: {counts or 'nothing was left to do'}", file=sys.stderr)
        for name, run in runs.items():
            if run["state"] == "failed":
                print(f"  {name} failed: {run.get('error')} (see error.txt there)", file=sys.stderr)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True  # the workers got the signal too, and save
        print("stopping: running jobs save first (Ctrl-C again to leave at once)", file=sys.stderr)

    def _runs(self, since: float) -> dict[str, dict[str, Any]]:
        """Status of every run with a sign of life after `since`, by folder name."""
        found = {path.parent.name: read_json(path) for path in sorted(self.folder.glob("*/status.json"))}
        return {name: status for name, status in found.items() if status and status["time"] >= since}

    def _show(self) -> None:
        if self.console.is_terminal:
            with Live(console=self.console, refresh_per_second=2, transient=True) as live:
                while not self.ended.wait(1.0):
                    live.update(self._table())
        else:
            while not self.ended.wait(self.every):
                for name, run in self._runs(self.start).items():
                    if run["state"] == "running":
                        print(f"{name}: {describe(run)}", file=sys.stderr, flush=True)

    def _table(self) -> Table:
        runs = self._runs(self.start)
        table = Table("run", *COLUMNS, title=f"{self.folder}", title_justify="left")
        for name, run in runs.items():
            if run["state"] in ("running", "starting"):
                table.add_row(name, *cells(run))
        done = [run for run in runs.values() if run["state"] == "done"]
        table.caption = (
            f"{len(done)} done, {sum(run['state'] == 'failed' for run in runs.values())} failed since the start"
        )
        return table


def close() -> None:
    """End every display of this process, also after an error."""
    while _displays:
        _displays.pop().close()
