"""Mamba's step and scan, relative to other implementations, and on longer sequences and a second core."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import MambaConfig, MambaForCausalLM
from transformers.utils import logging

from benchmarks.measure import Row, alternate, at_least, below, repeat
from benchmarks.work import Work
from nextfail.models import Backbone, Mamba
from nextfail.models.scan.selective_scan import selective_scan

DEPTH, WIDTH, STATES, VOCAB = 4, 96, 16, 54  # size demo on N=50
TOKENS = 4096  # tokens per batch: 128 problems of G(2,5)


def mamba_step() -> list[Row]:
    """Forward and backward with a loss on every token, all with equal weights; then as nextfail trains."""
    work = Work("task=g2_5", "model=mamba", "data=online")
    ours = work.module.backbone
    assert isinstance(ours, Mamba)
    tokens = torch.cat([work.batch.prompts, work.batch.answers], 1).long()  # (B, T)
    slow, scanned = theirs(ours, use_mambapy=False), theirs(ours, use_mambapy=True)
    sides = {"ours": lambda: step(ours, tokens), "mambapy": lambda: their_step(scanned, tokens)}
    sides["slow"] = lambda: their_step(slow, tokens)
    losses = [float(side()) for side in sides.values()]
    assert max(losses) - min(losses) < 1e-4, f"the three should be one model: {losses}"
    timings = alternate(3, sides)
    rate, rows = len(tokens) / timings.median("ours"), []
    for side, peer, target in (("slow", "transformers, no kernels", 15), ("mambapy", "transformers, mambapy", 6)):
        ratio = timings.ratio(side, "ours")
        rows.append(Row("Mamba step, G(2,5), batch 128", rate, "samples/s", peer, ratio, **at_least(target, ratio)))
    trained = alternate(5, {"all": sides["ours"], "path": work.step})
    rate, ratio = len(tokens) / trained.median("path"), trained.ratio("all", "path")
    return [*rows, Row("the same as nextfail trains it, optimizer included", rate, "samples/s", "every token", ratio)]


def scan_forms() -> list[Row]:
    """The fused kernel, forward and backward, relative to plain torch; and the memory it keeps for backward."""
    given, g_out = scan_input(32)
    sides = {form: scan_step(given, g_out, form) for form in ("fused", "parallel", "loop")}
    timings = alternate(5, sides)
    rate = TOKENS / timings.median("fused") / 1e3
    names = {"parallel": "associative scan in torch", "loop": "plain loop in torch"}
    rows = [Row("scan, T=32", rate, "tokens/ms", names[side], timings.ratio(side, "fused")) for side in names]
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = selective_scan(**given, delta_softplus=True, form="fused")
    assert isinstance(out, Tensor)
    share = sum(each.nbytes for each in saved) / (out.nbytes + sum(each.nbytes for each in given.values()))
    return [*rows, Row("saved by the scan for its backward pass", share, "of inputs and outputs", **below(2, share))]


def second_core() -> list[Row]:
    """Speedup in wall time of two threads over one; meaningful only on an idle machine."""
    given, g_out = scan_input(32)
    work = Work("task=g2_5", "model=mamba", "data=online")
    rows = []
    for name, one in (("scan", scan_step(given, g_out, "fused")), ("Mamba step", work.step)):
        sides = {f"{threads}": threaded(threads, one) for threads in (1, 2)}
        timings = alternate(9, sides, clock=time.perf_counter)
        ratio = timings.ratio("1", "2")
        rows.append(
            Row(f"{name} on 2 cores", timings.median("2") * 1e3, "ms", "on 1 core", ratio, **at_least(1.7, ratio))
        )
    torch.set_num_threads(1)
    return rows


def scan_length() -> list[Row]:
    """Time per token, forward and backward, by sequence length, with 16 rows; linear cost is a ratio of one."""
    lengths = (32, 64, 128, 256, 512, 1024)
    inputs = {steps: scan_input(steps, rows=16) for steps in lengths}
    sides = {f"{steps}": repeat(1024 // steps, scan_step(*inputs[steps], "fused")) for steps in lengths}
    timings = alternate(5, sides)
    each = 16 * 1024 / 1e6  # millions of tokens per side: converts ms to ns per token
    return [
        Row(
            f"scan, 16 rows, T={side}",
            timings.median(side) * 1e3 / each,
            "ns a token",
            "T=32",
            timings.ratio(side, "32"),
        )
        for side in sides
    ]


def step(model: Backbone, tokens: Tensor) -> Tensor:
    """Mean loss on all tokens except the first, after its backward pass."""
    model.zero_grad()
    logits = model.logits(model(tokens))[:, :-1]  # (B, T - 1, V)
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def their_step(model: MambaForCausalLM, tokens: Tensor) -> Tensor:
    """The same with transformers."""
    model.zero_grad()
    loss: Tensor = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def theirs(ours: Mamba, use_mambapy: bool) -> MambaForCausalLM:
    """The Mamba of transformers with our weights, in training mode."""
    logging.set_verbosity_error()  # it would recommend the CUDA kernels
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "state_size": STATES,
        "vocab_size": VOCAB,
    }
    ends: dict[str, Any] = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    model = MambaForCausalLM(MambaConfig(**sizes, **ends, use_mambapy=use_mambapy))
    names = {"tokens.weight": "embeddings.weight", "norm.weight": "norm_f.weight"}
    state = model.state_dict()
    for name, value in ours.state_dict().items():
        state[f"backbone.{names.get(name, name.replace('blocks.', 'layers.'))}"].copy_(value)
    return model.train()


def scan_input(steps: int, rows: int | None = None) -> tuple[dict[str, Any], Tensor]:
    """Arguments of a scan as in a mixer of size demo, and a gradient of its output."""
    rows, inner = rows or TOKENS // steps, 2 * WIDTH
    draw = torch.Generator().manual_seed(0)
    u, delta, z, g_out = (torch.randn(rows, steps, inner, generator=draw).transpose(1, 2) for _ in range(4))
    B, C = (torch.randn(rows, steps, STATES, generator=draw).transpose(1, 2) for _ in range(2))
    A = -torch.arange(1.0, STATES + 1).repeat(inner, 1)
    given = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": torch.ones(inner), "z": z}
    given["delta_bias"] = torch.full((inner,), -4.6)  # softplus of it is 0.01
    return {name: value.requires_grad_() for name, value in given.items()}, g_out


def scan_step(given: dict[str, Any], g_out: Tensor, form: str) -> Callable[[], object]:
    """One scan, forward and backward."""

    def once() -> object:
        out = selective_scan(**given, delta_softplus=True, form=form)
        return torch.autograd.grad(out, list(given.values()), g_out)

    return once


def threaded(threads: int, work: Callable[[], object]) -> Callable[[], None]:
    """A side that works on `threads` threads."""

    def side() -> None:
        torch.set_num_threads(threads)
        work()

    return side
