"""The position-wise MLPs of blocks."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module, ABC):
    """(..., C) to (..., C) through a wider hidden layer."""

    expand: nn.Linear
    contract: nn.Linear

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""

    def initialise(self, std: float, residuals: int) -> None:
        """Draw initial weights; see `Mixer.initialise`."""
        for each in self.children():
            if isinstance(each, nn.Linear):
                nn.init.normal_(each.weight, std=std / (math.sqrt(residuals) if each is self.contract else 1))


class GELU(MLP):
    """The MLP of GPT-2: hidden width 4 C, biases, and the tanh approximation of GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for each in (self.expand, self.contract):
            nn.init.zeros_(each.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.contract(F.gelu(self.expand(x), approximate="tanh"))
        return y


class SwiGLU(MLP):
    """The MLP of Shazeer (2020) as in Llama: hidden width 8/3 C, rounded up to a multiple of 8, without biases.

    It has as many parameters as `GELU`, up to biases and rounding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = -(-8 * width // 3 // 8) * 8
        self.expand, self.gate = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.contract = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.contract(F.silu(self.gate(x)) * self.expand(x))
        return y


MLPS: dict[str, Callable[[int], MLP]] = {"gelu": GELU, "swiglu": SwiGLU}
