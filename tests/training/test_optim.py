import copy
import math
from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, drawn, tiny
from torch import nn
from torch.optim import AdamW, Optimizer

from nextfail.errors import UserError
from nextfail.objectives import TeacherForcing
from nextfail.training.module import TaskModule
from nextfail.training.optim import MuonAdamW, adamw, constant, cosine, decaying, schedule, wsd

ADAMW = partial(adamw, lr=0.1, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.5)
MUON = partial(MuonAdamW, lr=0.1, betas=[0.9, 0.95], eps=1e-8, momentum=0.9, weight_decay=0.5)
MATRICES = ("mixer.query_key_value.weight", "mixer.project.weight", "mlp.expand.weight", "mlp.contract.weight")


def module(seed: int = 0) -> TaskModule:
    return TaskModule(SMALL, tiny(SMALL, seed=seed), TeacherForcing())


def stepped(module: TaskModule, optimizer: Optimizer, k: int) -> None:
    optimizer.zero_grad()
    module.objective.loss(module.backbone, drawn(SMALL, 8, k)).total.backward()
    optimizer.step()


# weight decay


def test_matrices_decay_and_nothing_else() -> None:
    made = module()
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    with_decay, without = ([names[id(parameter)] for parameter in group] for group in decaying(made))
    blocks = [f"backbone.blocks.{i}" for i in range(2)]
    assert sorted(with_decay) == sorted(f"{block}.{matrix}" for block in blocks for matrix in MATRICES)
    assert sorted(with_decay + without) == sorted(names.values())
    assert {"backbone.tokens.weight", "backbone.positions.weight", "backbone.norm.weight"} <= set(without)


def test_frozen_and_exempt_parameters() -> None:
    linear, frozen = nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False)
    rates = nn.Linear(3, 3, bias=False)
    rates.weight.no_weight_decay = True  # type: ignore[assignment]
    with_decay, without = decaying(nn.ModuleList([linear, frozen, rates]))
    assert [id(p) for p in with_decay] == [id(linear.weight)]
    assert {id(p) for p in without} == {id(linear.bias), id(rates.weight)}


def test_shared_matrix_is_met_once() -> None:
    one, other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    other.weight = one.weight
    assert [len(group) for group in decaying(nn.ModuleList([one, other]))] == [1, 0]


def test_matrix_tied_to_the_embedding_is_trained_once_and_does_not_decay() -> None:
    embedding, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    assert [len(group) for group in decaying(nn.ModuleList([embedding, head]))] == [0, 1]


@pytest.mark.parametrize("make", [ADAMW, MUON])
def test_decay_is_applied_to_matrices_alone(make: partial[Optimizer]) -> None:
    made = module()
    for parameter in made.parameters():
        parameter.data += 0.5  # biases are born zero, and zero cannot decay
        parameter.grad = torch.zeros_like(parameter)
    before = copy.deepcopy(dict(made.named_parameters()))
    make(made).step()
    for name, parameter in made.named_parameters():
        factor = 1 - 0.1 * 0.5 if name.endswith(MATRICES) else 1.0
        assert torch.allclose(parameter, before[name] * factor, rtol=1e-6, atol=0), name


# schedules


