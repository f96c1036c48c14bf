"""What a run computes, and on which device."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
from inside import train_here
from lightning.pytorch.strategies import SingleDeviceStrategy

from nextfail.models import Mamba, Transformer
from nextfail.models.backbone import Backbone

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
