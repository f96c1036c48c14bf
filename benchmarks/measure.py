"""Rows of the table, clocks, and what the machine is."""

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
    """One measured figure."""

    name: str
    value: float
    unit: str
    peer: str = ""  # what the ratio is to
    ratio: float | None = None
    target: str = ""  # for the ratio if there is one, else for the value; empty if the figure is information
    met: bool | None = None


def at_least(bound: float, measured: float) -> dict[str, Any]:
    """The last two fields of a row whose figure should not be below `bound`."""
    return {"target": f"at least {bound:,.3g}" if bound < 1000 else f"at least {bound:,.0f}", "met": measured >= bound}


def below(bound: float, measured: float) -> dict[str, Any]:
    """The last two fields of a row whose figure should be below `bound`."""
    return {"target": f"below {bound:g}", "met": measured < bound}


@dataclass(frozen=True)
class Timings:
    """Seconds of each side, one entry a round."""

    seconds: dict[str, list[float]]

    def median(self, side: str) -> float:
        """Median seconds of one side."""
        return median(self.seconds[side])

    def ratio(self, side: str, other: str) -> float:
        """How many times as long `side` takes as `other`: the median over rounds."""
        return median(a / b for a, b in zip(self.seconds[side], self.seconds[other], strict=True))


def alternate(rounds: int, sides: Mapping[str, Callable[[], object]], clock: Clock = time.process_time) -> Timings:
    """Time every side in turn, A B A B ..., after one round that does not count.

    Unless another clock is given, this process's CPU seconds are counted. On an idle machine those of single-threaded
    work are wall seconds; on a shared one they leave out the time that neighbours had the core.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, work in sides.items():
            start = clock()
            work()
            seconds[name].append(clock() - start)
    return Timings({name: each[1:] for name, each in seconds.items()})


def repeat(count: int, work: Callable[[], object]) -> Callable[[], None]:
    """A side that does its work `count` times, when once is too short for the clock."""

    def repeated() -> None:
        for _ in range(count):
            work()

    return repeated


def machine() -> dict[str, Any]:
    """Processor, cores, instruction sets that matter here, load, and versions."""
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
    """Whether this processor multiplies bf16 numbers itself."""
    return any(flag in ("avx512_bf16", "amx_bf16") for flag in _cpuinfo().get("flags", "").split())


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    first = path.read_text(encoding="utf-8").split("\n\n")[0] if path.exists() else ""
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
