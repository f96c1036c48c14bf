"""Telling one process from another, also after its number was given to a new one."""

import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@cache
def machine() -> str:
    """What names this machine since its last start: processes of the same machine can see each other.

    Containers that share a host's name, but do not see each other's processes, differ.
    """
    parts = [socket.gethostname()]
    try:
        parts.append((_PROC / "sys/kernel/random/boot_id").read_text().strip())
        parts.append(str((_PROC / "self/ns/pid").readlink()))
    except OSError:
        pass  # no Linux: the name alone
    return " ".join(parts)


def started(pid: int) -> int | None:
    """When a process of this machine started, in clock ticks since boot; None if it is dead or that cannot be known."""
    try:
        # the command's name, which comes second, may itself hold spaces and parentheses
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def alive(pid: int, since: int | None) -> bool:
    """Whether the process that had this number, and started then, still runs on this machine."""
    if since is not None:
        return started(pid) == since
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
