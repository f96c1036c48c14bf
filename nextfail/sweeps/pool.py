"""Run jobs as independent local processes, a few at a time: if one crashes, the others continue."""

import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

import cloudpickle
from hydra.types import HydraContext

from nextfail import stop
from nextfail.errors import RunCut
from nextfail.sweeps.devices import MAY_USE_GPU, NEED_GPU, VISIBLE, Device, gpus, places
from nextfail.sweeps.plan import Job
from nextfail.sweeps.private import state
from nextfail.sweeps.sweep import End
from nextfail.sweeps.work import perform

CUT = 130  # exit code of a run that saved and stopped; as a shell's after Ctrl-C

SHORT_TMPDIR, LONGEST_TMPDIR = "/tmp", 60  # a socket path is limited to ~100 bytes; its name takes 40

LONGEST = 10_000  # characters of an error: it must fit into the pipe's buffer, which is read only after exit


@dataclass
class _Worker:
    job: Job
    process: ForkServerProcess
    words: Connection
    device: Device


class Pool:
    """Starts each job in a new process, forked from a server process that has only imported torch.

    A process sees only the GPU that was assigned to it.

    Args:
        context: Hydra's context.
        most: maximum number of concurrent processes; None for one per core, or `per_gpu` per GPU.
        per_gpu: concurrent processes per GPU, if runs use GPUs.
    """

    detached = False
    batch = 1

    def __init__(self, context: HydraContext, most: int | None, per_gpu: int) -> None:
        self.context, self.most, self.per_gpu = context, most, per_gpu
        self.workers: list[_Worker] = []
        self.free: list[Device] = []
        self.forks = multiprocessing.get_context("forkserver")
        self.forks.set_forkserver_preload(["nextfail.sweeps.work", "nextfail.training.run"])

    def prepare(self, jobs: list[Job]) -> None:
        """Allocate slots for jobs; refuse those that need a GPU if there is none."""
        accelerators = {job: str(job.config.trainer.accelerator) for job in jobs}
        found = gpus() if MAY_USE_GPU & set(accelerators.values()) else []
        for job, accelerator in accelerators.items():
            if not found and accelerator in NEED_GPU:
                job.refuse(f"trainer.accelerator={accelerator} needs a GPU, and torch {version('torch')} finds none: "
                           "choose trainer=cpu, or install a torch with CUDA")  # fmt: skip
        self.free = places(found, self.per_gpu, self.most)
        _start_server()

    @property
    def room(self) -> int:
        """Number of jobs that can be started now."""
        return len(self.free)

    @property
    def busy(self) -> bool:
        """Whether any job is running."""
        return bool(self.workers)

    def start(self, jobs: list[Job]) -> None:
        """Start jobs, at most `room` of them."""
        for job in jobs:
            try:
                self.workers.append(self._worker(job, self.free[0]))
            except (OSError, EOFError) as error:
                job.refuse(f"no process could be started: {error}")
            else:
                del self.free[0]

    def _worker(self, job: Job, device: Device) -> _Worker:
        payload = cloudpickle.dumps((self.context, job.config, state()))
        words, theirs = self.forks.Pipe(duplex=False)
        process = self.forks.Process(target=_work, args=(payload, theirs, device), name=job.name)
        process.start()
        theirs.close()
        return _Worker(job, process, words, device)

    def news(self) -> str:
        """Empty: jobs only wait for a free slot."""
        return ""

    def ended(self) -> list[End]:
        """Jobs that ended since the last call, with their error or the signal that killed them."""
        gone = [worker for worker in self.workers if not worker.process.is_alive()]
        self.workers = [worker for worker in self.workers if worker not in gone]
        self.free += [worker.device for worker in gone]
        return [_end(worker) for worker in gone]

    def stop(self) -> bool:
        """Ask all jobs to save and stop.

        Returns:
            True: the caller should wait for them.
        """
        for worker in self.workers:
            worker.process.terminate()
        return True


def _start_server() -> None:
    """Start the fork server, to which terminal signals do nothing."""
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TMPDIR:  # its socket is there, and socket paths are short
        usual, tempfile.tempdir = tempfile.tempdir, SHORT_TMPDIR
        try:
            multiprocessing.util.get_temp_dir()  # cached by multiprocessing
        finally:
            tempfile.tempdir = usual
    with stop.blocked(signal.SIGHUP):
        resource_tracker.ensure_running()  # it ignores Ctrl-C by itself, and would unblock it if started below
    with stop.blocked():
        forkserver.ensure_running()


def _work(payload: bytes, words: Connection, device: Device) -> None:
    if device is not None:
        os.environ[VISIBLE] = device  # in time: CUDA is not initialized yet
    threading.Thread(target=_follow, daemon=True).start()
    try:
        perform(*cloudpickle.loads(payload))
    except BaseException as error:  # not only Exception: nothing may count as success
        with suppress(OSError):  # the parent may have exited
            words.send(str(error)[:LONGEST] or type(error).__name__)
        sys.exit(CUT if isinstance(error, RunCut) else 1)


def _follow() -> None:
    """Ask this process to stop when its parent dies, so that a killed sweep leaves no orphaned workers."""
    parent: Any = multiprocessing.parent_process()
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _end(worker: _Worker) -> End:
    code = worker.process.exitcode or 0
    if code < 0:
        return End(worker.job, "cut", f"killed by {signal.Signals(-code).name}")
    state = {0: "", CUT: "cut"}.get(code, "failed")
    try:
        return End(worker.job, state, str(worker.words.recv()) if worker.words.poll() else "")
    except EOFError:
        return End(worker.job, state, f"its process ended with exit code {code} and without a message" if code else "")
