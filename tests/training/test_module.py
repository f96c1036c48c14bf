from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import SMALL, quiet_trainer, tiny, trainable

from nextfail.errors import UserError
from nextfail.models import Backbone
from nextfail.objectives import IGNORE, Loss, TeacherForcing
from nextfail.tasks import Batch
from nextfail.tasks.data import DrawnData
from nextfail.training.graphed import Measured, measured
from nextfail.training.module import TaskModule, Window


class Chancy(TeacherForcing):
    """It draws a number in every step, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[float] = []

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        self.numbers.append(float(torch.rand(())))
        return super().loss(backbone, batch)


def numbers(seed: int, folder: Path, start: int = 0) -> list[float]:
    torch.manual_seed(start)
    objective = Chancy()
    module = trainable(objective)
    module.seed = seed
    data = DrawnData(SMALL, train=64, validation=4, test=4, seed=0, batch_size=4, eval_batch_size=4, run_seed=0)
    quiet_trainer(folder, 3, limit_val_batches=0).fit(module, datamodule=data)
    return objective.numbers


def test_chance_in_a_step_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    seen = numbers(0, tmp_path)
    assert numbers(0, tmp_path, start=5) == seen
    assert len(set(seen)) == 3
    assert not set(seen) & set(numbers(1, tmp_path))


def test_module_for_evaluation_alone_needs_no_optimizer() -> None:
    module = TaskModule(SMALL, tiny(SMALL), TeacherForcing())
    assert module.objective.task is SMALL
    with pytest.raises(AssertionError, match="evaluation alone"):
        module.configure_optimizers()


def step(total: float, right: int, **parts: float) -> Measured:
    """Of a batch with two places asked, of which so many are right, and one that is not asked."""
    logits = torch.tensor([[[9.0, 0.0], [9.0, 0.0], [9.0, 0.0]]])
    labels = torch.tensor([[0 if right > 0 else 1, 0 if right > 1 else 1, IGNORE]])
    return measured(
        Loss(torch.tensor(total), logits, labels, {name: torch.tensor(part) for name, part in parts.items()})
    )


def test_window_averages_the_steps_since_it_was_cleared() -> None:
    window = Window()
    assert window.mean() == {}
    window.add(step(1.0, right=2, part=4.0))
    window.add(step(2.0, right=1, part=8.0))
    assert window.mean() == {"loss": 1.5, "token_accuracy": 0.75, "part": 6.0}
    window.clear()
    window.add(step(7.0, right=0, part=0.0))
    assert window.mean() == {"loss": 7.0, "token_accuracy": 0.0, "part": 0.0}


def test_window_goes_on_from_its_state() -> None:
    window = Window()
    window.add(step(1.0, right=2))
    again = Window(**window.state())
    for each in (window, again):
        each.add(step(2.0, right=1))
    assert again.mean() == window.mean()


def clipped(folder: Path, precision: str, **settings: object) -> list[torch.Tensor]:
    """The gradients of one step that is clipped to a norm of 0.01."""
    kept: list[torch.Tensor] = []

    class Keeping(TeacherForcing):
        def loss(self, backbone: Backbone, batch: Batch) -> Loss:
            loss = super().loss(backbone, batch)
            loss.total = 100 * loss.total
            return loss

    module = trainable(Keeping())
    step_of = module.optimizer_step

    def keep(*args: object, **kwargs: object) -> None:
        step_of(*args, **kwargs)
        kept.extend(p.grad.clone() for p in module.parameters() if p.grad is not None)

    module.optimizer_step = keep
    data = DrawnData(SMALL, train=64, validation=4, test=4, seed=0, batch_size=4, eval_batch_size=4, run_seed=0)
    trainer = quiet_trainer(folder, 1, limit_val_batches=0, gradient_clip_val=0.01, precision=precision)
    trainer.fit(module, datamodule=data)
    return kept


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_every_precision(precision: str, tmp_path: Path) -> None:
    gradients = clipped(tmp_path, precision)
    assert torch.nn.utils.get_total_norm(gradients) == pytest.approx(0.01, rel=1e-3)


def test_scaled_gradients_are_refused(tmp_path: Path) -> None:
    """A trainer of its own, since Lightning has no fp16 on a CPU."""
    module = trainable(TeacherForcing())
    module.trainer = SimpleNamespace(precision="16-mixed", precision_plugin=SimpleNamespace(scaler=object()))
    with pytest.raises(UserError, match=r"trainer\.precision=16-mixed scales gradients"):
        module.configure_gradient_clipping(module.make_optimizer(module), 1.0)
