"""What a run computes, and on which device."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers import SMALL, drawn
from inside import train_here
from lightning.pytorch.strategies import SingleDeviceStrategy

from nextfail.errors import UserError
from nextfail.models import Mamba, Transformer
from nextfail.models.backbone import Backbone
from nextfail.objectives import TeacherForcing
from nextfail.runs.table import read_rows
from nextfail.training import build
from nextfail.training.evaluate import fit
from nextfail.training.module import TaskModule
from nextfail.training.optim import adamw, constant

RUN = ("debug=default", "model.depth=1", "model.width=8", "trainer.max_steps=2", "trainer.val_every=1", "data.test=16")


@pytest.mark.parametrize(("model", "kind"), [("transformer", Transformer), ("mamba", Mamba)])
def test_nothing_is_computed_once_lightning_has_moved_the_module_away(
    model: str, kind: type[Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a kernel of the device is asked for, the CPU has none."""
    moves: list[str] = []

    def follow(owner: Any, name: str, note: Any) -> None:
        original = getattr(owner, name)

        def called(*given: Any, **named: Any) -> Any:
            note()
            return original(*given, **named)

        monkeypatch.setattr(owner, name, called)

    def require_here() -> None:
        assert moves and moves[-1] == "to the device"

    follow(SingleDeviceStrategy, "model_to_device", lambda: moves.append("to the device"))
    follow(L.LightningModule, "cpu", lambda: moves.append("away"))
    for name in ("forward", "step", "logits"):
        follow(kind, name, require_here)
    assert train_here(tmp_path, *RUN, f"model={model}")["flops"] > 0
    assert moves == ["to the device", "away"] * 2  # for training and for the test


def test_the_best_checkpoint_is_that_of_what_the_objective_is_judged_by(tmp_path: Path) -> None:
    """first_hop_only never writes a whole path."""
    steps = ("trainer.max_steps=120", "trainer.val_every=20", "optimizer.lr=0.01")
    train_here(tmp_path, *RUN, *steps, "objective=first_hop_only")
    rows = [row for row in read_rows(tmp_path / "metrics.csv") if row["split"] == "validation"]
    best = max(rows, key=lambda row: float(row["hard_token_accuracy"]))  # the first of them
    assert best is not rows[0]
    assert torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)["global_step"] == int(best["step"])


def test_a_model_is_evaluated_on_sequences_as_long_as_it_can_read() -> None:
    """Those without attention or learned positions have no longest one."""
    longer = {"degree": 2, "path_length": 4}
    for kind, unbounded in ((Mamba, True), (partial(Transformer, heads=2), False)):
        objective = TeacherForcing()
        model: Backbone = kind(depth=1, width=16, **build.fit(SMALL, objective))
        module = TaskModule(SMALL, model, objective, adamw, constant)
        if unbounded:
            fit(module, longer)
            assert module.objective.generate(model, drawn(module.task, 2).prompts, 4).shape == (2, 4)
        else:
            with pytest.raises(UserError, match=r"task\.num_nodes=12: this run's model is for task\.num_nodes=10"):
                fit(module, {"num_nodes": 12})
            with pytest.raises(UserError, match=r"G\(2,4\) needs 25 tokens, and this run's model reads at most 18"):
                fit(module, longer)
