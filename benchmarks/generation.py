"""Decoding with a cache, relative to a full forward pass per token."""

import torch
from torch import Tensor

from benchmarks.measure import Row, alternate, at_least
from benchmarks.work import Work
from nextfail.models import Backbone


def generation() -> list[Row]:
    """At the README's size, on a short and on a long prompt, where the cache should help more."""
    short, short_ratio = _measure("g2_5", batch=128)
    long, long_ratio = _measure("g20_5", batch=16)
    against = "without a cache"
    return [
        Row("generation, G(2,5)", short, "samples/s", against, short_ratio, **at_least(4, short_ratio)),
        Row("generation, G(20,5)", long, "samples/s", against, long_ratio, **at_least(short_ratio, long_ratio)),
    ]


def _measure(graph: str, batch: int) -> tuple[float, float]:
    """Samples per second with the cache, and its speedup."""
    work = Work(f"task={graph}", "model/size=readme", "data=online", f"data.batch_size={batch}")
    objective, backbone = work.module.objective, work.module.backbone
    prompts, length = work.batch.prompts, work.task.answer_length
    sides = {
        "cache": lambda: objective.generate(backbone, prompts, length),
        "none": lambda: without_cache(backbone, prompts, length),
    }
    assert torch.equal(sides["cache"](), sides["none"]()), "the two should write the same"
    timings = alternate(9, sides)
    return batch / timings.median("cache"), timings.ratio("none", "cache")


@torch.no_grad()
def without_cache(backbone: Backbone, prompts: Tensor, length: int) -> Tensor:
    """Greedy tokens (B, length) after prompts (B, P), with a full pass per token, as the published code does."""
    tokens = prompts
    for _ in range(length):
        hidden = backbone(tokens)[:, -1:]  # (B, 1, C)
        tokens = torch.cat([tokens, backbone.logits(hidden).argmax(-1)], 1)
    return tokens[:, -length:]
