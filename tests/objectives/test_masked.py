"""any_order, belief_state, token_masking and scratchpad, which change what is read or written, by hand."""

import pytest
import torch
from expected import BLANK, EQUALS, PROMPT, V, log_prob, states
from helpers import SMALL, attached, drawn, read_by
from torch import Tensor

from nextfail.errors import UserError
from nextfail.objectives import (
    AnyOrder,
    BeliefState,
    Objective,
    Scratchpad,
    TeacherForcing,
    Teacherless,
    TokenMasking,
)
from nextfail.tasks import Batch

# any_order


def test_any_order_by_hand(by_hand: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, backbone = attached(AnyOrder)
    draws = iter([torch.tensor([[0.9, 0.2, 0.4]]), torch.tensor([[0.5]])])  # of each token, and the rate
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: next(draws))
    seen: list[Tensor] = []
    hook = backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    loss = objective.loss(backbone, by_hand)
    hook.remove()
    assert seen[0].tolist() == [[*PROMPT, 7, BLANK, BLANK]]
    assert loss.labels.tolist() == [[-100, 1, 4]]
    logits = backbone.logits(backbone(seen[0], causal=False))[0, -3:]
    expected = -(log_prob(logits[1], 1) + log_prob(logits[2], 4)) / 2
    assert torch.allclose(loss.total, expected, atol=1e-5)


def test_any_order_hides_at_least_one_and_as_many_as_said(by_hand: Batch) -> None:
    objective, backbone = attached(AnyOrder)
    batch = drawn(SMALL, 3000)
    torch.manual_seed(0)
    labels = objective.loss(backbone, batch).labels
    hidden = (labels != -100).sum(1)
    assert hidden.min() == 1
    # 1, 2 or 3 of three tokens are each a third, and each token is hidden as often
    third = torch.full((3,), 1 / 3)
    assert torch.allclose(torch.bincount(hidden, minlength=4)[1:] / 3000, third, atol=0.04)
    assert torch.allclose((labels != -100).float().mean(0), 2 * third, atol=0.04)
    assert torch.equal(labels[labels != -100], batch.answers[labels != -100])


def test_any_order_sees_both_ways(by_hand: Batch) -> None:
    objective, backbone = attached(AnyOrder)
    hidden = torch.tensor([[BLANK, BLANK, BLANK]])
    one, other = (
        objective.states(backbone, by_hand.prompts, paths) for paths in (hidden, torch.tensor([[BLANK, BLANK, 4]]))
    )
    assert not torch.allclose(one[:, 0], other[:, 0], atol=1e-3)


@torch.no_grad()
def test_any_order_fills_the_surest_place_first() -> None:
    objective, backbone = attached(AnyOrder)
    batch = drawn(SMALL, 16)
    filled = objective.generate(backbone, batch.prompts, 3)
    given = objective.generate(backbone, batch.prompts, 3, batch.answers[:, :2])
    for i, prompt in enumerate(batch.prompts.tolist()):
        for start, found in (({}, filled[i]), ({0: int(batch.answers[i, 0]), 1: int(batch.answers[i, 1])}, given[i])):
            known: dict[int, int] = dict(start)
            while len(known) < 3:
                path = [known.get(place, BLANK) for place in range(3)]
                chances = backbone.logits(backbone(torch.tensor([prompt + path]), causal=False))[0, -3:].softmax(-1)
                place = max((j for j in range(3) if j not in known), key=lambda j: float(chances[j].max()))
                known[place] = int(chances[place].argmax())
            assert found.tolist() == [known[place] for place in range(3)]
    assert len({tuple(row) for row in filled.tolist()}) > 1


