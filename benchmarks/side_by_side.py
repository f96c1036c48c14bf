"""Two concurrent jobs on two cores, relative to running them one after the other."""

import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median

from benchmarks.measure import Row, alternate, at_least

STEPS = 20
FREE = 0.95  # minimum share of a core per job; with less, the ratio is not judged


def side_by_side() -> list[Row]:
    """Two running processes of one thread each, in wall seconds; needs two idle cores."""
    context = get_context("spawn")
    ends = [context.Pipe() for _ in range(2)]
    jobs = [context.Process(target=job, args=(theirs,), daemon=True) for _, theirs in ends]
    for process in jobs:
        process.start()
    ours = [mine for mine, _ in ends]
    had_core: list[float] = []  # share of a core of each job while both run
    for connection in ours:
        connection.recv()  # ready

    def one_after_the_other() -> None:
        for connection in ours:
            connection.send(STEPS)
            connection.recv()

    def at_once() -> None:
        for connection in ours:
            connection.send(STEPS)
        had_core.extend(connection.recv() for connection in ours)

    timings = alternate(5, {"serial": one_after_the_other, "parallel": at_once}, time.perf_counter)
    for connection, process in zip(ours, jobs, strict=True):
        connection.send(0)
        process.join()
    rate, ratio = 2 * STEPS / timings.median("parallel"), timings.ratio("serial", "parallel")
    judged = at_least(1.7, ratio)
    if median(had_core) < FREE:
        judged = {"target": f"{judged['target']} on free cores; here one was had {median(had_core):.0%} of the time"}
    return [Row("two jobs side by side", rate, "steps/s", "one after the other", ratio, **judged)]


def job(connection: Connection) -> None:
    """Train as many demo-sized steps as requested, until 0 are requested; replies with the share of a core it got."""
    import torch

    from benchmarks.work import Work

    torch.set_num_threads(1)
    work = Work("data=online")
    connection.send("ready")
    while steps := connection.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            work.step()
        connection.send((time.process_time() - cpu) / (time.perf_counter() - wall))
