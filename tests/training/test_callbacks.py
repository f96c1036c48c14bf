from pathlib import Path

import pytest
from helpers import SMALL, quiet_trainer, trainable

from nextfail.models import Backbone
from nextfail.objectives import Loss, TeacherForcing
from nextfail.task import Batch
from nextfail.task.datamodule import DrawnData
from nextfail.training.callbacks import StopWhenDiverged


class Diverging(TeacherForcing):
    """Its loss is not a number from a step on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first, self.steps = first, 0

    def loss(self, backbone: Backbone, batch: Batch) -> Loss:
        loss = super().loss(backbone, batch)
        self.steps += 1
        return Loss(loss.total * (float("nan") if self.steps >= self.first else 1.0), loss.logits, loss.labels)


@pytest.mark.parametrize(
    ("first", "max_steps", "finite"),
    [(1, 40, False), (14, 40, False), (3, 5, False), (13, 15, False), (99, 12, True)],
)
def test_loss_that_is_not_finite_is_noticed(first: int, max_steps: int, finite: bool, tmp_path: Path) -> None:
    module = trainable(Diverging(first))
    data = DrawnData(SMALL, train=64, validation=4, test=4, seed=0, batch_size=4, eval_batch_size=4, run_seed=0)
    watch = StopWhenDiverged()
    trainer = quiet_trainer(tmp_path, max_steps, callbacks=[watch], limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    assert watch.finite is finite
    assert trainer.global_step <= min(first + 10, max_steps)
    assert trainer.global_step == max_steps or not finite
