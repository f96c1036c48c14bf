"""One sweep from its plan to the line of counts."""

import math
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from nextfail import stop
from nextfail.errors import RunCut, UserError
from nextfail.runs import slurm
from nextfail.runs.folder import RunFolder
from nextfail.runs.naming import tally
from nextfail.runs.records import Status
from nextfail.runs.status import note, status_of, survey
from nextfail.runs.table import read_rows
from nextfail.sweeps.display import Display
from nextfail.sweeps.plan import Job

TICK = 0.2  # seconds between two looks at the jobs of this command
ELSEWHERE = 5.0  # seconds between two looks at runs that other commands have

WORDS = {
    "before": "done before",
    "done": "done now",
    "failed": "failed",
    "cut": "cut",
    "elsewhere": "left to others",
    "sent": "sent to SLURM",
    "refused": "refused",
    "todo": "not begun",
}
"""States of a job as the line of counts names them."""


@dataclass(frozen=True)
class End:
    """That a job's process ended.

    Args:
        state: cut or failed if that is known; empty if its folder has to say.
        words: how it ended; empty if well.
    """

    job: Job
    state: str = ""
    words: str = ""


class Backend(Protocol):
    """Where jobs run."""

    detached: bool
    """Whether jobs are to be left alone once they are started."""

    batch: int
    """How many jobs are started at a time; between two times a signal is heard."""

    def prepare(self, jobs: list[Job]) -> None:
        """Look, once, at all that is to be started; what cannot be is refused, with a reason."""

    @property
    def room(self) -> int:
        """Jobs that can be started now."""

    @property
    def busy(self) -> bool:
        """Whether any job is under way."""

    def start(self, jobs: list[Job]) -> None:
        """Start jobs; one that cannot be started is refused, with a reason."""

    def ended(self) -> list[End]:
        """Jobs that ended since the last time."""

    def news(self) -> str:
        """What is to be said of jobs that do not run yet; may be empty."""

    def stop(self) -> bool:
        """Ask all jobs to save and end; whether they are to be waited for."""


