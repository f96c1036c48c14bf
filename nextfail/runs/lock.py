"""Who trains a run: a lock that names its owner, and is given up by the dead and by nobody else."""

import errno
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from nextfail import process
from nextfail.errors import RunCut, UserError
from nextfail.files import Inside, read_text
from nextfail.runs import slurm
from nextfail.runs.records import Process

BEAT = 10.0  # seconds between two signs of life of an owner
STALE = 180.0  # seconds without one after which an owner that cannot be asked counts as dead

PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENOTCONN,
           errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET)  # fmt: skip
"""Errors of a disk that is away for a moment; all others last until somebody mends their cause."""

MOST = 10_000  # bytes of a lock that makes sense


Answer = Mapping[str, slurm.JobState] | None


class InUse(UserError):
    """Another process trains this run."""


@dataclass(frozen=True)
class Owner:
    """What a lock says.

    Args:
        token: random, so that one owner is never taken for another.
        host: for people.
        machine: see process.machine.
        pid: of the process, on that machine.
        started: see process.started.
        job: id of the SLURM job it belongs to, if any.
        restarts: how often that had been requeued.
        cluster: whose job that is.
    """

    token: str
    host: str
    machine: str
    pid: Process
    started: int | None
    job: str | None
    restarts: int
    cluster: str | None

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        pid = os.getpid()
        return cls(secrets.token_hex(8), socket.gethostname(), process.machine(), pid, process.started(pid),
                   slurm.this_job(), slurm.restarts(), os.environ.get("SLURM_CLUSTER_NAME"))  # fmt: skip

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f", job {self.job}" if self.job else "")

    def alive(self, silence: float, ask: Callable[[list[str]], Answer] = slurm.ask) -> bool:
        """Whether the owner may still train.

        Args:
            silence: seconds since its last sign of life.
            ask: what SLURM says of jobs, if that is known already.

        A process of this machine and a job of this cluster can be asked after. Of others nothing counts but silence.
        """
        heard = recent(silence)
        if self.machine == process.machine():
            # where a process has no start time, its number may have been given to another
            return process.alive(self.pid, self.started) and (self.started is not None or heard)
        if self.job is not None and self.cluster == slurm.cluster():
            if self.job == slurm.this_job() and self.restarts < slurm.restarts():
                return False  # an earlier life of this job, on another node
            if (answer := ask([self.job])) and (job := answer.get(self.job)):
                # the job may live on without this process, unless it sleeps as a whole
                return job.live and not job.waits and (heard or job.state == "SUSPENDED")
        return heard


class Lock:
    """A lock file in a run folder, held from `acquire` to `release`.

    It is made by linking a whole file to its name, which one process alone can do, also on a network file system.
    Its age is its owner's silence: a thread touches it every `BEAT` seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.owner = path, Owner.here()
        self.files = Inside(path.parent)
        self.lost = False
        self._released = threading.Event()

    def acquire(self) -> None:
        """Take the lock, from a dead owner if need be.

        Raises:
            InUse: the owner lives.
            UserError: the folder cannot be written, or something that is no lock has its name.
        """
        mine = f".lock-{self.owner.token}"
        try:
            self.files.write(mine, json.dumps(asdict(self.owner)))
            while not self.files.link(mine, self.path.name):
                found = owner_of(self.path)
                if found is None:
                    continue  # released in this moment
                owner, last = found
                if owner == self.owner:
                    break  # it was linked, and a network file system said otherwise
                self.files.touch(mine)
                silence = self.path.with_name(mine).stat().st_mtime - last  # by one clock, that of the file system
                if recent(silence) if owner is None else owner.alive(silence):
                    raise InUse(f"{self.path.parent} is in use: {owner or 'somebody'} trains this run")
                self._bury(owner)
        except OSError as error:
            raise UserError(f"cannot lock the run: {self.path}: {error.strerror}") from error
        finally:
            with suppress(UserError):
                self.files.remove(mine)
        threading.Thread(target=self._beat, name="lock", daemon=True).start()

    def release(self) -> None:
        """Give the lock up, unless somebody else has it by now."""
        self._released.set()
        if self._ours():
            with suppress(UserError):  # a disk that is away: the lock of a dead process holds nobody up
                self.files.remove(self.path.name)

    def check(self) -> None:
        """Called before anything is written that another owner would miss.

        Raises:
            RunCut: this process was not heard of for so long that another took the run over.
        """
        self.lost = self.lost or not self._ours()
        if self.lost:
            raise RunCut("left to another process, which took this run over while this one gave no sign of life")

    def _ours(self) -> bool:
        try:
            found = owner_of(self.path)
        except OSError as error:
            return error.errno in PASSING
        return found is not None and found[0] == self.owner

    def _bury(self, dead: Owner | None) -> None:
        """Remove the lock of a dead owner; should it be somebody else's by now, put it back."""
        grave = f".lock-{self.owner.token}-dead"
        if self.files.move(self.path.name, grave):  # else another was quicker
            found = owner_of(self.path.with_name(grave))
            if found is not None and found[0] != dead:
                self.files.link(grave, self.path.name)
            self.files.remove(grave)

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with suppress(UserError):  # a disk that is away for a moment
                if not self._ours():
                    self.lost = True
                    return
                self.files.touch(self.path.name)


def recent(silence: float) -> bool:
    """Whether seconds since the last sign of life are few enough.

    A sign of life from the future is none: it was set by a wrong clock or by hand, and nobody has renewed it since.
    """
    return abs(silence) < STALE


def owner_of(path: Path) -> tuple[Owner | None, float] | None:
    """Owner of a lock file (None if it makes no sense) and time of its last sign of life; None if there is no lock.

    Raises:
        OSError: it cannot be read now (see PASSING), or ever: it is a folder, for one.
    """
    try:
        last = path.lstat().st_mtime
        return msgspec.json.decode(read_text(path, MOST, follow=False), type=Owner), last
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None, last
