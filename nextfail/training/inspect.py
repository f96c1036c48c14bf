"""What happens inside a trained model: hidden states after every block, and where every head looks."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nextfail.errors import UserError
from nextfail.training.module import TaskModule

SEEING = ("causal", "mask", "positions")
"""Options of `Backbone.forward` that say what a position sees."""


@dataclass(frozen=True)
class Inspection:
    """One pass of a model over prompts and the answers that it gave to them.

    Args:
        tokens: what was read, (B, T): the prompt, then as many tokens as the objective feeds.
        texts: how each token is written, (B, T).
        written: the tokens that were predicted, (B, l), in the order in which the objective writes them; the last l
            positions of T answer for them.
        hidden: what each block is given, (B, T, C), the first of them the embeddings.
        attention: of each block, how much each head reads from where, (B, H, T, T), a row for each reader; None where
            a block does not attend.
    """

    tokens: Tensor
    texts: list[list[str]]
    written: Tensor
    hidden: list[Tensor]
    attention: list[Tensor | None]


@torch.no_grad()
def inspect(module: TaskModule, prompts: Tensor, answers: Tensor) -> Inspection:
    """Look at a model while it reads prompts (B, P), and answers (B, L) as far as its objective feeds them.

    Raises:
        UserError: the model has no blocks to look at, or its objective does not read the answer in one pass.
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
