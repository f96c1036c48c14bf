"""Run one sweep, from its plan to the summary line."""

import math
import shlex
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

TICK = 0.2  # seconds between checks of this command's jobs
ELSEWHERE = 5.0  # seconds between checks of runs that other commands own

WORDS = {
    "before": "done before",
    "done": "done now",
    "failed": "failed",
    "cut": "cut",
    "elsewhere": "left to others",
    "sent": "sent to SLURM",
    "refused": "refused",
    "todo": "not started",
}
"""Job states as the summary line names them."""


@dataclass(frozen=True)
class End:
    """The end of a job's process.

    Args:
        state: cut or failed if known; empty if the run folder has to tell.
        words: how it ended; empty on success.
    """

    job: Job
    state: str = ""
    words: str = ""


class Backend(Protocol):
    """Runs jobs: a local pool, SLURM, or submitit's local executor."""

    detached: bool
    """Whether to return once jobs are started, instead of waiting for them."""

    batch: int
    """Maximum number of jobs started at a time; signals are handled in between."""

    def prepare(self, jobs: list[Job]) -> None:
        """Called once with all jobs to start; refuses those that cannot start, with a reason."""

    @property
    def room(self) -> int:
        """Number of jobs that can be started now."""

    @property
    def busy(self) -> bool:
        """Whether any started job has not ended."""

    def start(self, jobs: list[Job]) -> None:
        """Start jobs; refuses those that cannot be started, with a reason."""

    def ended(self) -> list[End]:
        """Jobs that ended since the last call."""

    def news(self) -> str:
        """A message about jobs that are not running yet; may be empty."""

    def stop(self) -> bool:
        """Ask all jobs to save and stop; returns whether to wait for them."""


class Sweep:
    """Runs jobs to completion, each in exactly one process.

    The first Ctrl-C, SIGTERM or SIGHUP asks running jobs to save, the second exits immediately.
    """

    def __init__(self, jobs: Sequence[Job], backend: Backend) -> None:
        self.jobs, self.backend = list(jobs), backend
        self.signals = 0
        self.looked = 0.0

    def run(self) -> None:
        """Start the jobs that are not done; return when all have ended, or are submitted to a detached backend.

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
            except KeyboardInterrupt:  # second signal: ask running jobs to save, but do not wait
                self.backend.stop()
                raise
            finally:
                stop.unlisten(handlers)
        if self.signals:
            raise RunCut("stopped; the same command resumes from here")

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
                self._set_aside(batch)  # another command may have started them meanwhile
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
        """Mark jobs in these states as sent, since they are not waited for."""
        for job in self.jobs:
            if job.state in states:
                job.state = "sent"

    def _forget(self, jobs: list[Job]) -> None:
        """Reset old results and states, so that none is taken for the outcome of this attempt."""
        for job in jobs:
            if job.config.on_existing == "restart":
                with suppress(UserError):  # the run itself will report the problem with its folder
                    job.folder.files.remove(job.folder.result_json.name)
            if job.folder.status_json.exists():
                _note(job, "begun again", None)

    def _settle(self, end: End) -> None:
        """Decide how a job ended: from its result, else from its status.json, else from its process."""
        job = end.job
        status = survey([job.folder.path])[job.folder.path]
        if status["state"] == "done":
            job.state = "done"
        elif status["state"] in ("running", "pending"):
            job.state, job.reason = "elsewhere", end.words
        else:
            wrote = status_of(job.folder)
            if wrote.get("state") not in ("failed", "cut"):  # it was killed, or never wrote its status
                state = end.state or ("cut" if status["state"] == "cut" else "failed")
                wrote = _note(job, state, end.words or "ended without a message")
            job.state, job.reason = wrote["state"], wrote.get("error") or end.words

    def _set_aside(self, jobs: list[Job]) -> None:
        """Set aside runs that are running or pending elsewhere."""
        by_folder = {job.folder.path: job for job in jobs}
        for path, status in survey(by_folder).items():
            if status["state"] in ("running", "pending"):
                by_folder[path].state, by_folder[path].reason = "elsewhere", status["reason"]

    def _returned(self) -> list[Job]:
        """Runs that others left unfinished, to be started here; settles those that ended elsewhere."""
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
                job.state, job.reason = "cut", status["reason"]  # possibly cancelled: do not restart it
            elif status["state"] not in ("running", "pending"):
                job.state = "todo"
        return [job for job in others.values() if job.state == "todo"]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        if self.signals > 1:
            raise KeyboardInterrupt
        self.display.say("stopping, running jobs save first (Ctrl-C again to leave at once)")


def _note(job: Job, state: str, error: str | None) -> Status:
    """Write a run's state into its folder; a full disk does not affect other runs."""
    try:
        return note(job.folder, state, error=error, requeued=0)
    except UserError as problem:
        return {"state": state, "error": f"{error}; {problem}"}


def counts(jobs: Sequence[Job]) -> str:
    """`6 runs: 3 done before, 2 done now, 1 failed`."""
    return tally([job.state for job in jobs], WORDS)


def unfinished(jobs: Sequence[Job]) -> list[str]:
    """One line per unfinished run, and one line for all runs refused for the same reason."""
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
    """Add jobs to those of this command, for `report` and `folders`."""
    _finished.extend(jobs)


def folders() -> list[Path]:
    """Folders of this command's finished jobs."""
    return [job.folder.path for job in _finished if job.state in ("done", "before")]


def report() -> tuple[str, list[str], bool]:
    """For this command's jobs: the summary line, further lines, and whether no job is unfinished.

    The further lines are those of unfinished runs, or the command that compares the runs if all are done.
    """
    lines = unfinished(_finished)
    if len(_finished) > 1 and len(folders()) == len(_finished):
        names = dict.fromkeys(shlex.quote(str(_near(folder.parent))) for folder in folders())
        return counts(_finished), [f"to compare them: nextfail-report {' '.join(names)}"], True
    return (counts(_finished) if _finished else ""), lines, not lines


def values(jobs: Sequence[Job]) -> list[float]:
    """Exact match of each job at its last validation, never on the test set; NaN if there is no result."""
    return [_validated(job.folder) if job.state in ("done", "before") else math.nan for job in jobs]


def _validated(folder: RunFolder) -> float:
    rows = [row for row in read_rows(folder.metrics_csv) if row.get("split") == "validation"]
    try:
        return float(rows[-1].get("exact_match", math.nan)) if rows else math.nan
    except ValueError:
        return math.nan
