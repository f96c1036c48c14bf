"""Parts of benchmarks.gpu that time steps in this process."""

import time
from collections.abc import Callable
from functools import partial
from itertools import count

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_sizes import Bench
from benchmarks.step import plain_gpt2
from benchmarks.work import Work
from nextfail.training.rehearsal import flops_per_step


def steps(bench: Bench) -> None:
    """Training steps at the paper's size, relative to GPT-2 of transformers."""
    sizes, (depth, width, heads) = bench.sizes, bench.sizes.size
    peaks = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(sizes.square, sizes.square, device=sizes.device, dtype=dtype) for _ in range(2))
        peaks[name] = 2 * sizes.square**3 / bench.pace(partial(torch.matmul, a, b))
        bench.add(f"matrix product {sizes.square}^3, {name}", peaks[name] / 1e12, "TFLOP/s")
    later: list[Callable[[], object]] = []  # slow to compile, so measured last
    for graph in sizes.graphs:
        common = [f"task={graph}", "data=online", f"size.depth={depth}", f"size.width={width}", f"size.heads={heads}"]
        gpt2 = Work(*common, f"data.batch_size={sizes.batch}", device=sizes.device)
        make = partial(plain_gpt2, gpt2.task, gpt2.batch, depth, width, heads)
        with FlopCounterMode(display=False) as counter:
            make()()
        flops = counter.get_total_flops()
        for name, peak in peaks.items():
            label = f"{graph} GPT2LMHeadModel {name}"
            peer = timed(bench, label, make(name == "bf16"), sizes.batch, flops, peak)
            ours(bench, "transformer", graph, name, common, peak, peer)
            ours(bench, "mamba", graph, name, common, peak, peer)
            later.append(partial(ours, bench, "mamba2", graph, name, common, peak, peer))
        step = make(True, "inductor" if bench.on_gpu else "eager")
        label = f"{graph} GPT2LMHeadModel bf16, torch.compile"
        later.append(partial(timed, bench, label, step, sizes.batch, flops, peaks["bf16"]))
    for each in later:
        each()


def ours(bench: Bench, model: str, graph: str, precision: str, common: list[str], peak: float, peer: float) -> None:
    """Time a step of one of our models, halving the batch until it fits into memory."""
    size, label, note = bench.sizes.batch, f"{graph} nextfail {model} {precision}", ""

    def at(size: int) -> None:
        work = Work(*common, f"model={model}", f"data.batch_size={size}", device=bench.sizes.device)
        flops = flops_per_step(work.module, work.data)
        timed(bench, label, partial(work.step, bf16=precision == "bf16"), size, flops, peak, peer, note)

    while size:
        try:
            return at(size)
        except torch.OutOfMemoryError:
            size, note = size // 2, f"batch {size // 2}: {size} does not fit into memory"
        torch.cuda.empty_cache()  # outside `except`, where the error no longer references tensors
    bench.add(label, "none", note="not even one problem fits into memory")
    return None


def timed(
    bench: Bench,
    label: str,
    step: Callable[[], None],
    size: int,
    flops: float,
    peak: float,
    peer: float = 0,
    note: str = "",
) -> float:
    """Time a step and add it as a row; returns its seconds."""
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    seconds = bench.pace(step)
    said = [f"{1e3 * seconds:.1f} ms, {flops / seconds / peak:.0%} of the peak"]
    said += [f"{peer / bench.sizes.batch / (seconds / size):.2f} times GPT2LMHeadModel"] if peer else []
    said += [f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"] if bench.on_gpu else []
    said += [f"{time.perf_counter() - begin:.0f} s with compiling"] if "compile" in label else []
    bench.add(label, size / seconds, "problems/s", ", ".join([*said, *filter(None, [note])]))
    return seconds


def graphs(bench: Bench) -> None:
    """Steps of the demo's size, eager and captured as a CUDA graph; and sampling of a batch."""
    sizes = bench.sizes
    for objective in ("teacher_forcing", "teacherless"):
        work = Work("experiment=demo", f"objective={objective}", device=sizes.device)
        size, module = len(work.batch.answers), work.module
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True, capturable=bench.on_gpu)

        def step(work: Work = work, optimizer: torch.optim.Optimizer = optimizer) -> None:
            with torch.autocast(bench.sizes.device, torch.bfloat16):
                loss = work.module.objective.loss(work.module.backbone, work.batch).total
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(work.module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)

        eager = bench.pace(step)
        bench.add(f"demo step, {objective}, eager", size / eager, "problems/s", f"{1e3 * eager:.2f} ms")
        trained = Work("experiment=demo", f"objective={objective}", "trainer.cuda_graphs=true", device=sizes.device)
        seconds = bench.pace(partial(trained.step, bf16=True))
        note = f"{1e3 * seconds:.2f} ms, {eager / seconds:.2f} times eager"
        bench.add(f"demo step, {objective}, trainer.cuda_graphs", size / seconds, "problems/s", note)
        if not bench.on_gpu:
            bench.add(f"demo step, {objective}, all of it one CUDA graph", "none", note="a CPU has no CUDA graphs")
            continue
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # warm up as the documentation of torch.cuda.graph requires
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            step()
        seconds = bench.pace(captured.replay)
        note = f"{1e3 * seconds:.2f} ms, {eager / seconds:.2f} times eager"
        bench.add(f"demo step, {objective}, all of it one CUDA graph", size / seconds, "problems/s", note)
    for graph in bench.sizes.graphs:
        data = Work(f"task={graph}", "data=online", f"data.batch_size={bench.sizes.batch}").data
        seconds = bench.pace(map(data.train_batch, count()).__next__)
        note = f"{1e3 * seconds:.2f} ms a batch of {bench.sizes.batch} on the CPU"
        bench.add(f"{graph} drawing fresh problems", bench.sizes.batch / seconds, "problems/s", note)
