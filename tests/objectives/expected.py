"""What the tests by hand share: the tokens of the problem helpers.LINE, and a model read at them."""

import torch
from torch import Tensor

from nextfail.models import Backbone

PROMPT = [7, 1, 10, 3, 9, 10, 1, 4, 10, 7, 3, 12, 7, 4, 11]  # of helpers.LINE, whose path is 7 1 4
BLANK, EQUALS = 13, 11
V = 14


def log_prob(logits: Tensor, label: int) -> Tensor:
    return logits.log_softmax(-1)[label]


def states(backbone: Backbone, fed: list[int], count: int) -> Tensor:
    """The last `count` states of the prompt with what is fed after it (count, C)."""
    return backbone(torch.tensor([[*PROMPT, *fed]]))[0, -count:]
