"""Jobs handed to submitit: to SLURM in arrays, or to processes of this machine that take the same way."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import submitit
from hydra.types import HydraContext
from omegaconf import DictConfig
from submitit.core.utils import FailedJobError, FailedSubmissionError

from nextfail import stop
from nextfail.errors import RunCut, UserError
from nextfail.runs import slurm
from nextfail.runs.folder import RunFolder
from nextfail.runs.status import note, status_of
from nextfail.sweeps.plan import Job
from nextfail.sweeps.private import requeue as requeue_job
from nextfail.sweeps.private import state
from nextfail.sweeps.sweep import End
from nextfail.sweeps.work import perform

POLL = 10.0  # seconds between two questions to SLURM
RESULTS = 2.0  # seconds between two looks for results
MOST = 1000  # runs in an array, where the cluster does not say


class Slurm:
    """Sends runs to SLURM as arrays, one task a run, and asks SLURM itself how they end.

    Args:
        context: Hydra's.
        folder: for submitit's scripts, logs and pickles.
        parameters: of sbatch, under submitit's names.
        requeue: how often a run may be put into the queue again; 0 for never.
        max_array: longest array; None asks the cluster.
        detached: leave the jobs alone once they are sent.

    Raises:
        UserError: there is no SLURM here, or it has no such parameters.
    """

    room = batch = 1_000_000_000  # SLURM has a queue

    def __init__(
        self,
        context: HydraContext,
        folder: Path,
        parameters: dict[str, Any],
        requeue: int,
        max_array: int | None,
        detached: bool,
    ) -> None:
        self.context, self.requeue, self.detached = context, requeue, detached
        try:
            self.executor = submitit.SlurmExecutor(folder)
        except RuntimeError:
            raise UserError("hydra/launcher=slurm needs SLURM's commands, and there is no srun on this machine; "
                            "hydra/launcher=slurm_test goes the same way without them") from None  # fmt: skip
        _set(self.executor, parameters)
        self.max_array = max_array or slurm.limit("MaxArraySize") or MOST
        self.sent: dict[str, tuple[Job, Path]] = {}
        self.suspect: set[str] = set()
        self.waiting: Counter[str] = Counter()
        self.polled = self.looked = 0.0

    def prepare(self, jobs: list[Job]) -> None:
        """Nothing: SLURM finds places."""

    @property
    def busy(self) -> bool:
        """Whether any job is under way."""
        return bool(self.sent)

    def start(self, jobs: list[Job]) -> None:
        """Send jobs in arrays of at most `max_array`, each of which begins when the one before it has ended."""
        for first in range(0, len(jobs), self.max_array):
            chunk = jobs[first : first + self.max_array]
            try:
                tasks = self.executor.map_array(
                    work, *zip(*(_task(self.context, job, self.requeue) for job in chunk), strict=True)
                )
            except (FailedJobError, FailedSubmissionError, OSError) as error:
                for job in jobs[first:]:
                    job.refuse(f"SLURM did not take it: {_said(error)}")
                return
            for job, task in zip(chunk, tasks, strict=True):
                self.sent[task.job_id] = job, task.paths.stderr
                with suppress(UserError):  # without it the run is as good, and is found once it has begun
                    sent = {"job": task.job_id, "time": time.time()}
                    job.folder.files.write_json(job.folder.job_json.name, sent)
            self.executor.update_parameters(dependency=f"afterany:{tasks[0].job_id.partition('_')[0]}")

    def ended(self) -> list[End]:
        """Jobs that ended since the last time, with SLURM's reason."""
        return list(self._ended())

    def _ended(self) -> Iterator[End]:
        now = time.monotonic()
        if now - self.looked >= RESULTS:
            self.looked = now
            for name in [name for name, (job, _) in self.sent.items() if job.folder.result_json.exists()]:
                yield End(self.sent.pop(name)[0])
        if self.sent and now - self.polled >= POLL:
            self.polled = now
            answer = slurm.ask(self.sent) or {}
            self.waiting = Counter(said.reason or said.state for said in answer.values() if said.waits)
            for name, said in answer.items():
                if said.state in ("GONE", "COMPLETED") and name not in self.suspect:
                    # on its way from the queue to the accounts; or its result is not seen yet on this machine
                    self.suspect.add(name)
                elif not said.live:
                    job, log = self.sent.pop(name)
                    yield End(job, "", f"job {name} ended: {said}, see {log}")

    def news(self) -> str:
        """How many jobs wait in SLURM, and for what."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.waiting.most_common())
        return f"{self.waiting.total()} waiting in SLURM: {reasons}" if reasons else ""

    def stop(self) -> bool:
        """Leave the jobs to SLURM."""
        return False


class Local:
    """The same way as processes of this machine, a few at a time, which outlive the command as SLURM's jobs do.

    Args:
        context: Hydra's.
        folder: for submitit's logs and pickles.
        parameters: of submitit's local executor.
        size: processes at once.
        requeue: as for Slurm.
    """

    detached = False
    batch = 1

    def __init__(
        self, context: HydraContext, folder: Path, parameters: dict[str, Any], size: int, requeue: int
    ) -> None:
        self.context, self.size, self.requeue = context, size, requeue
        self.executor = submitit.LocalExecutor(folder)
        _set(self.executor, parameters)
        self.sent: list[tuple[Job, submitit.Job[float]]] = []

    def prepare(self, jobs: list[Job]) -> None:
        """Nothing: jobs are taken as they come."""

    @property
    def room(self) -> int:
        """Jobs that can be started now."""
        return self.size - len(self.sent)

    @property
    def busy(self) -> bool:
        """Whether any job is under way."""
        return bool(self.sent)

    def start(self, jobs: list[Job]) -> None:
        """Start jobs, no more than there is room for."""
        with stop.ignored():  # the command passes signals of the terminal on as a wish to save; submitit would kill
            for job in jobs:
                try:
                    process = self.executor.submit(work, *_task(self.context, job, self.requeue))
                except OSError as error:
                    job.refuse(f"no process could be started: {error}")
                else:
                    self.sent.append((job, process))

    def news(self) -> str:
        """Nothing: what waits here waits for its turn."""
        return ""

    def ended(self) -> list[End]:
        """Jobs that ended since the last time; their folders say how."""
        gone = [(job, process) for job, process in self.sent if process.done()]
        self.sent = [pair for pair in self.sent if pair not in gone]
        return [End(job, "", f"its process ended, see {process.paths.stderr}") for job, process in gone]

    def stop(self) -> bool:
        """Ask all jobs to save and end, and wait for them."""
        for _, process in self.sent:
            os.kill(int(process.job_id), signal.SIGTERM)  # submitit's controller hands it on
        return True


def work(context: HydraContext, config: DictConfig, singletons: dict[Any, Any], folder: Path, requeue: int) -> float:
    """One run inside a job: goes on if the job was requeued, and has it requeued when its time is up.

    Args:
        folder: of the run.
        requeue: how often a job may be put into the queue again.

    Raises:
        Exception: as perform; SLURM is to see a failed job as failed.
    """
    again = slurm.restarts()
    if again > requeue:
        note(RunFolder(folder), "cut", error=f"requeued {again} times, and hydra.launcher.requeue={requeue}")
        raise RunCut(f"not begun again: requeued {again} times already")
    try:
        return perform(context, config, singletons)
    except RunCut:
        if stop.requested in (signal.SIGUSR2, signal.SIGTERM):
            _requeue(RunFolder(folder), again, requeue)
        raise


def _requeue(folder: RunFolder, again: int, most: int) -> None:
    """Put this job into the queue again if its time is up, but not if SLURM is ending it already."""
    environment, name = submitit.JobEnvironment(), slurm.this_job()
    if environment.cluster == "slurm":
        said = (slurm.ask([str(name)]) or {}).get(str(name))
        if said is not None and said.state != "RUNNING":
            return  # cancelled, or requeued by SLURM
    elif stop.requested != signal.SIGUSR2:
        return
    else:
        again = int(status_of(folder).get("requeued", 0))
    if again >= most:
        note(
            folder,
            "cut",
            error=f"time limit or preemption, and requeued {again} times already (hydra.launcher.requeue)",
        )
        return
    note(folder, "cut", requeued=again + 1)
    requeue_job(environment, most - again)  # SLURM's way, or the local one, which exits


def _task(context: HydraContext, job: Job, requeue: int) -> tuple[Any, ...]:
    return context, job.config, state(), job.folder.path, requeue


def _set(executor: submitit.Executor, parameters: dict[str, Any]) -> None:
    try:
        executor.update_parameters(**parameters)
    except (ValueError, TypeError) as error:
        raise UserError(f"hydra.launcher: {' '.join(str(error).split())}") from error


def _said(error: Exception) -> str:
    """What sbatch said, without what Python says around it."""
    text = str(error) or type(error).__name__
    lines = [line.partition("error: ")[2] for line in text.splitlines() if line.startswith("sbatch: error: ")]
    return "; ".join(lines) or text.splitlines()[0]
