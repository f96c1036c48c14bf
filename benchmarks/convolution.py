"""Cost of the short convolution, as a share of a step and relative to torch's."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Row, alternate, at_least, below, repeat
from benchmarks.work import Work
from nextfail.models.mixers.conv import ShortConv


def convolution() -> list[Row]:
    """A demo step with and without convolutions; and one convolution, forward and backward."""
    both, without = Work("experiment=demo"), Work("experiment=demo", "model.conv=null")
    timings = alternate(9, {"with": both.step, "without": without.step})
    share = 100 * (1 - timings.ratio("without", "with"))
    rows = [Row("convolutions' share of a demo step", share, "%", **below(15, share))]
    batch, length, width = len(both.batch.answers), both.module.objective.max_length(both.task), 64
    conv, x = ShortConv(width, 4), torch.randn(batch, length, width, requires_grad=True)

    def torchs(x: Tensor) -> Tensor:
        padded = F.pad(x.transpose(1, 2), (3, 0))
        return x + F.conv1d(padded, conv.weight, groups=width).transpose(1, 2)

    def backward(forward: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        return repeat(50, lambda: torch.autograd.grad(forward(x).sum(), [x, conv.weight]))

    timings = alternate(9, {"ours": backward(conv), "torch": backward(torchs)})
    ratio = timings.ratio("torch", "ours")
    return [*rows, Row("convolution", 50 / timings.median("ours"), "1/s", "F.conv1d", ratio, **at_least(1, ratio))]
