"""The mixer protocol: the part of a block in which positions exchange information."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class Mixer(nn.Module, ABC):
    """(B, T, C) to (B, T, C), where a position may read earlier ones, with a decoding state.

    A subclass needs `forward` only; override `step` with a real state for faster decoding.
    """

    capabilities: frozenset[str] = frozenset()
    """Supported among bidirectional, custom_mask and positions; see nextfail.models.backbone."""

    max_length: int | None = None
    """Longest sequence in tokens; None if unlimited."""

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
        """Outputs at the last `last` positions (all if None or if there are fewer).

        Args:
            x: (B, T, C).
            causal, mask, positions: as for `Backbone.forward`; passed only if in `capabilities`.

        Returns:
            (B, last, C).
        """

    def step(self, x: Tensor, past: Any = None, *, last: int | None = None) -> tuple[Tensor, Any]:
        """As `forward`, continuing from the state `past` (None at the start); also returns the updated state.

        By default the state is all inputs so far, which are read again.
        """
        read = x if past is None else torch.cat([past, x], 1)
        return self(read, last=x.shape[1] if last is None else min(last, x.shape[1])), read

    def initialise(self, std: float, residuals: int) -> None:
        """Reinitialise weights that depend on the stack; by default, none.

        Args:
            std: standard deviation of initial weights.
            residuals: number of residual branches in the stack, mixers and MLPs.
        """

    def attention(
        self, x: Tensor, *, causal: bool = True, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor | None:
        """Attention weights (B, H, T, T) for the same input; None if there is no attention."""
        return None

    def adapt(self, device: str) -> None:
        """See `Backbone.adapt`."""

    def announce(self, device: str) -> None:
        """Log the implementation used on a device ("cpu", "cuda", ...), if there is a choice."""
