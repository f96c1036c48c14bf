from typing import Any

import pytest
import torch
from helpers import SMALL, Averaging, attached, drawn
from torch import Tensor
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models import Backbone
from nextfail.objectives import (
    IGNORE,
    FirstHopOnly,
    Objective,
    Reverse,
    TeacherForcing,
    Teacherless,
)
from nextfail.tasks import Batch

ALL = [TeacherForcing, FirstHopOnly, Reverse, Teacherless]
WRITING = [TeacherForcing, Reverse]  # those that write token by token
PROMPT = [7, 1, 10, 3, 9, 10, 1, 4, 10, 7, 3, 12, 7, 4, 11]  # of helpers.LINE


def read_by(backbone: Backbone, ask: Any) -> list[Tensor]:
    """The tokens that every pass through the backbone reads while `ask` runs."""
    seen: list[Tensor] = []
    hook = backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    ask()
    hook.remove()
    return seen


# tokens by hand


@pytest.mark.parametrize(
    ("kind", "inputs", "labels"),
    [
        (TeacherForcing, [*PROMPT, 7, 1], [7, 1, 4]),
        (Reverse, [*PROMPT, 4, 1], [4, 1, 7]),
        (Teacherless, [*PROMPT, 13, 13], [7, 1, 4]),
        (FirstHopOnly, [*PROMPT, 7], [1]),
    ],
)
def test_every_input_and_label(kind: type[Objective], inputs: list[int], labels: list[int], by_hand: Batch) -> None:
    objective, backbone = attached(kind)
    seen = read_by(backbone, lambda: objective.loss(backbone, by_hand))
    assert [tokens.tolist() for tokens in seen] == [[inputs]]
    loss = objective.loss(backbone, by_hand)
    assert loss.labels.tolist() == [labels]
    # the last label is asked at the last place, the one before it at the place before
    logits = backbone.logits(backbone(torch.tensor([inputs])))[0, -len(labels) :]
    assert torch.allclose(loss.logits[0], logits, atol=1e-5)
    by_token = [-logits[i].log_softmax(-1)[label] for i, label in enumerate(labels)]
    assert torch.allclose(loss.total, torch.stack(by_token).mean(), atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_loss_is_the_mean_over_problems(kind: type[Objective]) -> None:
    objective, backbone = attached(kind)
    batch = drawn(SMALL, 6)
    each = [objective.loss(backbone, batch.rows(slice(i, i + 1))).total for i in range(6)]
    assert torch.allclose(objective.loss(backbone, batch).total, torch.stack(each).mean(), atol=1e-5)


def test_ignored_places_cost_nothing() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, IGNORE, 2], [IGNORE, IGNORE, 4]])
    asked = [logits[0, 0], logits[0, 2], logits[1, 2]]
    expected = sum(F.cross_entropy(each, torch.tensor(label)) for each, label in zip(asked, (1, 2, 4), strict=True)) / 3
    objective, _ = attached(TeacherForcing)
    loss = objective.cross_entropy(logits, labels)
    assert torch.allclose(loss.total, torch.as_tensor(expected))
    assert loss.labels is labels


@pytest.mark.parametrize("kind", ALL)
def test_sequences_are_no_longer_than_said(kind: type[Objective]) -> None:
    objective, backbone = attached(kind)
    batch = drawn(SMALL, 2)
    assert objective.inputs(batch.prompts, objective.write(batch.answers)).shape[1] <= objective.max_length(SMALL) == 18
    assert backbone.max_length == 18
    objective.predict(backbone, batch)  # within the length too


# teacherless sees no target


def test_teacherless_does_not_depend_on_the_path(by_hand: Batch) -> None:
    objective, backbone = attached(Teacherless)
    other = Batch.full(by_hand.prompts, torch.tensor([[0, 2, 5]]))
    first, second = (read_by(backbone, lambda b=batch: objective.loss(backbone, b))[0] for batch in (by_hand, other))
    assert torch.equal(first, second)
    one, two = (objective.loss(backbone, batch) for batch in (by_hand, other))
    assert torch.equal(one.logits, two.logits)
    assert not torch.equal(one.labels, two.labels)
    predictions = [objective.predict(backbone, batch).generated for batch in (by_hand, other)]
    assert torch.equal(*predictions)


@pytest.mark.parametrize("kind", WRITING)
def test_teacher_forcing_and_reverse_do_see_it(kind: type[Objective], by_hand: Batch) -> None:
    objective, backbone = attached(kind)
    other = Batch.full(by_hand.prompts, torch.tensor([[0, 2, 5]]))
    one, two = (objective.loss(backbone, batch).logits for batch in (by_hand, other))
    assert torch.equal(one[:, 0], two[:, 0])
    assert not torch.allclose(one[:, 1], two[:, 1], atol=1e-3)


# decoding, against loops that know no cache and no batch


@torch.no_grad()
def greedy(backbone: Backbone, prompt: Tensor, written: list[int], length: int) -> list[int]:
    """Write until there are `length` tokens, reading everything anew for each."""
    written = list(written)
    while len(written) < length:
        tokens = torch.cat([prompt, torch.tensor(written, dtype=torch.long)])[None]
        written.append(int(backbone.logits(backbone(tokens))[0, -1].argmax()))
    return written


