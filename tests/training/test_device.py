"""What a GPU asks of a training step, on torch's "meta" device: without numbers, so that waiting for one fails."""

import pytest
import torch
from helpers import ARGUMENTS, SMALL, drawn, tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nextfail.models import Backbone, Mamba
from nextfail.objectives import ALL, AnyOrder, Objective
from nextfail.tasks import Batch
from nextfail.training import module as module_file
from nextfail.training.graphed import measured
from nextfail.training.module import TaskModule, Window, widest
from nextfail.training.optim import adamw


class OneDevice(TorchDispatchMode):
    """Refuses tensors that are elsewhere than on the meta device, and types that it is said not to have."""

    def __init__(self, without: torch.dtype | None = None) -> None:
        super().__init__()
        self.without = without

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            if isinstance(tensor, torch.Tensor):
                assert tensor.device.type == "meta", f"{func} has a tensor on {tensor.device}"
                assert tensor.dtype != self.without, f"{func} has a tensor of {tensor.dtype}"
        return out


def on_meta(kind: type[Objective], architecture: str) -> tuple[TaskModule, Batch]:
    objective = kind(**ARGUMENTS.get(kind, {}))
    backbone: Backbone = tiny(SMALL, objective)
    if architecture == "mamba":
        sizes = {"depth": 2, "width": 16, "d_state": 4, "vocab_size": backbone.vocab_size}
        backbone = Mamba(**sizes, max_length=backbone.max_length)
    module = TaskModule(SMALL, backbone, objective, adamw).to("meta")
    return module, drawn(SMALL, 4).to("meta")


@pytest.mark.parametrize("architecture", ["transformer", "mamba"])
@pytest.mark.parametrize("kind", ALL)
def test_no_training_step_waits_for_the_device(kind: type[Objective], architecture: str) -> None:
    if architecture == "mamba" and kind is AnyOrder:
        with pytest.raises(Exception, match="needs a backbone with"):
            on_meta(kind, architecture)
        return
    module, batch = on_meta(kind, architecture)
    with OneDevice():
        for step in range(2):
            module.training_step(batch, step).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    assert module.window.steps == 2


@pytest.mark.parametrize("kind", ALL)
def test_no_training_step_needs_float64(kind: type[Objective], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_file, "widest", lambda device: widest(torch.device("mps")))
    module, batch = on_meta(kind, "transformer")
    with OneDevice(without=torch.float64):
        module.training_step(batch, 0).backward()


def test_the_watch_sees_both() -> None:
    tensor = torch.ones(2, device="meta")
    with OneDevice(), pytest.raises(RuntimeError, match="cannot be called on meta"):
        tensor.sum().item()
    with OneDevice(), pytest.raises(AssertionError, match="has a tensor on cpu"):
        torch.ones(2)
    with OneDevice(without=torch.float64), pytest.raises(AssertionError, match="tensor of"):
        tensor.double()


def test_a_window_goes_on_in_the_type_of_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun with float64 on a CPU, resumed where there is none."""
    objective, batch = ALL[0](), drawn(SMALL, 4)
    backbone = tiny(SMALL, objective)
    objective.attach(SMALL, backbone)
    values = measured(objective.loss(backbone, batch))
    window = Window()
    window.add(values)
    assert {total.dtype for total in window.sums.values()} == {torch.float64}
    monkeypatch.setattr(module_file, "widest", lambda device: torch.float32)
    window = Window(**window.state())
    window.add(values)
    assert {total.dtype for total in window.sums.values()} == {torch.float32}
    assert window.mean()["loss"] == pytest.approx(float(values["loss"].detach()))
