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

from nextfail import process
from nextfail.errors import RunCut, UserError
from nextfail.runs import slurm

BEAT = 10.0  # seconds between two signs of life of an owner
STALE = 180.0  # seconds without one after which an owner that cannot be asked counts as dead


Answer = Mapping[str, slurm.Job] | None


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
    pid: int
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
        heard = silence < STALE
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
        self.lost = False
        self._released = threading.Event()

    def acquire(self) -> None:
        """Take the lock, from a dead owner if need be.

        Raises:
            InUse: the owner lives.
            UserError: the folder cannot be written.
        """
        mine = self.path.with_name(f".lock-{self.owner.token}")
        try:
            mine.write_text(json.dumps(asdict(self.owner)), encoding="utf-8")
            while not _link(mine, self.path):
                found = read(self.path)
                if found is None:
                    continue  # released in this moment
                owner, last = found
                if owner == self.owner:
                    break  # it was linked, and a network file system said otherwise
                mine.touch()
                silence = mine.stat().st_mtime - last  # by one clock, that of the file system
                if silence < STALE if owner is None else owner.alive(silence):
                    raise InUse(f"{self.path.parent} is in use: {owner or 'somebody'} trains this run")
                self._bury(owner)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        finally:
            mine.unlink(missing_ok=True)
        threading.Thread(target=self._beat, name="lock", daemon=True).start()

    def release(self) -> None:
        """Give the lock up, unless somebody else has it by now."""
        self._released.set()
        if self._ours():
            with suppress(OSError):  # a disk that is away: the lock of a dead process holds nobody up
                self.path.unlink(missing_ok=True)

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
            found = read(self.path)
        except OSError:
            return True  # a disk that is away for a moment
        return found is not None and found[0] == self.owner

    def _bury(self, dead: Owner | None) -> None:
        """Remove the lock of a dead owner; should it be somebody else's by now, put it back."""
        grave = self.path.with_name(f".lock-{self.owner.token}-dead")
        with suppress(FileNotFoundError):  # another was quicker
            self.path.rename(grave)
            found = read(grave)
            if found is not None and found[0] != dead:
                _link(grave, self.path)
            grave.unlink()

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with suppress(OSError):  # a disk that is away for a moment
                if not self._ours():
                    self.lost = True
                    return
                os.utime(self.path)


def read(path: Path) -> tuple[Owner | None, float] | None:
    """Owner of a lock file (None if it makes no sense) and time of its last sign of life; None if there is no lock."""
    try:
        text, last = path.read_text(encoding="utf-8"), path.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        return Owner(**json.loads(text)), last
    except (ValueError, TypeError):
        return None, last


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name, which must not exist yet; False if it does."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        with suppress(FileExistsError), target.open("x", encoding="utf-8") as file:  # a file system without links
            file.write(source.read_text(encoding="utf-8"))
            return True
        return False
    return True
