"""A run that is asked to stop in any step, also one with a validation or the last one, ends as if it had not been."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from inside import train_here
from lightning.pytorch.callbacks import Callback

from nextfail import stop
from nextfail.errors import RunCut, UserError

# validations at 2 and 4, and a last step, 5, without one
RUN = ("debug=default", "model.depth=1", "model.width=8", "trainer.max_steps=5", "trainer.val_every=2", "data.test=16")


class CutAt(Callback):
    """Asks to stop while step `step` is under way."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step + 1 == self.step:
            stop.requested = 15


MODELS = {
    "transformer": (),
    "mamba": (),
    "hybrid": (
        "model.layers=[mamba2,attention,conv]",
        "model.depth=3",
        "model.head_dim=8",
        "model.positions=rope",
        "model.conv=2",
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return f"model={request.param}", *MODELS[request.param]


@pytest.fixture(scope="module")
def uncut(model: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uncut")
    train_here(folder, *RUN, *model)
    return folder


@pytest.mark.parametrize("step", range(1, 6))
def test_cut_in_any_step(
    step: int, model: tuple[str, ...], uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "requested", None)
    with pytest.raises(RunCut):
        train_here(tmp_path, *RUN, *model, f"+callbacks.cut={{_target_: test_cut_anywhere.CutAt, step: {step}}}")
    monkeypatch.setattr(stop, "requested", None)
    again = train_here(tmp_path, *RUN, *model)
    assert (tmp_path / "metrics.csv").read_text() == (uncut / "metrics.csv").read_text()
    first = json.loads((uncut / "result.json").read_text())
    clock = ("seconds", "samples_per_second")
    assert {k: v for k, v in again.items() if k not in clock} == {k: v for k, v in first.items() if k not in clock}


def test_last_weights_are_kept(uncut: Path) -> None:
    assert torch.load(uncut / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5


def test_checkpoints_that_cannot_be_gone_on_from_are_not_overwritten(model: tuple[str, ...], tmp_path: Path) -> None:
    train_here(tmp_path, *RUN, *model)
    (tmp_path / "result.json").unlink()
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="on_existing=restart starts over"):
        train_here(tmp_path, *RUN, *model)
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_size == 1000