def averaging(kind: type[Objective]) -> tuple[Objective, Backbone]:
    objective = kind()
    torch.manual_seed(0)
    backbone = Averaging(width=16, vocab_size=SMALL.vocab.size, max_length=18)
    objective.attach(SMALL, backbone)
    return objective, backbone


@pytest.mark.parametrize("make", [attached, averaging])
@pytest.mark.parametrize("kind", ALL)
def test_predictions_equal_naive_ones(make: Any, kind: type[Objective]) -> None:
    objective, backbone = make(kind)
    batch = drawn(SMALL, 12)
    predictions = objective.predict(backbone, batch)
    turn = -1 if kind is Reverse else 1  # from the order of writing to start-to-goal
    for i, (prompt, path) in enumerate(zip(batch.prompts, batch.answers.tolist(), strict=True)):
        if kind is Teacherless:
            tokens = torch.tensor([[*prompt.tolist(), 13, 13]])
            expected = backbone.logits(backbone(tokens))[0, -3:].argmax(-1).tolist()
        else:
            expected = greedy(backbone, prompt, path[:1] if kind is FirstHopOnly else [], 3)[::turn]
        assert predictions.generated[i].tolist() == expected
        if predictions.forced is not None:
            true = path[::turn]
            expected = [greedy(backbone, prompt, true[:j], j + 1)[-1] for j in range(3)]
            assert predictions.forced[i].tolist() == expected[::turn]
        for probed in predictions.probed.values():
            assert probed[i].tolist() == greedy(backbone, prompt, path[:2], 3)
    assert torch.equal(objective.generate(backbone, batch.prompts, 3), predictions.generated)
    assert len({tuple(row) for row in predictions.generated.tolist()}) > 1  # else all of this says little
    assert (predictions.forced is None) is (kind not in WRITING)
    assert set(predictions.probed) == ({"cheat_accuracy"} if kind is TeacherForcing else set())


@pytest.mark.parametrize("kind", WRITING)
def test_forced_predictions_are_those_of_the_training_logits(kind: type[Objective]) -> None:
    objective, backbone = attached(kind)
    batch = drawn(SMALL, 12)
    forced = objective.forced(backbone, batch)
    assert forced is not None
    in_order_of_writing = forced.flip(1) if kind is Reverse else forced
    assert torch.equal(in_order_of_writing, objective.loss(backbone, batch).logits.argmax(-1))


def test_teacherless_has_no_forced_pass() -> None:
    objective, backbone = attached(Teacherless)
    assert objective.forced(backbone, drawn(SMALL, 2)) is None


def test_reverse_reads_what_it_writes(by_hand: Batch) -> None:
    objective, _ = attached(Reverse)
    assert objective.write(by_hand.answers).tolist() == [[4, 1, 7]]
    assert objective.read(torch.tensor([[4, 1, 7]])).tolist() == [[7, 1, 4]]


@pytest.mark.parametrize("kind", WRITING)
def test_a_model_that_knows_the_answer_is_read_start_to_goal(kind: type[Objective], by_hand: Batch) -> None:
    objective, backbone = attached(kind)
    optimizer = torch.optim.Adam(backbone.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        objective.loss(backbone, by_hand).total.backward()
        optimizer.step()
    assert objective.generate(backbone, by_hand.prompts, 3).tolist() == [[7, 1, 4]]
    forced = objective.forced(backbone, by_hand)
    assert forced is not None
    assert forced.tolist() == [[7, 1, 4]]


# a given prefix


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_given_prefix_is_kept(number: int) -> None:
    objective, backbone = attached(TeacherForcing)
    batch = drawn(SMALL, 8)
    paths = objective.generate(backbone, batch.prompts, 3, given=batch.answers[:, :number])
    assert paths.shape == (8, 3)
    assert torch.equal(paths[:, :number], batch.answers[:, :number])
    for prompt, path, true in zip(batch.prompts, paths.tolist(), batch.answers.tolist(), strict=True):
        assert path == greedy(backbone, prompt, true[:number], 3)


@pytest.mark.parametrize("kind", [Reverse, Teacherless, FirstHopOnly])
def test_prefix_is_refused_where_it_makes_no_sense(kind: type[Objective]) -> None:
    objective, backbone = attached(kind)
    batch = drawn(SMALL, 2)
    assert not objective.takes_given
    with pytest.raises(UserError, match=rf"{kind.__name__} cannot continue a true prefix"):
        objective.generate(backbone, batch.prompts, 3, given=batch.answers[:, :2])


def test_first_hop_only_is_given_the_start(by_hand: Batch) -> None:
    objective, backbone = attached(FirstHopOnly)
    predictions = objective.predict(backbone, by_hand)
    assert predictions.forced is None and predictions.probed == {}
    assert predictions.generated.tolist() == [greedy(backbone, by_hand.prompts[0], [7], 3)]
    assert [kind().judged_by for kind in ALL] == ["exact_match", "hard_token_accuracy", "exact_match", "exact_match"]


def test_evaluation_keeps_no_gradients() -> None:
    for kind in ALL:
        objective, backbone = attached(kind)
        batch = drawn(SMALL, 2)
        seen: list[Tensor] = []
        hook = backbone.norm.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output))
        objective.predict(backbone, batch)
        objective.generate(backbone, batch.prompts, 3)
        objective.forced(backbone, batch)
        hook.remove()
        assert seen
        assert not any(hidden.requires_grad for hidden in seen)