@torch.no_grad()
def test_any_order_decodes_from_left_to_right() -> None:
    objective, backbone = attached(AnyOrder, decode="left_to_right")
    batch = drawn(SMALL, 16)
    for first in (0, 2):
        found = objective.generate(backbone, batch.prompts, 3, batch.answers[:, :first])
        path = torch.full_like(batch.answers, BLANK)
        path[:, :first] = batch.answers[:, :first]
        for place in range(first, 3):
            read = torch.cat([batch.prompts, path], 1)
            path[:, place] = backbone.logits(backbone(read, causal=False))[:, place - 3].argmax(-1)
        assert torch.equal(found, path)


@torch.no_grad()
def test_any_order_at_once_looks_once() -> None:
    objective, backbone = attached(AnyOrder, decode="at_once")
    batch = drawn(SMALL, 8)
    found: list[Tensor] = []
    passes = read_by(backbone, lambda: found.append(objective.generate(backbone, batch.prompts, 3)))
    assert len(passes) == 1
    assert passes[0][:, -3:].unique().tolist() == [BLANK]
    logits = backbone.logits(backbone(passes[0], causal=False, last=3))
    assert torch.equal(found[0], logits.argmax(-1))
    with pytest.raises(
        UserError, match=r"objective\.decode='slowly' is unknown: choose left_to_right, confident or at_once"
    ):
        AnyOrder("slowly")


# belief_state


def test_belief_state_by_hand(by_hand: Batch) -> None:
    objective, backbone = attached(BeliefState)
    other = objective.backward_encoder
    assert [seen.tolist() for seen in read_by(other, lambda: objective.loss(backbone, by_hand))] == [
        [[BLANK, 4, 1]][:1]
    ]
    loss = objective.loss(backbone, by_hand)
    path = [7, 1, 4]
    prefix = {i: backbone(torch.tensor([PROMPT + path[:i]]))[0, -1] for i in range(3)}
    suffix = {j: other(torch.tensor([[BLANK, *reversed(path[j:])]]))[0, -1] for j in range(1, 4)}
    forward, backward = [], []
    for i, before in prefix.items():
        for j, after in suffix.items():
            if i < j:
                next_one, previous = objective.head(torch.cat([before, after])).split(V)
                forward.append(-log_prob(next_one, path[i]))
                backward.append(-log_prob(previous, path[j - 1]))
    assert len(forward) == 6
    assert torch.allclose(loss.parts["after_prefix"], torch.stack(forward).mean() / 2, atol=1e-5)
    assert torch.allclose(loss.parts["before_suffix"], torch.stack(backward).mean() / 2, atol=1e-5)
    assert torch.allclose(loss.total, torch.stack(forward + backward).mean(), atol=1e-5)
    assert loss.labels.tolist() == [path]
    at_test = [objective.head(torch.cat([prefix[i], suffix[3]])).split(V)[0] for i in range(3)]
    assert torch.allclose(loss.logits[0], torch.stack(at_test), atol=1e-5)


@torch.no_grad()
def test_belief_state_decodes_with_an_empty_suffix() -> None:
    objective, backbone = attached(BeliefState)
    batch = drawn(SMALL, 8)
    predictions = objective.predict(backbone, batch)
    empty = objective.backward_encoder(torch.tensor([[BLANK]]))[0, -1]
    for i, (prompt, path) in enumerate(zip(batch.prompts.tolist(), batch.answers.tolist(), strict=True)):

        def naive(written: list[int], prompt: list[int] = prompt) -> list[int]:
            while len(written) < 3:
                before = backbone(torch.tensor([prompt + written]))[0, -1]
                written = [*written, int(objective.head(torch.cat([before, empty]))[:V].argmax())]
            return written

        assert predictions.generated[i].tolist() == naive([])
        assert predictions.probed["cheat_accuracy"][i].tolist() == naive(path[:2])
        assert predictions.forced[i].tolist() == [naive(path[:j])[j] for j in range(3)]


def test_belief_state_has_two_encoders_of_one_size() -> None:
    objective, backbone = attached(BeliefState)
    sizes = [{name: p.shape for name, p in each.named_parameters()} for each in (backbone, objective.backward_encoder)]
    assert sizes[0] == sizes[1]
    assert not torch.equal(backbone.tokens.weight, objective.backward_encoder.tokens.weight)


