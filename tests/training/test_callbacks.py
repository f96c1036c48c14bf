import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import SMALL, quiet_trainer, trainable
from lightning.pytorch.loggers.logger import Logger

from nextfail.models import Backbone
from nextfail.objectives import Loss, TeacherForcing
from nextfail.runs.folder import RunFolder
from nextfail.tasks import Batch
from nextfail.tasks.data import DrawnData
from nextfail.training.callbacks import Heartbeat, StopWhenDiverged, TrainSet
from nextfail.training.metrics import AnswerMetrics, flat


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
    ("first", "max_steps", "end"),
    [(1, 40, 8), (8, 40, 8), (9, 40, 16), (3, 5, 5), (13, 15, 15), (99, 12, 12)],
)
def test_loss_that_is_not_finite_ends_training_at_the_next_validation(
    first: int, max_steps: int, end: int, tmp_path: Path
) -> None:
    module = trainable(Diverging(first))
    data = DrawnData(SMALL, train=64, validation=4, test=4, seed=0, batch_size=4, eval_batch_size=4, run_seed=0)
    watch = StopWhenDiverged()
    trainer = quiet_trainer(tmp_path, max_steps, callbacks=[watch], val_check_interval=8)
    trainer.fit(module, datamodule=data)
    assert watch.finite is (first > max_steps)
    assert trainer.global_step == end


class Kept(Logger):
    """Keeps what is logged."""

    name, version = "kept", 0

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.seen |= metrics

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        pass


@pytest.mark.parametrize("train", [64, None])
def test_accuracies_on_the_first_training_problems(train: int | None, tmp_path: Path) -> None:
    module, kept = trainable(TeacherForcing()), Kept()
    data = DrawnData(SMALL, train=train, validation=4, test=4, seed=0, batch_size=4, eval_batch_size=4, run_seed=3)
    trainer = quiet_trainer(tmp_path, 6, callbacks=[TrainSet(10)], logger=kept, val_check_interval=6)
    trainer.fit(module, datamodule=data)
    seen = [data.train_batch(k) for k in range(3)]
    problems = Batch.join(seen).rows(slice(10))
    metrics = AnswerMetrics(SMALL)
    metrics.update(module.objective.predict(module.backbone, problems), problems)
    expected = {f"train_set/{key}": value for key, value in flat(metrics.compute()).items()}
    assert "train_set/forced_token_accuracy_1" in expected
    assert {key: value for key, value in kept.seen.items() if key.startswith("train_set/")} == pytest.approx(expected)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that callbacks see."""
    now = SimpleNamespace(now=100.0)
    monkeypatch.setattr(
        "nextfail.training.callbacks.time", SimpleNamespace(monotonic=lambda: now.now, time=lambda: 0.0)
    )
    return now


def test_a_rate_is_told_once_there_is_one(tmp_path: Path, clock: SimpleNamespace) -> None:
    """Where a step is of many batches, the first updates of the status come before its end."""
    module: Any = trainable(TeacherForcing())
    heartbeat, trainer = Heartbeat(RunFolder(tmp_path), 8, 0), SimpleNamespace(global_step=0, max_steps=3)
    heartbeat.on_train_start(trainer, module)  # type: ignore[arg-type]
    seen = []
    for step in (0, 1):
        clock.now, trainer.global_step = clock.now + 4, step
        heartbeat.on_train_batch_end(trainer, module, None, None, 0)  # type: ignore[arg-type]
        status = json.loads((tmp_path / "status.json").read_text())
        seen.append((status["state"], status.get("samples_per_second"), status.get("seconds_left")))
    assert seen == [("running", None, None), ("running", 1.0, 16)]


def test_seconds_are_those_until_the_end_and_until_a_checkpoint(tmp_path: Path, clock: SimpleNamespace) -> None:
    module: Any = trainable(TeacherForcing())
    heartbeat, trainer = Heartbeat(RunFolder(tmp_path), 8, 0), SimpleNamespace(global_step=0, max_steps=3)
    assert heartbeat.state_dict() == {"seconds": 0.0}
    heartbeat.on_train_start(trainer, module)  # type: ignore[arg-type]
    clock.now += 1.5  # less than between two updates of the status
    assert heartbeat.state_dict() == {"seconds": 1.5}
    clock.now += 1
    heartbeat.on_train_end(trainer, module)  # type: ignore[arg-type]
    assert heartbeat.seconds == 2.5
