"""What holds of every objective: gradients, means over problems, nothing seen before its time, and both backbones."""

from typing import Any

import pytest
import torch
from helpers import ARGUMENTS, SMALL, Averaging, attached, drawn

from nextfail.errors import UserError
from nextfail.models import Mamba
from nextfail.objectives import (
    ALL,
    AnyOrder,
    FutureSummary,
    MultiToken,
    NextLatent,
    Objective,
    TeacherForcing,
    TokenMasking,
    TokenOrder,
)
from nextfail.tasks import Batch, PathStar

V = 14
LOOKING_AHEAD = [MultiToken, TokenOrder, NextLatent, FutureSummary]  # the next token's loss, and more
ON_MAMBA = [kind for kind in ALL if kind is not AnyOrder]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("graph", [SMALL, PathStar(3, 4, 20)])
def test_every_objective_trains_every_parameter(kind: type[Objective], graph: PathStar) -> None:
    objective, backbone = attached(kind, graph)
    loss = objective.loss(backbone, drawn(graph, 64))
    assert torch.isfinite(loss.total)
    assert not loss.parts or torch.allclose(torch.stack(list(loss.parts.values())).sum(), loss.total)
    loss.total.backward()
    unused = {"positions.weight"}  # of it, the last row may be beyond what is read
    for owner in (backbone, objective):
        for name, parameter in owner.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0 or name in unused, name


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not AnyOrder])
def test_every_loss_is_the_mean_over_problems(kind: type[Objective]) -> None:
    """Not of any_order, where every hidden token weighs the same and problems have different numbers of them."""
    objective, backbone = attached(kind, **({"m": 0.0} if kind is TokenMasking else {}))
    batch = drawn(SMALL, 6)
    each = [objective.loss(backbone, batch.rows(slice(i, i + 1))).total for i in range(6)]
    assert torch.allclose(objective.loss(backbone, batch).total, torch.stack(each).mean(), atol=1e-4)


@pytest.mark.parametrize("kind", LOOKING_AHEAD)
def test_what_looks_ahead_is_teacher_forcing_and_more(kind: type[Objective]) -> None:
    objective, backbone = attached(kind)
    loss = objective.loss(backbone, drawn(SMALL, 6))
    assert next(iter(loss.parts)) == "next_token"
    assert len(loss.parts) > 1
    if kind is not MultiToken:  # whose next token comes from a head
        plain = TeacherForcing()
        plain.attach(SMALL, backbone)
        assert torch.equal(loss.parts["next_token"], plain.loss(backbone, drawn(SMALL, 6)).total)
        one, other = (each.predict(backbone, drawn(SMALL, 6)) for each in (objective, plain))
        assert torch.equal(one.generated, other.generated)


@pytest.mark.parametrize("kind", ALL)
def test_nothing_of_the_path_is_seen_before_its_time(kind: type[Objective]) -> None:
    """Generation reads the prompt alone, and the answer at a place none of the path's later tokens."""
    objective, backbone = attached(kind)
    batch = drawn(SMALL, 6)
    last_changed = Batch.full(batch.prompts, torch.cat([batch.answers[:, :2], (batch.answers[:, 2:] + 1) % 10], 1))
    one, other = (objective.predict(backbone, each) for each in (batch, last_changed))
    assert torch.equal(one.generated, other.generated)
    if one.forced is not None and kind.takes_given:  # those that write from the start on
        assert torch.equal(one.forced, other.forced)
    assert set(one.probed) == ({"cheat_accuracy"} if kind.takes_given else set())
    for name, probed in one.probed.items():
        assert torch.equal(probed, other.probed[name])
        assert torch.equal(probed[:, :2], batch.answers[:, :2])


def mamba(objective: Objective) -> Mamba:
    torch.manual_seed(0)
    sizes = {"depth": 2, "width": 16, "d_state": 4, "d_conv": 4, "expand": 2, "init_std": 0.4, "scan": "loop"}
    return Mamba(**sizes, vocab_size=V + objective.extra_tokens, max_length=objective.max_length(SMALL))


@pytest.mark.parametrize("kind", ON_MAMBA)
def test_every_other_objective_runs_on_mamba(kind: type[Objective]) -> None:
    objective = kind(**ARGUMENTS.get(kind, {}))
    backbone = mamba(objective)
    objective.attach(SMALL, backbone)
    batch = drawn(SMALL, 4)
    objective.loss(backbone, batch).total.backward()
    for name, parameter in [*backbone.named_parameters(), *objective.named_parameters()]:
        assert parameter.grad is not None, name
    predictions = objective.predict(backbone, batch)
    assert predictions.generated.shape == (4, 3)
    if predictions.forced is not None:
        torch.manual_seed(0)
        logits = objective.answer(backbone, objective.states(backbone, batch.prompts, objective.write(batch.answers)))
        if kind is not MultiToken:
            assert torch.equal(predictions.forced, objective.read(logits.argmax(-1)))


@pytest.mark.parametrize("make", [mamba, lambda objective: Averaging(width=16, vocab_size=V, max_length=18)])
def test_any_order_is_refused_where_attention_is_not(make: Any) -> None:
    objective = AnyOrder("confident")
    with pytest.raises(
        UserError,
        match=r"AnyOrder needs a backbone with bidirectional, which (Mamba|Averaging) does not have",
    ):
        objective.attach(SMALL, make(objective))
