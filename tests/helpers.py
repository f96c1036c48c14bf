"""Small graphs, small models, and plain Python that says again what the package says with tensors."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from nextfail.models import Backbone, Transformer
from nextfail.objectives import AnyOrder, MultiToken, NextLatent, Objective, TokenMasking
from nextfail.seeding import generator
from nextfail.tasks import Batch, PathStar, Task
from nextfail.training.module import TaskModule
from nextfail.training.optim import adamw, constant

SMALL = PathStar(degree=2, path_length=3, num_nodes=10)
LINE = "7,1|3,9|1,4|7,3/7,4=7,1,4"  # one problem of SMALL in the published text format

seeds = st.integers(0, 2**32 - 1)


@st.composite
def graphs(draw: st.DrawFn) -> PathStar:
    """Sizes from the least allowed one up, with and without labels to spare."""
    degree, path_length = draw(st.integers(2, 5)), draw(st.integers(3, 6))
    return PathStar(degree, path_length, 1 + degree * (path_length - 1) + draw(st.integers(0, 40)))


def tokenize(line: str, num_nodes: int) -> tuple[list[int], list[int]]:
    """Prompt and path ids of a text line, read sign by sign as the published description has it."""
    signs = {"|": num_nodes, "=": num_nodes + 1, "/": num_nodes + 2}
    ids = [signs[text] if text in signs else int(text) for text in re.findall(r"\d+|[|/=]", line)]
    # the last edge is followed by "/" alone, and commas are no tokens
    end = ids.index(num_nodes + 1) + 1
    return ids[:end], ids[end:]


def hand_batch(line: str, num_nodes: int = SMALL.num_nodes) -> Batch:
    """The problem of one text line as a batch of one."""
    prompt, path = tokenize(line, num_nodes)
    return Batch.full(torch.tensor([prompt]), torch.tensor([path]))


def drawn(graph: PathStar, count: int, seed: int = 0) -> Batch:
    """Problems as int64."""
    return graph.sample(count, generator("tests", seed)).long()


def keys(graph: PathStar, prompts: Tensor) -> Tensor:
    """Keys of prompts, for which the answers do not matter."""
    return graph.keys(Batch.full(prompts, prompts[:, :0]))


def identity(prompt: list[int]) -> tuple[frozenset[frozenset[int]], int]:
    """The undirected edge set and the start of a prompt: what the canonical key stands for."""
    edges = prompt[:-3]
    return frozenset(frozenset(edges[i : i + 2]) for i in range(0, len(edges), 3)), prompt[-3]


def rows(batch: Batch) -> list[tuple[int, ...]]:
    """Each problem, prompt and path together, as plain numbers."""
    return [tuple(row) for row in torch.cat([batch.prompts.long(), batch.answers.long()], 1).tolist()]


def tiny(task: Task, objective: Objective | None = None, seed: int = 0, **sizes: Any) -> Transformer:
    """A seeded Transformer that fits a task and an objective; weights are large, so that predictions differ."""
    objective = objective or Objective()
    torch.manual_seed(seed)
    return Transformer(
        **{"depth": 2, "width": 16, "heads": 2, "init_std": 0.4, **sizes},
        vocab_size=task.vocab.size + objective.extra_tokens,
        max_length=objective.max_length(task),
    )


ARGUMENTS: dict[type[Objective], dict[str, Any]] = {
    MultiToken: {"k": 3},
    NextLatent: {"horizon": 2},
    AnyOrder: {"decode": "confident"},
    TokenMasking: {"m": 0.5},
}
"""Of the objectives that need some."""


def attached(kind: type[Objective], task: Task = SMALL, seed: int = 0, **arguments: Any) -> tuple[Any, Transformer]:
    """An objective and a tiny Transformer that it is attached to."""
    objective = kind(**{**ARGUMENTS.get(kind, {}), **arguments})
    backbone = tiny(task, objective, seed)
    objective.attach(task, backbone)
    return objective, backbone


def trainable(objective: Objective, task: Task = SMALL) -> TaskModule:
    """A module with a tiny Transformer and AdamW at a constant rate."""
    optimizer = partial(adamw, lr=1e-3, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1)
    return TaskModule(task, tiny(task, objective), objective, optimizer, partial(constant, warmup=1))


def quiet_trainer(folder: Path, max_steps: int, **settings: Any) -> L.Trainer:
    """A Lightning Trainer on the CPU that leaves no files and says nothing."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    usual = {"accelerator": "cpu", "max_epochs": -1, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    return L.Trainer(default_root_dir=folder, max_steps=max_steps, **dict.fromkeys(quiet, False) | usual | settings)


class Averaging(Backbone):
    """The least backbone there can be: each hidden state mixes the mean of the tokens so far. Causal, and no more."""

    def __init__(self, width: int, vocab_size: int, max_length: int) -> None:
        super().__init__(vocab_size, max_length, width=width)
        self.mix = self.new_block()

    def forward(
        self,
        tokens: Tensor,
        *,
        last: int | None = None,
        causal: bool = True,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        self.refuse_unknown(causal=causal, mask=mask, positions=positions)
        return self.step(tokens, last=last)[0]

    def step(self, tokens: Tensor, cache: Any = None, *, last: int | None = None) -> tuple[Tensor, Any]:
        x = tokens if tokens.is_floating_point() else self.embed(tokens)
        total, count = cache or (torch.zeros_like(x[:, :1]), 0)
        sums = total + x.cumsum(1)
        counts = count + torch.arange(1, x.shape[1] + 1)
        hidden = self.mix(sums / counts[:, None])
        return hidden if last is None else hidden[:, -last:], (sums[:, -1:], count + x.shape[1])

    def new_block(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.width, self.width), nn.Tanh())


def read_by(module: torch.nn.Module, ask: Any) -> list[Tensor]:
    """What every pass through a module reads while `ask` runs."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda owner, inputs: seen.append(inputs[0]))
    ask()
    hook.remove()
    return seen
