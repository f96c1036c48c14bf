"""Training steps as CUDA graphs.

A step of a small model is hundreds of kernels of a few microseconds each, and launching one takes the CPU longer than
running it takes the GPU. A CUDA graph records the kernels once and launches them all at once. The kernels, and the
random numbers drawn in them, stay the same.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nextfail.models.backbone import Backbone
from nextfail.objectives.base import IGNORE, Loss, Objective
from nextfail.seeding import derive
from nextfail.tasks.base import Batch

log = logging.getLogger(__name__)

Measured = dict[str, Tensor]
"""Scalars of a training step: `loss`, which is minimised, `token_accuracy`, and the terms of the loss."""


class Step(nn.Module):
    """The forward pass of a training step, with tensors in and out.

    Args:
        objective: computes the loss.
        backbone: the model.
    """

    def __init__(self, objective: Objective, backbone: Backbone) -> None:
        super().__init__()
        self.objective, self.backbone = objective, backbone

    def forward(self, *batch: Tensor) -> Measured:
        """Loss and reported values, from the tensors of a batch."""
        return measured(self.objective.loss(self.backbone, Batch(*batch)))


def measured(loss: Loss) -> Measured:
    """The scalars of a loss; all but `loss` are detached."""
    asked = loss.labels != IGNORE
    right = (loss.logits.detach().argmax(-1) == loss.labels) & asked
    parts = {name: part.detach() for name, part in loss.parts.items()}
    accuracy = right.sum() / asked.sum().clamp(min=1)
    return {"loss": loss.total, "token_accuracy": accuracy} | parts | {"loss": loss.total}  # whatever a part is called


def graphed(step: Step, batch: Batch, seed: int) -> Callable[..., Measured]:
    """The step as CUDA graphs, forward and backward; falls back to the step itself, with a warning, if that is
    impossible.

    A graph replays what was recorded. It is compared with the step once, on other problems and with another seed, to
    detect steps that draw random numbers on the CPU or keep state between steps.

    Args:
        step: with parameters on a CUDA GPU.
        batch: of the usual size; batches of another size bypass the graph.
        seed: of the run.
    """
    device = batch.prompts.device
    dtype, cast = torch.get_autocast_dtype(device.type), torch.is_autocast_enabled(device.type)
    other = batch.rows(torch.arange(len(batch.answers), device=device) // 2)  # the first half, each problem twice
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.autocast(device.type, dtype, enabled=cast, cache_enabled=False),  # a cache would outlive the graph
    ):
        try:
            expected = _tried(step, other, seed)
            example = tuple(each.clone() for each in batch)
            recorded: Any = torch.cuda.make_graphed_callables(
                Step(step.objective, step.backbone), example, allow_unused_input=True
            )
            found = _tried(recorded, other, seed)
        except (RuntimeError, AssertionError) as error:
            log.warning("trainer.cuda_graphs: this step cannot be recorded: %s", str(error).splitlines()[0])
            return step
    for name, value in expected.items():
        if not torch.allclose(found[name], value, rtol=1e-2, atol=1e-4, equal_nan=True):
            log.warning("trainer.cuda_graphs: the recorded graph gives a different %s, %.6g instead of %.6g: it is not "
                        "used", name, found[name], value)  # fmt: skip
            return step
    sizes = [each.shape for each in batch]
    return lambda *given: (recorded if [each.shape for each in given] == sizes else step)(*given)


def _tried(step: Step, batch: Batch, seed: int) -> Measured:
    """Values of a step on some problems, and the norm of its gradient; leaves no gradient behind."""
    torch.manual_seed(derive("graph", seed))
    values: Measured = step(*batch)
    wanted = [each for each in step.parameters() if each.requires_grad]
    gradients = torch.autograd.grad(values["loss"], wanted, allow_unused=True)
    norm = torch.stack([each.double().norm() for each in gradients if each is not None]).norm()
    return {name: value.detach().double() for name, value in values.items()} | {"gradient": norm}
