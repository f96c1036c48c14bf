"""Table rows, timing, and a description of the machine."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from nextfail.runs.provenance import git_commit, versions

Clock = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One measurement."""

    name: str
    value: float
    unit: str
    peer: str = ""  # what the ratio is relative to
    ratio: float | None = None
    target: str = ""  # for the ratio if there is one, else for the value; empty if informational
    met: bool | None = None


def at_least(bound: float, measured: float) -> dict[str, Any]:
    """`target` and `met` of a row that should be at least `bound`."""
    return {"target": f"at least {bound:,.3g}" if bound < 1000 else f"at least {bound:,.0f}", "met": measured >= bound}


def below(bound: float, measured: float) -> dict[str, Any]:
    """`target` and `met` of a row that should be below `bound`."""
    return {"target": f"below {bound:g}", "met": measured < bound}


@dataclass(frozen=True)
class Timings:
    """Seconds of each side, one entry per round."""

    seconds: dict[str, list[float]]

    def median(self, side: str) -> float:
        """Median seconds of one side."""
        return median(self.seconds[side])

    def ratio(self, side: str, other: str) -> float:
        """How many times as long `side` takes as `other`: the median over rounds."""
        return median(a / b for a, b in zip(self.seconds[side], self.seconds[other], strict=True))


def alternate(rounds: int, sides: Mapping[str, Callable[[], object]], clock: Clock = time.process_time) -> Timings:
    """Time all sides in turn, A B A B ..., after one warm-up round.

    By default, this measures CPU seconds of this process. For single-threaded work on an idle machine, these equal wall
    seconds; on a shared machine, they exclude the time that other processes used the core.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, work in sides.items():
            start = clock()
            work()
            seconds[name].append(clock() - start)
    return Timings({name: each[1:] for name, each in seconds.items()})


def repeat(count: int, work: Callable[[], object]) -> Callable[[], None]:
    """A side that repeats its work `count` times, if once is too short for the clock."""

    def repeated() -> None:
        for _ in range(count):
            work()

    return repeated


def machine() -> dict[str, Any]:
    """Processor, cores, relevant instruction sets, load, versions and git commit."""
    cpu = _cpuinfo()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "cpu": cpu.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "flags": [flag for flag in wanted if flag in cpu.get("flags", "").split()],
        "load": os.getloadavg(),
        "versions": versions() | {"transformers": version("transformers")},
        "git_commit": git_commit(),
    }


def has_bf16() -> bool:
    """Whether this processor has bf16 instructions."""
    return any(flag in ("avx512_bf16", "amx_bf16") for flag in _cpuinfo().get("flags", "").split())


def _cpuinfo() -> dict[str, str]:
    """The first processor in /proc/cpuinfo; empty if the file does not exist."""
    path = Path("/proc/cpuinfo")
    first = path.read_text(encoding="utf-8").split("\n\n")[0] if path.exists() else ""
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
