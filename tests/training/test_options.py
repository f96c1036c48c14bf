"""trainer.options: what Lightning's Trainer is given, what identifies a run, and what stays nextfail's."""

import csv
import inspect
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers import SMALL, quiet_trainer, trainable
from inside import compose, train_here
from omegaconf import OmegaConf

from nextfail import stop
from nextfail.config import HARMLESS, OPTIONS, OWNED
from nextfail.errors import RunCut
from nextfail.objectives import TeacherForcing, TokenMasking
from nextfail.runs.folder import RunFolder
from nextfail.sweeps.resolve import resolve
from nextfail.tasks.data import DrawnData
from nextfail.training.build import make_module, make_task
from nextfail.training.checkpoints import Checkpoints

SHORT = ("debug=default", "model.depth=1", "model.width=16", "data.batch_size=8")


def option(name: str, value: Any) -> str:
    return f"trainer.options.{name}={value}"


def test_every_argument_of_the_trainer_is_handed_on_or_owned() -> None:
    assert {*OPTIONS} | {*OWNED} == {*inspect.signature(L.Trainer).parameters}
    assert not {*OPTIONS} & {*OWNED} and {*HARMLESS} < {*OPTIONS}


def hash_of(folder: Path, *overrides: str) -> str:
    train_here(folder, *SHORT, *overrides, "trainer.max_steps=1")
    return RunFolder(folder).identity().hash


def test_options_identify_a_run_unless_they_are_harmless(tmp_path: Path) -> None:
    plain = hash_of(tmp_path / "plain")
    values = {"detect_anomaly": True, "inference_mode": False, "log_every_n_steps": 3, "profiler": "simple"}
    assert values.keys() == {*HARMLESS}
    harmless = [option(name, value) for name, value in values.items()]
    assert hash_of(tmp_path / "harmless", *harmless) == plain
    plainly, more = ({path.name for path in (tmp_path / name).iterdir()} for name in ("plain", "harmless"))
    assert more - plainly == {"fit-profile.txt", "test-profile.txt"}
    assert hash_of(tmp_path / "limited", option("limit_val_batches", 1)) != plain


def rows(folder: Path, split: str) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def test_two_batches_a_step_are_one_batch_twice_as_large(tmp_path: Path) -> None:
    """The same problems in two parts; validations and all counts are of whole steps."""
    data = ("data.train=null", "data.batch_size=8", "model.depth=1", "model.width=16")
    parts = train_here(tmp_path / "parts", "debug=default", *data, option("accumulate_grad_batches", 2))
    assert parts["steps"] == 6 and parts["samples_seen"] == 6 * 2 * 8
    once = train_here(tmp_path / "once", "debug=default", *data)
    assert parts["flops"] == 2 * once["flops"]
    assert [row["step"] for row in rows(tmp_path / "parts", "validation")] == ["3", "6"]


@pytest.mark.parametrize("objective", [TeacherForcing(), TokenMasking()])
def test_the_gradient_of_a_step_is_the_mean_of_its_batches(objective: Any, tmp_path: Path) -> None:
    module = trainable(objective)
    before = [each.detach().clone() for each in module.parameters()]
    gradients: list[list[torch.Tensor]] = []
    seeds: list[int] = []
    step_of, loss_of = module.optimizer_step, module.objective.loss

    def kept(*given: Any, **more: Any) -> None:
        step_of(*given, **more)
        gradients.append([each.grad.clone() for each in module.parameters() if each.grad is not None])

    def seeded(*given: Any) -> Any:
        seeds.append(torch.initial_seed())
        return loss_of(*given)

    module.optimizer_step, module.objective.loss = kept, seeded  # type: ignore[method-assign]
    data = DrawnData(SMALL, 0, train=None, validation=4, test=4, batch_size=4)
    quiet_trainer(tmp_path, 1, limit_val_batches=0, accumulate_grad_batches=2).fit(module, datamodule=data)
    assert len(gradients) == 1 and len({*seeds}) == len(seeds) == 2
    module.objective.loss = loss_of  # type: ignore[method-assign]
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), before, strict=True):
            parameter.copy_(value)
    module.zero_grad()
    for seed, number in zip(seeds, (0, 1), strict=True):
        torch.manual_seed(seed)
        (module.objective.loss(module.backbone, data.train_batch(number)).total / 2).backward()
    found = [each.grad for each in module.parameters() if each.grad is not None]
    for one, other in zip(gradients[0], found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("batches", [1, 2])
def test_no_graph_where_gradients_are_added(batches: int) -> None:
    cfg = compose("trainer=gpu", option("accumulate_grad_batches", batches))
    OmegaConf.set_struct(cfg, False)
    config, _ = resolve(cfg, Path(), cfg.pop("hydra"))
    assert make_module(config, make_task(config)).cuda_graphs == (batches == 1)


def test_a_run_is_cut_after_a_whole_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on to the same weights as one that was not cut."""
    asked = (*SHORT, option("accumulate_grad_batches", 3), "data.train=null")
    train_here(tmp_path / "whole", *asked)
    passed: list[int] = []
    saved = Checkpoints.on_train_batch_end

    def count(self: Checkpoints, trainer: L.Trainer, *more: Any) -> None:
        passed.append(trainer.global_step)
        if len(passed) == 4:  # the first of the three batches of step 2
            monkeypatch.setattr(stop, "requested", signal.SIGTERM)
        saved(self, trainer, *more)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", count)
    with pytest.raises(RunCut, match="cut at step 2"):
        train_here(tmp_path / "cut", *asked)
    assert passed == [0, 0, 1, 1, 1, 2]
    monkeypatch.setattr(stop, "requested", None)
    monkeypatch.setattr(Checkpoints, "on_train_batch_end", saved)
    train_here(tmp_path / "cut", *asked)
    assert (tmp_path / "cut/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()