class Sweep:
    """Brings jobs to their end, each by one process alone.

    A first Ctrl-C, SIGTERM or SIGHUP asks running jobs to save, a second leaves at once.
    """

    def __init__(self, jobs: Sequence[Job], backend: Backend) -> None:
        self.jobs, self.backend = list(jobs), backend
        self.signals = 0
        self.looked = 0.0

    def run(self) -> None:
        """Start what is to be done and return when all is settled.

        Raises:
            RunCut: a signal asked this command to stop.
        """
        todo = [job for job in self.jobs if job.state == "todo"]
        if not todo:
            return
        with Display(self.jobs, self.backend.news) as self.display:
            handlers = stop.handle((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._interrupt)
            try:
                self.backend.prepare(todo)
                self._set_aside(todo)
                self._drive(deque(job for job in todo if job.state == "todo"))
            except KeyboardInterrupt:  # a second signal: whatever runs is asked to save, and not waited for here
                self.backend.stop()
                raise
            finally:
                stop.unlisten(handlers)
        if self.signals:
            raise RunCut("stopped; the same command goes on from here")

    def _drive(self, waiting: deque[Job]) -> None:
        while True:
            for end in self.backend.ended():
                self._settle(end)
            if self.signals:
                self._stop()
                break
            waiting += self._returned()
            while waiting and (room := min(self.backend.room, self.backend.batch)) and not self.signals:
                batch = [waiting.popleft() for _ in range(min(len(waiting), room))]
                self._set_aside(batch)  # by now another command may have begun them
                batch = [job for job in batch if job.state == "todo"]
                self._forget(batch)
                self.backend.start(batch)
            if self.backend.detached:
                self._leave("todo", "elsewhere")
                break
            if not (waiting or self.backend.busy or any(job.state == "elsewhere" for job in self.jobs)):
                break
            time.sleep(TICK)

    def _stop(self) -> None:
        if self.backend.stop():
            while self.backend.busy:
                for end in self.backend.ended():
                    self._settle(end)
                time.sleep(TICK)
        else:
            self.display.say("the jobs go on in SLURM: the same command waits for them again")
            self._leave("todo")

    def _leave(self, *states: str) -> None:
        """Count jobs in these states as sent, since they are not waited for."""
        for job in self.jobs:
            if job.state in states:
                job.state = "sent"

    def _forget(self, jobs: list[Job]) -> None:
        """Let no job be taken for done, failed or cut because it was so before."""
        for job in jobs:
            if job.config.on_existing == "restart":
                with suppress(UserError):  # the run itself will say what is wrong with its folder
                    job.folder.files.remove(job.folder.result_json.name)
            if job.folder.status_json.exists():
                _note(job, "begun again", None)

    def _settle(self, end: End) -> None:
        """Decide how a job ended: by its result, else by what it wrote, else by what is known of its process."""
        job = end.job
        status = survey([job.folder.path])[job.folder.path]
        if status["state"] == "done":
            job.state = "done"
        elif status["state"] in ("running", "pending"):
            job.state, job.reason = "elsewhere", end.words
        else:
            wrote = status_of(job.folder)
            if wrote.get("state") not in ("failed", "cut"):  # it was killed, or never got to write
                state = end.state or ("cut" if status["state"] == "cut" else "failed")
                wrote = _note(job, state, end.words or "ended without a word")
            job.state, job.reason = wrote["state"], wrote.get("error") or end.words

    def _set_aside(self, jobs: list[Job]) -> None:
        """Leave runs to those who have them already."""
        by_folder = {job.folder.path: job for job in jobs}
        for path, status in survey(by_folder).items():
            if status["state"] in ("running", "pending"):
                by_folder[path].state, by_folder[path].reason = "elsewhere", status["reason"]

    def _returned(self) -> list[Job]:
        """Runs that others had and left undone; those that they brought to an end are settled."""
        others = {job.folder.path: job for job in self.jobs if job.state == "elsewhere"}
        if not others or time.monotonic() - self.looked < ELSEWHERE:
            return []
        self.looked = time.monotonic()
        for path, status in survey(others).items():
            job = others[path]
            if status["state"] == "done":
                job.state = "done"
            elif status["state"] == "failed":
                job.state, job.reason = "failed", status["reason"]
            elif status["state"] == "cut" and slurm.is_slurms(status.get("job")):
                job.state, job.reason = "cut", status["reason"]  # cancelled, perhaps: that is not to be undone
            elif status["state"] not in ("running", "pending"):
                job.state = "todo"
        return [job for job in others.values() if job.state == "todo"]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        if self.signals > 1:
            raise KeyboardInterrupt
        self.display.say("stopping, running jobs save first (Ctrl-C again to leave at once)")


def _note(job: Job, state: str, error: str | None) -> Status:
    """Write into a run's folder what is known of it; a disk that is full takes no other run along."""
    try:
        return note(job.folder, state, error=error, requeued=0)
    except UserError as problem:
        return {"state": state, "error": f"{error}; {problem}"}


def counts(jobs: Sequence[Job]) -> str:
    """`6 runs: 3 done before, 2 done now, 1 failed`."""
    return tally([job.state for job in jobs], WORDS)


def unfinished(jobs: Sequence[Job]) -> list[str]:
    """A line for each run that is not done, and one for all that were refused for the same reason."""
    lines: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        if job.state not in ("done", "before", "sent"):
            key = job.reason if job.state == "refused" else job.name
            lines.setdefault((job.state, key), []).append(job)
    return [f"  {WORDS[state]}: {_names(some)}{': ' if some[0].reason else ''}{some[0].reason}{_where(some[0])}"
            for (state, _), some in lines.items()]  # fmt: skip


def _names(jobs: list[Job]) -> str:
    return jobs[0].name if len(jobs) == 1 else f"{jobs[0].name} and {len(jobs) - 1} more"


def _where(job: Job) -> str:
    path = job.folder.error_txt
    return f" (see {_near(path)})" if job.state == "failed" and path.exists() else ""


def _near(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


_finished: list[Job] = []


def finish(jobs: Sequence[Job]) -> None:
    """Add jobs to those of this command, which `report` tells of."""
    _finished.extend(jobs)


def folders() -> list[Path]:
    """Of this command's jobs that are done."""
    return [job.folder.path for job in _finished if job.state in ("done", "before")]


def report() -> tuple[str, list[str], bool]:
    """Of this command's jobs: the line of counts, the lines of what is not done, and whether all are done."""
    lines = unfinished(_finished)
    return (counts(_finished) if _finished else ""), lines, not lines


def values(jobs: Sequence[Job]) -> list[float]:
    """Exact match of each job at its last validation, never on the test set; NaN where there is no result."""
    return [_validated(job.folder) if job.state in ("done", "before") else math.nan for job in jobs]


def _validated(folder: RunFolder) -> float:
    rows = [row for row in read_rows(folder.metrics_csv) if row.get("split") == "validation"]
    try:
        return float(rows[-1].get("exact_match", math.nan)) if rows else math.nan
    except ValueError:
        return math.nan
