"""Sampled answers: drawn from the model's distribution, seeded, and without effect on a run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, attached, drawn, trainable
from inside import train_here
from torch import Tensor

from nextfail.errors import UserError
from nextfail.models import Backbone
from nextfail.objectives import ALL, Objective, TeacherForcing
from nextfail.objectives.base import Sampler
from nextfail.runs.table import read_rows
from nextfail.tasks import Batch
from nextfail.tasks.data import fixed_loader
from nextfail.training.module import TaskModule
from nextfail.training.sampled import sampled

SHORT = ("trainer=debug", "model.depth=1", "model.width=16", "data=debug")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_first_tokens_are_as_frequent_as_the_model_says(temperature: float) -> None:
    objective, backbone = attached(TeacherForcing)
    prompts = drawn(SMALL, 1).prompts.expand(20_000, -1)
    with objective.sampling(temperature, seeded()):
        first = objective.generate(backbone, prompts, 1)[:, 0]
    chances = (backbone.logits(backbone(prompts[:1], last=1))[0, 0] / temperature).softmax(-1)
    found = torch.bincount(first, minlength=len(chances)) / len(first)
    assert torch.allclose(found, chances, atol=0.015)  # four standard errors


@pytest.mark.parametrize("kind", ALL)
def test_every_objective_samples_and_is_greedy_when_cold(kind: type[Objective]) -> None:
    objective, backbone = attached(kind)
    batch = drawn(SMALL, 32)
    greedy = objective.generate(backbone, batch.prompts, 3)
    with objective.sampling(1e-4, seeded()):
        assert torch.equal(objective.generate(backbone, batch.prompts, 3), greedy)
    once, again, other = (_hot(objective, backbone, batch.prompts, seed) for seed in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other) and not torch.equal(once, greedy)
    assert torch.equal(objective.generate(backbone, batch.prompts, 3), greedy)  # greedy again afterwards


def _hot(objective: Objective, backbone: Backbone, prompts: Tensor, seed: int) -> Tensor:
    with objective.sampling(5.0, seeded(seed)):
        return objective.generate(backbone, prompts, 3)


class Stubborn(TeacherForcing):
    """Takes the most probable token whatever is asked."""

    reads_prompt_once = False

    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        return backbone.logits(backbone(prompts, last=1)).argmax(-1).expand(-1, length)


def test_an_objective_that_cannot_be_sampled_is_refused() -> None:
    """Rather than its greedy accuracy reported as a sampled one."""
    module = trainable(Stubborn())
    with pytest.raises(
        UserError, match="Stubborn does not choose its tokens with `pick`, so its answers cannot be sampled"
    ):
        sampled(module, fixed_loader(drawn(SMALL, 4), 4), 1, 1.0, 0)


class Coin(Objective):
    """Writes the right path with probability a half, whatever the problem."""

    def generate(self, backbone: Backbone, prompts: Tensor, length: int, given: Tensor | None = None) -> Tensor:
        right = self.pick(torch.zeros(len(prompts), 2)).bool()
        return torch.where(right.unsqueeze(1), self.answers, self.answers + 1)

    reads_prompt_once = False
    answers: Tensor


def test_shares_of_samples_and_of_problems() -> None:
    objective = Coin()
    module = trainable(objective)
    batch = drawn(SMALL, 1000)
    objective.answers = batch.answers
    found = sampled(module, [batch], 3, 1.0, 0)
    assert found["sampled_exact_match"]["n"] == found["best_of_samples"]["n"] == 1000
    assert found["sampled_exact_match"]["value"] == pytest.approx(1 / 2, abs=0.04)
    assert found["best_of_samples"]["value"] == pytest.approx(7 / 8, abs=0.04)
    assert (found["samples"], found["temperature"]) == (3, 1.0)
    assert sampled(module, [batch], 3, 1.0, 0) == found != sampled(module, [batch], 3, 1.0, 1)


@pytest.mark.parametrize("count", [2, 7])
def test_samples_that_agree_are_no_more_than_one(count: int) -> None:
    """The interval of the share is that of the problems, however often each is asked."""
    module = trainable(TeacherForcing()).eval()
    once, more = (sampled(module, [drawn(SMALL, 50)], each, 1e-4, 0)["sampled_exact_match"] for each in (1, count))
    assert once == more


def test_no_logits_are_too_much() -> None:
    """A model that has diverged is sampled, too, and a temperature may be as low as numbers go."""
    nan, inf = float("nan"), float("inf")
    logits = torch.tensor([[0.0, nan, 1.0], [nan, nan, nan], [inf, 0.0, inf], [-inf, -inf, -inf], [3.0, 5.0, -inf]])
    for temperature in (1e-40, 1.0, 1e30):
        drawn = Sampler(temperature, seeded())(logits)
        assert drawn.shape == (5,) and drawn.min() >= 0 and drawn[4] < 2
    assert Sampler(1e-40, seeded())(logits[4:]).tolist() == [1]


def test_the_callback_does_not_affect_a_run(tmp_path: Path) -> None:
    results: dict[str, Any] = {}
    for name, more in {
        "default": (),
        "sampled": ("+callbacks.sampled._target_=nextfail.training.sampled.Sampled",),
    }.items():
        results[name] = train_here(tmp_path / name, *SHORT, *more)
    timing = {"seconds", "samples_per_second"}
    plain, more = ({k: v for k, v in each.items() if k not in timing} for each in results.values())
    assert plain == more
    rows = {name: read_rows(tmp_path / name / "metrics.csv") for name in results}
    own = [row for row in rows["sampled"] if row["split"] == "sampled"]
    others = [{k: v for k, v in row.items() if v} for row in rows["sampled"] if row["split"] != "sampled"]
    assert others == [{k: v for k, v in row.items() if v} for row in rows["default"]]
    assert len(own) == 2 and all(0 <= float(row["exact_match"]) <= float(row["best_of_samples"]) for row in own)


def test_the_callback_samples_the_problems_of_the_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def counted(module: TaskModule, batches: Iterable[Batch], *more: Any) -> dict[str, Any]:
        read = list(batches)
        counts.append(sum(len(batch.answers) for batch in read))
        return sampled(module, read, *more)

    monkeypatch.setattr("nextfail.training.sampled.sampled", counted)
    train_here(tmp_path, *SHORT, "+callbacks.sampled._target_=nextfail.training.sampled.Sampled",
               "data.eval_batch_size=3", "trainer.options.limit_val_batches=2")  # fmt: skip
    assert set(counts) == {6}
