"""Run jobs through submitit: as SLURM job arrays, or as local processes on the same code path."""

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

POLL = 10.0  # seconds between queries to SLURM
RESULTS = 2.0  # seconds between checks for results
MOST = 1000  # runs per array, if the cluster states no limit


class Slurm:
    """Submits runs to SLURM as arrays, one task per run, and asks SLURM how they ended.

    Args:
        context: Hydra's context.
        folder: folder for submitit's scripts, logs and pickles.
        parameters: sbatch parameters, under submitit's names.
        requeue: maximum number of requeues per run; 0 for none.
        max_array: maximum array size; None asks the cluster.
        detached: whether to return once the jobs are submitted.

    Raises:
        UserError: SLURM is not installed here, or a parameter is invalid.
    """

    room = batch = 1_000_000_000  # unlimited: SLURM has a queue

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
                            "hydra/launcher=slurm_test works the same way without them") from None  # fmt: skip
        _set(self.executor, parameters)
        self.max_array = max_array or slurm.limit("MaxArraySize") or MOST
        self.sent: dict[str, tuple[Job, Path]] = {}
        self.suspect: set[str] = set()
        self.waiting: Counter[str] = Counter()
        self.polled = self.looked = 0.0

    def prepare(self, jobs: list[Job]) -> None:
        """Nothing to do: SLURM allocates resources."""

    @property
    def busy(self) -> bool:
        """Whether any submitted job has not ended."""
        return bool(self.sent)

    def start(self, jobs: list[Job]) -> None:
        """Submit jobs in arrays of at most `max_array`, each of which starts after the previous one has ended."""
        for first in range(0, len(jobs), self.max_array):
            chunk = jobs[first : first + self.max_array]
            try:
                tasks = self.executor.map_array(
                    work, *zip(*(_task(self.context, job, self.requeue) for job in chunk), strict=True)
                )
            except (FailedJobError, FailedSubmissionError, OSError) as error:
                for job in jobs[first:]:
                    job.refuse(f"SLURM refused it: {_said(error)}")
                return
            for job, task in zip(chunk, tasks, strict=True):
                self.sent[task.job_id] = job, task.paths.stderr
                with suppress(UserError):  # optional: the run is found once it has started
                    sent = {"job": task.job_id, "time": time.time()}
                    job.folder.files.write_json(job.folder.job_json.name, sent)
            self.executor.update_parameters(dependency=f"afterany:{tasks[0].job_id.partition('_')[0]}")

    def ended(self) -> list[End]:
        """Jobs that ended since the last call, with SLURM's reason."""
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
                    # between queue and accounting, or its result is not visible on this machine yet
                    self.suspect.add(name)
                elif not said.live:
                    job, log = self.sent.pop(name)
                    yield End(job, "", f"job {name} ended: {said}, see {log}")

    def news(self) -> str:
        """How many jobs are waiting in SLURM, and for what reasons."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.waiting.most_common())
        return f"{self.waiting.total()} waiting in SLURM: {reasons}" if reasons else ""

    def stop(self) -> bool:
        """Leave the jobs to SLURM; returns False: there is nothing to wait for."""
        return False


class Local:
    """The same as local processes, a few at a time. Like SLURM jobs, they outlive the command.

    Args:
        context: Hydra's context.
        folder: folder for submitit's logs and pickles.
        parameters: parameters of submitit's local executor.
        size: maximum number of concurrent processes.
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
        """Nothing to do."""

    @property
    def room(self) -> int:
        """Number of jobs that can be started now."""
        return self.size - len(self.sent)

    @property
    def busy(self) -> bool:
        """Whether any submitted job has not ended."""
        return bool(self.sent)

    def start(self, jobs: list[Job]) -> None:
        """Start jobs, at most `room` of them."""
        with stop.blocked():  # the command turns terminal signals into a request to save; submitit would kill
            for job in jobs:
                try:
                    process = self.executor.submit(work, *_task(self.context, job, self.requeue))
                except OSError as error:
                    job.refuse(f"no process could be started: {error}")
                else:
                    self.sent.append((job, process))

    def news(self) -> str:
        """Empty: jobs only wait for a free slot."""
        return ""

    def ended(self) -> list[End]:
        """Jobs that ended since the last call; their folders tell how."""
        gone = [(job, process) for job, process in self.sent if process.done()]
        self.sent = [pair for pair in self.sent if pair not in gone]
        return [End(job, "", f"its process ended, see {process.paths.stderr}") for job, process in gone]

    def stop(self) -> bool:
        """Ask all jobs to save and stop; returns True: the caller should wait for them."""
        for _, process in self.sent:
            os.kill(int(process.job_id), signal.SIGTERM)  # submitit's controller forwards it
        return True


def work(context: HydraContext, config: DictConfig, singletons: dict[Any, Any], folder: Path, requeue: int) -> float:
    """One run inside a job: resumes if the job was requeued, and requeues the job at its time limit.

    Args:
        folder: run folder.
        requeue: maximum number of requeues.

    Raises:
        RunCut: the job was requeued too often.
        Exception: as `perform`, so that SLURM marks a failed job as failed.
    """
    again = slurm.restarts()
    if again > requeue:
        note(RunFolder(folder), "cut", error=f"requeued {again} times, and hydra.launcher.requeue={requeue}")
        raise RunCut(f"not requeued: requeued {again} times already")
    try:
        return perform(context, config, singletons)
    except RunCut:
        if stop.requested in (signal.SIGUSR2, signal.SIGTERM):
            _requeue(RunFolder(folder), again, requeue)
        raise


def _requeue(folder: RunFolder, again: int, most: int) -> None:
    """Requeue this job at its time limit, unless SLURM is already ending it."""
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
    requeue_job(environment, most - again)  # through SLURM, or locally, which exits


def _task(context: HydraContext, job: Job, requeue: int) -> tuple[Any, ...]:
    return context, job.config, state(), job.folder.path, requeue


def _set(executor: submitit.Executor, parameters: dict[str, Any]) -> None:
    try:
        executor.update_parameters(**parameters)
    except (ValueError, TypeError) as error:
        raise UserError(f"hydra.launcher: {' '.join(str(error).split())}") from error


def _said(error: Exception) -> str:
    """The error message of sbatch, without Python's text around it."""
    text = str(error) or type(error).__name__
    lines = [line.partition("error: ")[2] for line in text.splitlines() if line.startswith("sbatch: error: ")]
    return "; ".join(lines) or text.splitlines()[0]
