"""The lock of a run folder. It names its owner; only stale locks, of dead owners, are reclaimed."""

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

BEAT = 10.0  # seconds between heartbeats of an owner
STALE = 180.0  # seconds without a heartbeat after which an owner that cannot be queried counts as dead

PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENOTCONN,
           errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET)  # fmt: skip
"""Transient disk errors; all others persist until their cause is fixed."""

MOST = 10_000  # maximum size of a valid lock file in bytes


Answer = Mapping[str, slurm.JobState] | None


class InUse(UserError):
    """Another process trains this run."""


@dataclass(frozen=True)
class Owner:
    """Content of a lock file: the process that holds the lock.

    Args:
        token: random, so that no two owners are equal.
        host: host name, for messages.
        machine: see process.machine.
        pid: id of the process on that machine.
        started: see process.started.
        job: id of its SLURM job, if any.
        restarts: how often that job had been requeued.
        cluster: name of the job's cluster.
    """

    token: str
    host: str
    machine: str
    pid: Process
    started: float | None
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
        """Whether the owner may still be training.

        Args:
            silence: seconds since its last heartbeat.
            ask: queries the state of SLURM jobs; pass a function if it is known already.

        Processes of this machine and jobs of this cluster can be queried. For others, only the heartbeat counts.
        """
        heard = recent(silence)
        if self.machine == process.machine():
            # without a start time, the pid may have been reused by another process
            return process.alive(self.pid, self.started) and (self.started is not None or heard)
        if self.job is not None and self.cluster == slurm.cluster():
            if self.job == slurm.this_job() and self.restarts < slurm.restarts():
                return False  # this job before its requeue, on another node
            if (answer := ask([self.job])) and (job := answer.get(self.job)):
                # the job may outlive this process; a suspended job sends no heartbeats
                return job.live and not job.waits and (heard or job.state == "SUSPENDED")
        return heard


class Lock:
    """A lock file in a run folder, held from `acquire` to `release`.

    It is created by hard-linking a complete file to its name, which is atomic even on a network file system. Its mtime
    is the owner's heartbeat: a thread touches it every `BEAT` seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.owner = path, Owner.here()
        self.files = Inside(path.parent)
        self.lost = False
        self._released = threading.Event()

    def acquire(self) -> None:
        """Acquire the lock; reclaim it if it is stale.

        Raises:
            InUse: the owner is alive.
            UserError: the folder cannot be written, or something that is not a lock has its name.
        """
        mine = f".lock-{self.owner.token}"
        try:
            self.files.write(mine, json.dumps(asdict(self.owner)))
            while not self.files.link(mine, self.path.name):
                found = owner_of(self.path)
                if found is None:
                    continue  # released just now
                owner, last = found
                if owner == self.owner:
                    break  # the link was created, although a network file system reported failure
                self.files.touch(mine)
                silence = self.path.with_name(mine).stat().st_mtime - last  # both by the file system's clock
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
        """Release the lock, unless another process holds it by now."""
        self._released.set()
        if self._ours():
            with suppress(UserError):  # transient disk error: the stale lock will be reclaimed
                self.files.remove(self.path.name)

    def check(self) -> None:
        """Check that this process still holds the lock; called before writing anything another owner may rely on.

        Raises:
            RunCut: this process sent no heartbeat for so long that another one reclaimed the lock.
        """
        self.lost = self.lost or not self._ours()
        if self.lost:
            raise RunCut("another process took this run over while this one sent no heartbeat")

    def _ours(self) -> bool:
        try:
            found = owner_of(self.path)
        except OSError as error:
            return error.errno in PASSING
        return found is not None and found[0] == self.owner

    def _bury(self, dead: Owner | None) -> None:
        """Remove the stale lock of a dead owner; if another process has replaced it meanwhile, put that one back."""
        grave = f".lock-{self.owner.token}-dead"
        if self.files.move(self.path.name, grave):  # else another process was faster
            found = owner_of(self.path.with_name(grave))
            if found is not None and found[0] != dead:
                self.files.link(grave, self.path.name)
            self.files.remove(grave)

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with suppress(UserError):  # transient disk error
                if not self._ours():
                    self.lost = True
                    return
                self.files.touch(self.path.name)


def recent(silence: float) -> bool:
    """Whether the last heartbeat, `silence` seconds ago, is recent enough.

    A heartbeat far in the future does not count: it was set by a wrong clock or by hand, and not renewed since.
    """
    return abs(silence) < STALE


def owner_of(path: Path) -> tuple[Owner | None, float] | None:
    """Owner of a lock file (None if malformed) and time of its last heartbeat; None if there is no lock.

    Raises:
        OSError: it cannot be read, temporarily (see PASSING) or permanently, as a folder.
    """
    try:
        last = path.lstat().st_mtime
        return msgspec.json.decode(read_text(path, MOST, follow=False), type=Owner), last
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None, last