def rates(schedule: partial[torch.optim.lr_scheduler.LambdaLR], steps: int) -> list[float]:
    """The rate, as a share of the full one, at which each step is taken."""
    optimizer = AdamW([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler, seen = schedule(optimizer=optimizer), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"] / 2.0)
        optimizer.step()
        scheduler.step()
    return seen


def test_constant_rate_warms_up() -> None:
    assert rates(partial(constant, warmup=4), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rates(partial(constant, warmup=0), 3) == [1.0, 1.0, 1.0]


def test_cosine_rate_at_steps_by_hand() -> None:
    seen = rates(partial(cosine, max_steps=12, warmup=4, final=0.2), 15)
    assert seen[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert seen[6] == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert seen[8] == pytest.approx(0.6)  # half way from 4 to 12
    assert seen[12:] == pytest.approx([0.2, 0.2, 0.2])
    assert sorted(seen[4:], reverse=True) == seen[4:]


def test_wsd_rate_at_steps_by_hand() -> None:
    seen = rates(partial(wsd, max_steps=10, warmup=2, decay=4, final=0.2), 11)
    assert seen == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert rates(partial(wsd, max_steps=3, warmup=0, decay=0), 3) == [1.0, 1.0, 1.0]
    assert rates(partial(wsd, max_steps=3, warmup=2, decay=4), 3) == pytest.approx([0.5, 0.5, 0.25])  # no room for both


def test_a_longer_budget_changes_nothing_before_the_decay() -> None:
    short, long = (rates(partial(wsd, max_steps=steps, warmup=5, decay=10), steps) for steps in (30, 50))
    assert short[:21] == long[:21] and short[21:] != long[21:30]


def test_cosine_without_warm_up_starts_at_the_full_rate() -> None:
    assert rates(partial(cosine, max_steps=2, warmup=0, final=0.0), 3) == pytest.approx([1.0, 0.5, 0.0])


# Muon with AdamW


def test_muon_has_the_matrices_and_adamw_the_rest() -> None:
    made = module()
    optimizer = MUON(made)
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    by_muon = {names[id(p)] for group in optimizer.muon.param_groups for p in group["params"]}
    by_adamw = {names[id(p)] for group in optimizer.adamw.param_groups for p in group["params"]}
    assert by_muon == {name for name in names.values() if name.endswith(MATRICES)}
    assert by_adamw == set(names.values()) - by_muon


def test_matrices_of_three_dimensions_go_to_adamw_and_decay() -> None:
    kernel = nn.Conv1d(2, 2, 3, bias=False)
    optimizer = MUON(nn.ModuleList([kernel, nn.Linear(2, 2, bias=False)]))
    group = next(group for group in optimizer.adamw.param_groups if group["params"])
    assert (id(group["params"][0]), group["weight_decay"]) == (id(kernel.weight), 0.5)


def test_one_step_moves_every_parameter() -> None:
    made = module()
    optimizer = MUON(made)
    before = copy.deepcopy(list(made.parameters()))
    stepped(made, optimizer, 0)
    assert all(not torch.equal(old, new) for old, new in zip(before, made.parameters(), strict=True))


def test_closure_is_called_with_gradients_on() -> None:
    made = module()

    def closure() -> torch.Tensor:
        loss = made.objective.loss(made.backbone, drawn(SMALL, 8)).total
        loss.backward()
        return loss

    before = copy.deepcopy(list(made.parameters()))
    assert MUON(made).step(closure).isfinite()
    assert all(not torch.equal(old, new) for old, new in zip(before, made.parameters(), strict=True))


def test_schedule_reaches_both() -> None:
    optimizer = MUON(module())
    scheduler = constant(optimizer, warmup=4)
    for factor in (0.25, 0.5, 0.75, 1.0):
        seen = [group["lr"] for inner in (optimizer.muon, optimizer.adamw) for group in inner.param_groups]
        assert seen == pytest.approx([0.1 * factor] * len(seen))
        optimizer.step()
        scheduler.step()


def test_zero_grad_reaches_both() -> None:
    made = module()
    optimizer = MUON(made)
    stepped(made, optimizer, 0)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in made.parameters())


@pytest.mark.parametrize("make", [ADAMW, MUON])
def test_continuation_from_a_state_is_exact(make: partial[Optimizer], tmp_path: Path) -> None:
    whole = module()
    optimizer = make(whole)
    scheduler = cosine(optimizer, max_steps=6, warmup=2, final=0.1)
    path = tmp_path / "state.pt"
    for k in range(6):
        if k == 3:
            torch.save([whole.state_dict(), optimizer.state_dict(), scheduler.state_dict()], path)
        stepped(whole, optimizer, k)
        scheduler.step()

    resumed = module(seed=1)
    again = make(resumed)
    reschedule = cosine(again, max_steps=6, warmup=2, final=0.1)
    for part, state in zip((resumed, again, reschedule), torch.load(path, weights_only=True), strict=True):
        part.load_state_dict(state)
    for k in range(3, 6):
        stepped(resumed, again, k)
        reschedule.step()
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


BELOW_ZERO = {"warmup": lambda o: constant(o, -5), "final": lambda o: cosine(o, 10, 2, -0.1),
              "decay": lambda o: wsd(o, 10, 2, -3)}  # fmt: skip


@pytest.mark.parametrize("make", BELOW_ZERO.values(), ids=BELOW_ZERO)
def test_negative_schedule_is_refused(make: Callable[[torch.optim.Optimizer], object]) -> None:
    with pytest.raises(UserError, match=r"scheduler\..*=-.* is not a .*number of at least 0"):
        make(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))


def test_negative_decay_is_refused() -> None:
    with pytest.raises(UserError, match=r"optimizer\.weight_decay=-1 is not a number of at least 0"):
        adamw(torch.nn.Linear(2, 2), lr=1.0, betas=(0.9, 0.99), eps=1e-8, weight_decay=-1)


@pytest.mark.parametrize("betas", [0.9, [0.9], [0.9, 0.99, 0.999], ["a", "b"], [0.9, 1.0], [-0.1, 0.9]])
@pytest.mark.parametrize("make", [adamw, MuonAdamW])
def test_betas_that_are_no_pair_are_refused_by_name(make: Any, betas: Any) -> None:
    with pytest.raises(UserError, match=r"optimizer\.betas=.* is not two numbers from 0 to below 1"):
        make(torch.nn.Sequential(torch.nn.Linear(2, 2)), betas=betas)


STEP = torch.optim.lr_scheduler.StepLR


@pytest.mark.parametrize(("make", "given"), [(constant, False), (cosine, True), (STEP, False)])
def test_a_schedule_that_does_not_take_the_budget_does_not_get_it(make: Any, given: bool) -> None:
    """So any schedule of torch's can be configured, and a run with it be continued."""
    optimizer = AdamW([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = schedule(partial(make, **({"step_size": 1} if make is STEP else {})), optimizer, max_steps=7)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert ("max_steps" in signature(make).parameters) == given
