"""Steps that a CUDA GPU repeats by itself: the same losses and weights, and none that is not a repetition."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import ARGUMENTS, SMALL, drawn, tiny
from torch import Tensor

from nextfail.models import Mamba, Mamba2
from nextfail.models.backbone import Backbone
from nextfail.objectives import ALL, Objective, TeacherForcing
from nextfail.objectives.base import Loss
from nextfail.tasks import Batch
from nextfail.training.build import fit
from nextfail.training.graphed import Step, graphed, measured
from nextfail.training.module import TaskModule
from nextfail.training.optim import adamw

RECORD = "torch.cuda.make_graphed_callables"


class Forgetful(TeacherForcing):
    """Counts its steps in Python, which a graph would not."""

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        self.count = getattr(self, "count", 0) + 1
        loss = super().loss(backbone, batch)
        return Loss(loss.total * self.count, loss.logits, loss.labels)


def attached(objective: Objective, seed: int = 0) -> Step:
    backbone = tiny(SMALL, objective, seed)
    objective.attach(SMALL, backbone)
    return Step(objective, backbone)


def test_a_step_yields_the_loss_and_its_parts() -> None:
    step, batch = attached(TeacherForcing()), drawn(SMALL, 4)
    loss = step.objective.loss(step.backbone, batch)
    values = step(*batch)
    assert values["loss"].requires_grad and torch.equal(values["loss"], loss.total)
    assert measured(loss).keys() == values.keys() == {"loss", "token_accuracy"}
    right = (loss.logits.argmax(-1) == loss.labels).float().mean()
    assert float(values["token_accuracy"]) == pytest.approx(float(right))


def test_a_part_of_the_loss_may_be_called_loss() -> None:
    total = torch.tensor(3.0, requires_grad=True)
    loss = Loss(total, torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long), {"loss": torch.tensor(1.0)})
    assert measured(loss)["loss"] is total


def recorded_by(monkeypatch: pytest.MonkeyPatch, record: Callable[[Step], Any]) -> list[int]:
    """Have a function record steps on the CPU, which has no graphs; returns a list with an entry for each call."""
    calls: list[int] = []

    def make(step: Step, example: tuple[Tensor, ...], allow_unused_input: bool) -> Any:
        made = record(step)
        forward = made.forward
        made.forward = lambda *given: calls.append(len(given[0])) or forward(*given)
        return made

    monkeypatch.setattr(RECORD, make)
    return calls


def test_a_batch_of_another_size_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_by(monkeypatch, lambda step: step)
    step = attached(TeacherForcing())
    made = graphed(step, drawn(SMALL, 4), seed=0)
    assert calls == [4]  # looked at once
    for size in (4, 3, 4):
        batch = drawn(SMALL, size)
        assert torch.equal(made(*batch)["loss"], step(*batch)["loss"])
    assert calls == [4, 4, 4]


def test_random_state_and_gradients_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_by(monkeypatch, lambda step: step)
    step = attached(TeacherForcing())
    before = torch.get_rng_state()
    graphed(step, drawn(SMALL, 4), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(each.grad is None for each in step.parameters())


def frozen(step: Step) -> Step:
    """What is drawn on the CPU stays as it was when it was recorded."""
    values = step(*drawn(SMALL, 4))
    step.forward = lambda *batch: {name: value + 0 for name, value in values.items()}  # type: ignore[method-assign]
    return step


@pytest.mark.parametrize("objective", [TeacherForcing(), Forgetful()])
def test_what_does_not_repeat_is_not_repeated(
    objective: Objective, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded_by(monkeypatch, frozen if type(objective) is TeacherForcing else lambda step: step)
    step = attached(objective)
    with caplog.at_level(logging.WARNING):
        assert graphed(step, drawn(SMALL, 4), seed=0) is step
    assert "trainer.cuda_graphs: the recorded graph gives a different loss" in caplog.text


def test_what_cannot_be_recorded_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(step: Step) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    recorded_by(monkeypatch, fail)
    step = attached(TeacherForcing())
    with caplog.at_level(logging.WARNING):
        assert graphed(step, drawn(SMALL, 4), seed=0) is step
    assert caplog.messages == [
        "trainer.cuda_graphs: this step cannot be recorded: operation not permitted when stream is capturing"
    ]


def test_a_cpu_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_by(monkeypatch, lambda step: step)
    objective = TeacherForcing()
    module = TaskModule(SMALL, tiny(SMALL, objective), objective, adamw, cuda_graphs=True)
    module.training_step(drawn(SMALL, 4), 0)
    assert not calls and module.window.steps == 1
    assert not [name for name, _ in module.named_parameters() if "step" in name]


def trained(kind: type[Objective], model: str, graphs: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """Losses of six steps on the GPU, the last weights, and how often a graph was made."""
    objective = kind(**ARGUMENTS.get(kind, {}))
    backbone: Backbone = tiny(SMALL, objective)
    if model != "transformer":
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"depth": 2, "width": 32, "d_state": 16, "d_conv": 4, "expand": 2}
        backbone = {"mamba": Mamba, "mamba2": Mamba2}[model](**sizes, **fit(SMALL, objective))
    record, made = torch.cuda.make_graphed_callables, []
    monkeypatch.setattr(RECORD, lambda *given, **more: made.append(1) or record(*given, **more))
    module = TaskModule(SMALL, backbone, objective, adamw, cuda_graphs=graphs).cuda()
    optimizer = adamw(module)
    losses = []
    for step in range(6):
        torch.manual_seed(step)
        loss = module.training_step(drawn(SMALL, 16, seed=step).to("cuda"), step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, [each.detach().cpu() for each in module.parameters()], len(made)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
@pytest.mark.parametrize("model", ["transformer", "mamba", "mamba2"])
@pytest.mark.parametrize("kind", ALL)
def test_a_graph_trains_as_its_steps_do(
    kind: type[Objective], model: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if model != "transformer" and kind.requires:
        pytest.skip("needs attention")
    with caplog.at_level(logging.WARNING):
        one, other = (trained(kind, model, graphs, monkeypatch) for graphs in (False, True))
    assert (one[2], other[2]) == (0, 1) and "trainer.cuda_graphs" not in caplog.text
    assert other[0] == pytest.approx(one[0], rel=1e-4)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
