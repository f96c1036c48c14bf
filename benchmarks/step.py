"""A training step at the README's size against transformers' GPT-2 in a plain loop."""

from collections.abc import Callable

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.measure import Row, alternate, at_least, has_bf16
from benchmarks.work import Work
from nextfail.objectives import IGNORE
from nextfail.task.graph import Batch, PathStar

GRAPH, BATCH = "g2_5", 256


def training_step() -> list[Row]:
    """Ours in fp32 and under bf16 autocast, GPT-2 in fp32: same sizes, same batch."""
    ours = Work(f"graph={GRAPH}", "model/size=readme", f"data.batch_size={BATCH}", "data=online")
    peer = plain_gpt2(ours.graph, ours.batch, depth=6, width=384, heads=6)
    timings = alternate(5, {"peer": peer, "fp32": ours.step, "bf16": lambda: ours.step(bf16=True)})
    against = "GPT2LMHeadModel, fp32, plain loop"
    rows = [Row("training step of GPT2LMHeadModel, fp32", BATCH / timings.median("peer"), "samples/s")]
    for side, bound in (("fp32", 1.5), ("bf16", 2.5)):
        ratio = timings.ratio("peer", side)
        judged = at_least(bound, ratio)
        if side == "bf16" and not has_bf16():
            judged = {"target": f"{judged['target']} with AVX512-BF16 or AMX; this CPU has neither"}
        rows.append(Row(f"training step, {side}", BATCH / timings.median(side), "samples/s", against, ratio, **judged))
    return rows


def plain_gpt2(graph: PathStar, batch: Batch, depth: int, width: int, heads: int) -> Callable[[], None]:
    """A step as anyone would write it with transformers: its own loss with the prompt ignored, AdamW as it comes."""
    tokens = torch.cat([batch.prompts, batch.paths], 1)  # (B, T)
    labels = torch.cat([torch.full_like(batch.prompts, IGNORE), batch.paths], 1)
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
    )
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=tokens, labels=labels).loss.backward()
        optimizer.step()

    return step
