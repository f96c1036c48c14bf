"""Identify a process, even after its number was given to a new one."""

import socket
from functools import cache
from pathlib import Path

import psutil

CLOCK = 60.0
"""Seconds by which the start time of one process may seem to change, because the system's clock was adjusted."""


@cache
def machine() -> str:
    """Identifies this machine since its last boot: processes of the same machine can see each other.

    Containers that share a host's name, but do not see each other's processes, differ.
    """
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        pass  # not Linux: the name alone
    return " ".join(parts)


def started(pid: int) -> float | None:
    """When a process of this machine started, in seconds since 1970; None if it is dead or cannot be asked."""
    try:
        process = psutil.Process(pid)
        dead = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return None if dead else process.create_time()
    except psutil.Error:
        return None


def alive(pid: int, since: float | None) -> bool:
    """Whether the process that had this number, and started then, still runs on this machine."""
    if since is None:
        return psutil.pid_exists(pid)
    now = started(pid)
    return now is not None and abs(now - since) < CLOCK
