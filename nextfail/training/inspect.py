"""The inside of a trained model: hidden states of every block, and attention weights of every head."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nextfail.errors import UserError
from nextfail.training.module import TaskModule

SEEING = ("causal", "mask", "positions")
"""Options of `Backbone.forward` that determine what a position attends to."""


@dataclass(frozen=True)
class Inspection:
    """One forward pass of a model over prompts and answers.

    Args:
        tokens: input ids, (B, T): the prompt, then the tokens that the objective feeds.
        texts: text of each token, (B, T).
        written: predicted tokens, (B, l), in the objective's order of writing; the last l positions of T predict them.
        hidden: input of each block, (B, T, C); the first are the embeddings.
        attention: attention weights of each block, (B, H, T, T), one row per query; None for blocks without attention.
    """

    tokens: Tensor
    texts: list[list[str]]
    written: Tensor
    hidden: list[Tensor]
    attention: list[Tensor | None]


@torch.no_grad()
def inspect(module: TaskModule, prompts: Tensor, answers: Tensor) -> Inspection:
    """Record a model's forward pass over prompts (B, P), and answers (B, L) as far as its objective feeds them.

    Raises:
        UserError: the model has no blocks to inspect, or its objective does not read the answer in one pass.
    """
    backbone, objective = module.backbone, module.objective
    layers = backbone.layers()
    if not layers:
        raise UserError(f"{type(backbone).__name__} has no blocks that can be inspected")
    read: list[Tensor] = []
    given: list[tuple[Tensor, dict[str, Any]]] = []
    hooks = [backbone.register_forward_pre_hook(lambda _, args: read.append(args[0]))]
    hooks += [layer.register_forward_pre_hook(lambda _, args, more: given.append((args[0], more)), with_kwargs=True)
              for layer in layers]  # fmt: skip
    written = objective.write(answers)
    try:
        objective.states(backbone, prompts, written)
    finally:
        for hook in hooks:
            hook.remove()
    if len(read) != 1 or len(given) != len(layers):
        raise UserError(f"{type(objective).__name__} reads in {len(read)} passes, and one can be inspected")
    attention = [backbone.attention(number, x, **{key: more[key] for key in SEEING if key in more})
                 for number, (x, more) in enumerate(given)]  # fmt: skip
    return Inspection(read[0], module.task.spell(read[0]), written, [x for x, _ in given], attention)
