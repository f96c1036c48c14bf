"""trainer.max_flops: one budget for objectives and models whose steps cost differently."""

from pathlib import Path
from typing import Any

import pytest
from helpers import SMALL
from inside import train_here

from nextfail.errors import UserError
from nextfail.models import Mamba
from nextfail.objectives import TeacherForcing
from nextfail.runs.folder import RunFolder
from nextfail.runs.table import read_rows
from nextfail.tasks.data import DrawnData
from nextfail.training.module import TaskModule
from nextfail.training.optim import adamw, constant
from nextfail.training.run import within_budget

SHORT = ("debug=default", "model.depth=1", "model.width=16", "data.batch_size=8", "trainer.max_steps=40")


@pytest.mark.parametrize("objective", ["teacher_forcing", "belief_state"])
def test_training_ends_at_the_last_step_within_the_budget(objective: str, tmp_path: Path) -> None:
    one = train_here(tmp_path / "one", *SHORT, f"objective={objective}", "trainer.max_steps=1")["flops"]
    settings = (f"objective={objective}", "scheduler=cosine", "trainer.val_every=30")
    result = train_here(tmp_path / "some", *SHORT, *settings, f"trainer.max_flops={7.5 * one}")
    assert (result["steps"], result["flops"]) == (7, 7 * one)
    rows = [row["step"] for row in read_rows(tmp_path / "some/metrics.csv") if row["split"] == "validation"]
    assert rows == ["7"]  # validated at least once, at the end


def test_the_schedule_ends_with_the_budget(tmp_path: Path) -> None:
    """Seven steps by FLOPs are seven steps by number, to the last bit of every metric."""
    one = train_here(tmp_path / "one", *SHORT, "trainer.max_steps=1")["flops"]
    cosine = ("scheduler=cosine", "scheduler.warmup=2")
    by_flops = train_here(tmp_path / "flops", *SHORT, *cosine, f"trainer.max_flops={7 * one}")
    by_steps = train_here(tmp_path / "steps", *SHORT, *cosine, "trainer.max_steps=7")
    assert by_flops["steps"] == by_steps["steps"] == 7
    assert (tmp_path / "flops/metrics.csv").read_bytes() == (tmp_path / "steps/metrics.csv").read_bytes()


def test_two_batches_a_step_cost_twice_as_much(tmp_path: Path) -> None:
    one = train_here(tmp_path / "one", *SHORT, "trainer.max_steps=1")["flops"]
    twice = ("trainer.options.accumulate_grad_batches=2", f"trainer.max_flops={7.5 * one}")
    assert train_here(tmp_path / "two", *SHORT, *twice)["steps"] == 3


def test_the_smaller_of_both_budgets_counts(tmp_path: Path) -> None:
    assert train_here(tmp_path, *SHORT, "trainer.max_steps=2", "trainer.max_flops=1e15")["steps"] == 2


def test_a_budget_below_one_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.max_flops=10 is less than one step of this run, which takes "):
        train_here(tmp_path, *SHORT, "trainer.max_flops=10")


def test_the_budget_of_a_gpu_is_found_on_the_cpu() -> None:
    """The module is still there when its steps are counted, and its scan may run on a GPU alone."""
    settings: dict[str, Any] = {"max_steps": 40, "val_every": 10, "options": {}}
    found = []
    for scan in ("auto", "mamba_ssm"):
        model = Mamba(depth=1, width=16, vocab_size=SMALL.vocab.size, max_length=40, scan=scan)
        module = TaskModule(SMALL, model, TeacherForcing(), adamw, constant)
        data = DrawnData(SMALL, train=64, validation=4, test=4, seed=0, batch_size=4, eval_batch_size=4, run_seed=0)
        found.append(within_budget(settings | {"max_flops": 1e7}, module, data))
        assert model.blocks[0].mixer.scan == scan
    assert found[0] == found[1] and found[0]["max_steps"] < 40


def test_it_is_part_of_the_identity_where_it_is_given(tmp_path: Path) -> None:
    hashes = {}
    for name, more in {"plain": "seed=0", "null": "trainer.max_flops=null", "given": "trainer.max_flops=1e15"}.items():
        train_here(tmp_path / name, *SHORT, "trainer.max_steps=1", more)
        hashes[name] = RunFolder(tmp_path / name).identity().hash
    assert hashes["plain"] == hashes["null"] != hashes["given"]
