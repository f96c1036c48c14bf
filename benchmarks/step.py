"""A training step at the README's size, relative to the GPT-2 of transformers in a plain loop."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from benchmarks.measure import Row, alternate, at_least, has_bf16
from benchmarks.work import Work
from nextfail.objectives import IGNORE
from nextfail.tasks import Batch, PathStar

PEER = "GPT2LMHeadModel, fp32, plain loop"


def training_step() -> list[Row]:
    """In fp32 and under bf16 autocast (judged only if the processor has bf16 instructions); the peer in fp32."""
    rate, ratio = _measure(256, rounds=7, bf16=False)
    rows = [Row("training step, fp32", rate, "samples/s", PEER, ratio, **at_least(1.5, ratio))]
    native = has_bf16()
    rate, ratio = _measure(256, rounds=7, bf16=True) if native else _measure(16, rounds=2, bf16=True)  # much slower
    judged = at_least(2.5, ratio)
    if not native:
        judged = {"target": f"{judged['target']} with AVX512-BF16 or AMX; this CPU has neither"}
    return [*rows, Row("training step, bf16 autocast", rate, "samples/s", PEER, ratio, **judged)]


def _measure(batch: int, rounds: int, bf16: bool) -> tuple[float, float]:
    """Our samples per second, and the speedup over GPT-2 of the same size on the same batch."""
    ours = Work("task=g2_5", "model/size=readme", "data=online", f"data.batch_size={batch}")
    peer = plain_gpt2(ours.task, ours.batch, depth=6, width=384, heads=6)
    timings = alternate(rounds, {"peer": peer, "ours": lambda: ours.step(bf16=bf16)})
    return batch / timings.median("ours"), timings.ratio("peer", "ours")


def plain_gpt2(
    graph: PathStar, batch: Batch, depth: int, width: int, heads: int, bf16: bool = False, backend: str | None = None
) -> Callable[[], None]:
    """A typical step with transformers: its own loss with the prompt ignored, and default AdamW.

    Args:
        graph, batch: task and training batch; the model is on the batch's device.
        depth, width, heads: sizes of the model.
        bf16: whether to use bf16 autocast.
        backend: backend of torch.compile; None for eager mode.
    """
    tokens = torch.cat([batch.prompts, batch.answers], 1)  # (B, T)
    labels = torch.cat([torch.full_like(batch.prompts, IGNORE), batch.answers], 1)
    config = GPT2Config(
        vocab_size=graph.vocab.size,
        n_positions=tokens.shape[1],
        n_layer=depth,
        n_embd=width,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    logging.set_verbosity_error()  # it would warn about using the default loss
    device = batch.prompts.device
    model: Any = GPT2LMHeadModel(config).to(device)  # type: ignore[arg-type]
    called = torch.compile(model, backend=backend) if backend else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = called(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()

    return step
