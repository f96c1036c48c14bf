"""Sampling of graphs, and the cost of data and evaluation in training steps at the demo's size."""

import itertools
import random
from collections.abc import Iterator

import torch

from benchmarks.measure import Row, alternate, at_least, below, repeat
from benchmarks.work import Work
from nextfail.tasks.path_star.task import PathStar

MANY, FEW = 65536, 2048


def sampling() -> list[Row]:
    """Graphs per second, relative to a plain loop over graphs."""
    graph, source = PathStar(2, 5, 50), torch.Generator().manual_seed(0)
    timings = alternate(9, {"ours": lambda: graph.sample(MANY, source), "loop": lambda: list(one_by_one(graph, FEW))})
    rate = MANY / timings.median("ours")
    ratio = timings.ratio("loop", "ours") * MANY / FEW
    return [Row("sampling, G(2,5)", rate, "graphs/s", "a plain loop", ratio, **at_least(250_000, rate))]


def one_by_one(graph: PathStar, count: int) -> Iterator[tuple[list[list[int]], list[int]]]:
    """Edges and path of one graph at a time, written without tensors."""
    draw = random.Random(0)
    for _ in range(count):
        start, *rest = draw.sample(range(graph.num_nodes), graph.size)
        hops = graph.path_length - 1
        arms = [[start, *rest[i : i + hops]] for i in range(0, len(rest), hops)]
        edges = [[arm[i], arm[i + 1]] for arm in arms for i in range(hops)]
        draw.shuffle(edges)
        yield edges, draw.choice(arms)


def data_time() -> list[Row]:
    """Time of a batch, sampled online or from a fixed set, relative to a training step on it."""
    rows, times = [], 20
    for name in ("online", "laptop"):
        work = Work(f"data={name}")
        number = itertools.count()
        batches = repeat(times, lambda work=work, number=number: work.data.train_batch(next(number)))  # type: ignore[misc]
        timings = alternate(9, {"batches": batches, "step": work.step})
        share = 100 * timings.ratio("batches", "step") / times
        kind = "drawn online" if name == "online" else "from a fixed set"
        rows.append(Row(f"data time, {kind}", share, "% of a step", **below(3, share)))
    return rows


def evaluation() -> list[Row]:
    """Time of all metrics on the 2,000 test graphs, in training steps of 128 graphs."""
    rows = []
    for objective in ("teacher_forcing", "reverse", "teacherless"):
        work = Work(f"objective={objective}", "data=online")
        timings = alternate(5, {"evaluation": work.evaluate, "steps": repeat(5, work.step)})
        steps = 5 * timings.ratio("evaluation", "steps")
        rows.append(Row(f"evaluation of 2,000, {objective}", steps, "steps", **below(20, steps)))
    return rows
