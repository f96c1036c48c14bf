"""What a mixer is: the part of a block in which positions exchange what they know."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class Mixer(nn.Module, ABC):
    """(B, T, C) to (B, T, C), where a position may read those before it, and what decoding keeps of them.

    A subclass needs `forward` alone; `step` with a state of its own makes decoding faster.
    """

    capabilities: frozenset[str] = frozenset()
    """Which of bidirectional, custom_mask and positions its `forward` understands; see nextfail.models.backbone."""

    max_length: int | None = None
    """The longest sequence in tokens, None if there is no bound."""

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        *,
        last: int | None = None,
        causal: bool = True,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Outputs at the last `last` positions (all if None or if there are no more).

        Args:
            x: (B, T, C).
            causal, mask, positions: as in `Backbone.forward`; given only as far as `capabilities` says.

        Returns:
            (B, last, C).
        """

    def step(self, x: Tensor, past: Any = None, *, last: int | None = None) -> tuple[Tensor, Any]:
        """The same after what `past` remembers, nothing if None; and what is remembered then.

        By default all inputs are remembered and read again.
        """
        read = x if past is None else torch.cat([past, x], 1)
        return self(read, last=x.shape[1] if last is None else min(last, x.shape[1])), read

    def initialise(self, std: float, residuals: int) -> None:
        """Draw initial weights anew, where they depend on the stack; by default they stay as they were made.

        Args:
            std: standard deviation of initial weights.
            residuals: how many branches are added to the stream of hidden states, mixers and MLPs.
        """

    def attention(
        self, x: Tensor, *, causal: bool = True, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor | None:
        """How much each head reads from where, (B, H, T, T), when given the same; None where nothing is attended to."""
        return None

    def adapt(self, device: str) -> None:
        """See `Backbone.adapt`."""

    def announce(self, device: str) -> None:
        """Log how this computes on a device ("cpu", "cuda", ...), if there is a choice."""