# token_masking


def test_token_masking_by_hand(by_hand: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, backbone = attached(TokenMasking, m=0.5)
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.tensor([[0.7, 0.3, 0.1]]))
    seen = read_by(backbone, lambda: objective.loss(backbone, by_hand))
    assert [each.tolist() for each in seen] == [[[*PROMPT, 7, BLANK]]]
    loss = objective.loss(backbone, by_hand)
    logits = backbone.logits(states(backbone, [7, BLANK], 3))
    expected = -torch.stack([log_prob(logits[t], label) for t, label in enumerate([7, 1, 4])]).mean()
    assert torch.allclose(loss.total, expected, atol=1e-5)
    assert loss.labels.tolist() == [[7, 1, 4]]


@pytest.mark.parametrize(("m", "same_as"), [(0, TeacherForcing), (1, Teacherless)])
def test_token_masking_has_the_two_others_at_its_ends(m: float, same_as: type[Objective]) -> None:
    objective, backbone = attached(TokenMasking, m=m)
    other = same_as()
    other.attach(SMALL, backbone)
    batch = drawn(SMALL, 6)
    assert torch.equal(objective.loss(backbone, batch).total, other.loss(backbone, batch).total)


def test_token_masking_hides_nothing_at_test() -> None:
    objective, backbone = attached(TokenMasking, m=1.0)
    plain = TeacherForcing()
    plain.attach(SMALL, backbone)
    batch = drawn(SMALL, 6)
    found, expected = (each.predict(backbone, batch) for each in (objective, plain))
    assert torch.equal(found.generated, expected.generated)
    assert torch.equal(found.forced, expected.forced)
    assert found.probed.keys() == expected.probed.keys() == {"cheat_accuracy"}
    assert torch.equal(found.probed["cheat_accuracy"], expected.probed["cheat_accuracy"])
    for wrong in (-0.1, 1.5, "half"):
        with pytest.raises(UserError, match=r"objective\.m=.* is not a number from 0 to 1"):
            TokenMasking(wrong)


# scratchpad


def test_scratchpad_by_hand(by_hand: Batch) -> None:
    objective, backbone = attached(Scratchpad)
    written = [4, 1, 7, EQUALS, 7, 1, 4]
    assert objective.write(by_hand.answers).tolist() == [written]
    assert objective.read(torch.tensor([written])).tolist() == [[7, 1, 4]]
    assert objective.max_length(SMALL) == backbone.max_length == 15 + 7
    seen = read_by(backbone, lambda: objective.loss(backbone, by_hand))
    assert [each.tolist() for each in seen] == [[[*PROMPT, *written[:-1]]]]
    loss = objective.loss(backbone, by_hand)
    logits = backbone.logits(states(backbone, written[:-1], 7))
    expected = -torch.stack([log_prob(logits[t], label) for t, label in enumerate(written)]).mean()
    assert torch.allclose(loss.total, expected, atol=1e-5)


@torch.no_grad()
def test_scratchpad_is_read_after_its_separator() -> None:
    objective, backbone = attached(Scratchpad)
    batch = drawn(SMALL, 8)
    predictions = objective.predict(backbone, batch)
    assert predictions.probed == {}
    for i, (prompt, path) in enumerate(zip(batch.prompts.tolist(), batch.answers.tolist(), strict=True)):
        written: list[int] = []
        while len(written) < 7:
            written.append(int(backbone.logits(backbone(torch.tensor([prompt + written])))[0, -1].argmax()))
        assert predictions.generated[i].tolist() == written[4:]
        true = [*reversed(path), EQUALS, *path]
        logits = backbone.logits(backbone(torch.tensor([prompt + true[:-1]])))
        assert predictions.forced[i].tolist() == logits[0, -3:].argmax(-1).tolist()
