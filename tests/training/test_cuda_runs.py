"""Runs on a CUDA GPU: `make test-gpu`. The same tests run on the CPU, so that none is tried there first."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ARGUMENTS, SMALL, drawn, tiny
from inside import train_here

from nextfail.objectives import ALL, Objective
from nextfail.runs.folder import RunFolder
from nextfail.training.evaluate import evaluate
from nextfail.training.module import TaskModule
from nextfail.training.optim import adamw

GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")]
)
SHORT = ("debug=default", "model.depth=2", "model.width=32", "trainer.max_steps=20", "trainer.val_every=10")
FULL = "trainer.precision=32-true"


def on(device: str) -> tuple[str, ...]:
    return ("trainer=gpu", *SHORT) if device == "cuda" else SHORT


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("model", ["transformer", "mamba", "mamba2"])
def test_a_run_is_evaluated_as_it_ended(model: str, device: str, tmp_path: Path) -> None:
    result = train_here(tmp_path, *on(device), f"model={model}")
    assert result["accelerator"] == device
    assert result["flops"] > 0 and result["steps"] == 20
    assert len(json.loads((tmp_path / "examples.json").read_text())) == 8
    again = evaluate(RunFolder(tmp_path), checkpoint="last", sizes=None, file=None, trust=False)
    assert again["exact_match"] == result["exact_match"] and again["cheat_accuracy"] == result["cheat_accuracy"]


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("model", ["transformer", "mamba", "mamba2"])
def test_losses_are_those_of_the_cpu(model: str, device: str, tmp_path: Path) -> None:
    """In full precision and before rounding adds up: same problems, same weights to begin with."""
    curves = []
    for name, where in (("here", device), ("cpu", "cpu")):
        length = ("trainer.max_steps=4", "trainer.val_every=1", "data.batch_size=16")
        train_here(tmp_path / name, *on(where), f"model={model}", FULL, *length)
        rows = (tmp_path / name / "metrics.csv").read_text().splitlines()
        header = rows[0].split(",")
        values = [dict(zip(header, row.split(","), strict=True)) for row in rows[1:]]
        curves.append([float(row["loss"]) for row in values if row["split"] == "train"])
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


@pytest.fixture
def strict(request: Any) -> Iterator[None]:
    """Whoever waits for the GPU fails."""
    yield
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("kind", ALL)
def test_no_step_waits_for_the_device(kind: type[Objective], device: str) -> None:
    objective = kind(**ARGUMENTS.get(kind, {}))
    module = TaskModule(SMALL, tiny(SMALL, objective), objective, adamw).to(device)
    batch = drawn(SMALL, 4).to(device)
    optimizer = adamw(module)
    for step in range(3):
        if device == "cuda" and step:  # the first one may wait for memory
            torch.cuda.set_sync_debug_mode("error")
        loss = module.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    assert module.window.steps == 3
