"""Two jobs at once on two cores against one after the other."""

import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median

from benchmarks.measure import Row, alternate, at_least

STEPS = 20
FREE = 0.95  # part of the time for which jobs must have had a core, for the figure to be about us


def side_by_side() -> list[Row]:
    """Two processes of one thread each, started and warm; wall seconds, so that it wants two cores of its own."""
    context = get_context("spawn")
    ends = [context.Pipe() for _ in range(2)]
    jobs = [context.Process(target=job, args=(theirs,), daemon=True) for _, theirs in ends]
    for process in jobs:
        process.start()
    ours = [mine for mine, _ in ends]
    had_core: list[float] = []  # one part of a job's time for each job at once with the other
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
    """Train as many steps of the demo's size as it is told to, until told none; answer with the part of a core had."""
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
