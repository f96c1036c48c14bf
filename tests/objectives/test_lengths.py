"""Answers of different lengths, on a task that has nothing else to it: nothing is asked after the end token."""

from collections.abc import Callable

import pytest
import torch
from helpers import attached, read_by, seeds
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from words import BLANK, END, EQUALS, FIVE, LENGTHS, WORDS, V, Words, X, apart, junk, problems

from nextfail.objectives import (
    IGNORE,
    AnyOrder,
    BeliefState,
    FirstHopOnly,
    FutureSummary,
    Loss,
    MultiToken,
    NextLatent,
    Objective,
    Reverse,
    Scratchpad,
    TeacherForcing,
    Teacherless,
    TokenMasking,
    TokenOrder,
)
from nextfail.objectives.future_summary import bags
from nextfail.objectives.token_order import shares, shares_of
from nextfail.seeding import generator


def surprise(logits: Tensor, label: int) -> Tensor:
    return -logits.log_softmax(-1)[label]


def test_the_task_is_what_it_says() -> None:
    assert FIVE.mask.sum(1).tolist() == LENGTHS
    batch = WORDS.sample(200, generator("tests", 0))
    for answer, mask in zip(batch.answers.tolist(), batch.mask.tolist(), strict=True):
        length = answer.index(END)
        assert mask == [place <= length for place in range(5)]
        assert answer[length:] == [END] * (5 - length)
    assert set(batch.mask.sum(1).tolist()) == {1, 2, 3, 4, 5}


# which places count


@given(seeds)
def test_places_up_to_the_first_end_count_whatever_comes_after(seed: int) -> None:
    objective, _ = attached(TeacherForcing, WORDS)
    batch = WORDS.sample(8, generator("tests", seed))
    assert torch.equal(objective.counts(batch.answers), batch.mask)
    assert torch.equal(objective.counts(junk(batch, seed).answers), batch.mask)
    assert objective.counts(torch.tensor([[1, 2, 3]])).all()  # without an end, all do


def test_loss_over_nothing_is_0_and_has_a_gradient() -> None:
    objective, _ = attached(TeacherForcing, WORDS)
    logits = torch.randn(2, 3, V, requires_grad=True)
    total = objective.cross_entropy(logits, torch.full((2, 3), IGNORE)).total
    assert total == 0
    total.backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()
    assert objective.mean(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)) == 0
    assert objective.mean(torch.tensor([[1.0, 2.0], [6.0, 9.0]]), torch.tensor([[True, True], [True, False]])) == 3


# teacher_forcing, reverse, teacherless, token_masking, scratchpad: what is written, read and asked

WRITTEN = {
    TeacherForcing: [[3, 1, END, X, X], [2, END, X, X, X], [END, X, X, X, X], [1, 2, 3, 4, END], [5, 0, 6, END, X]],
    Reverse: [[1, 3, END, X, X], [2, END, X, X, X], [END, X, X, X, X], [4, 3, 2, 1, END], [6, 0, 5, END, X]],
    Scratchpad: [
        [1, 3, EQUALS, 3, 1, END, X, X, X, X, X],
        [2, EQUALS, 2, END, X, X, X, X, X, X, X],
        [EQUALS, END, X, X, X, X, X, X, X, X, X],
        [4, 3, 2, 1, EQUALS, 1, 2, 3, 4, END, X],
        [6, 0, 5, EQUALS, 5, 0, 6, END, X, X, X],
    ],
}
"""Labels of FIVE: what is written, up to the end token."""
WRITTEN[Teacherless] = WRITTEN[TokenMasking] = WRITTEN[TeacherForcing]


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_label_and_the_loss_by_hand(kind: type[Objective]) -> None:
    """The mean over all labels of the batch, each asked of the tokens before it alone."""
    objective, backbone = attached(kind, WORDS, **({"m": 0} if kind is TokenMasking else {}))
    loss = objective.loss(backbone, FIVE)
    assert loss.labels.tolist() == WRITTEN[kind]
    costs = []
    for prompt, row in zip(FIVE.prompts.tolist(), WRITTEN[kind], strict=True):
        labels = [label for label in row if label != X]
        for place, label in enumerate(labels):
            before = [BLANK] * place if kind is Teacherless else labels[:place]
            costs.append(surprise(backbone.logits(backbone(torch.tensor([prompt + before])))[0, -1], label))
    assert len(costs) == (30 if kind is Scratchpad else 15)
    assert torch.allclose(loss.total, torch.stack(costs).mean(), atol=1e-5)


def test_the_end_token_is_written_and_stays_last() -> None:
    reverse, _ = attached(Reverse, WORDS)
    assert reverse.write(FIVE.answers).tolist() == [[END if label == X else label for label in row]
                                                    for row in WRITTEN[Reverse]]  # fmt: skip
    assert reverse.read(torch.tensor([[1, 3, END, END, END]])).tolist() == [[3, 1, END, END, END]]


def test_scratchpad_has_no_gaps() -> None:
    scratchpad, backbone = attached(Scratchpad, WORDS)
    assert scratchpad.write(FIVE.answers).tolist() == [[END if label == X else label for label in row]
                                                       for row in WRITTEN[Scratchpad]]  # fmt: skip
    assert scratchpad.written_length(5) == 11
    assert scratchpad.max_length(WORDS) == backbone.max_length == 3 + 11
    no_end = torch.tensor([[1, 2, 3, 4, 5]])  # as a model may answer
    assert scratchpad.write(no_end).tolist() == [[5, 4, 3, 2, 1, EQUALS, 1, 2, 3, 4, 5]]
    assert scratchpad.read(scratchpad.write(no_end)).tolist() == no_end.tolist()


@given(seeds, st.sampled_from([Reverse, Scratchpad]), st.integers(2, 7), st.booleans())
def test_read_undoes_write_where_it_counts(seed: int, kind: type[Objective], longest: int, spoilt: bool) -> None:
    task = Words(longest)
    objective, _ = attached(kind, task)
    batch = task.sample(8, generator("tests", seed))
    written = objective.write((junk(batch, seed) if spoilt else batch).answers)
    assert written.shape == (8, objective.written_length(longest))
    again = objective.read(written)
    assert again.shape == batch.answers.shape
    assert torch.equal(again[batch.mask], batch.answers[batch.mask])
    assert torch.equal(objective.counts(again), batch.mask)


def test_teacherless_is_told_nothing_of_the_length() -> None:
    objective, backbone = attached(Teacherless, WORDS)
    (seen,) = read_by(backbone, lambda: objective.loss(backbone, FIVE))
    assert seen[:, 3:].tolist() == [[BLANK] * 4] * 5
    assert (objective.loss(backbone, FIVE).labels == END).sum(1).tolist() == [1] * 5  # each end is asked once


def test_first_hop_only_asks_nothing_of_an_answer_that_has_ended_before() -> None:
    """[] has no token at place 1; of [2], the end is there."""
    objective, backbone = attached(FirstHopOnly, WORDS)
    loss = objective.loss(backbone, FIVE)
    assert loss.labels.tolist() == [[1], [END], [IGNORE], [2], [0]]
    fed = [[*prompt, row[0]] for prompt, row in zip(FIVE.prompts.tolist(), FIVE.answers.tolist(), strict=True)]
    logits = backbone.logits(backbone(torch.tensor(fed)))[:, -1]
    costs = [surprise(logits[i], label) for i, label in ((0, 1), (1, END), (3, 2), (4, 0))]
    assert torch.allclose(loss.total, torch.stack(costs).mean(), atol=1e-5)


# multi_token


def test_heads_ask_nothing_after_the_end() -> None:
    objective, backbone = attached(MultiToken, WORDS, k=3)
    parts = objective.loss(backbone, FIVE).parts
    assert list(parts) == ["next_token", "ahead_1", "ahead_2"]
    for ahead, name in enumerate(parts):
        costs = []
        for length, row in apart(FIVE):
            answer = row.answers[0].tolist()
            trunk = backbone(torch.cat([row.prompts, row.answers[:, :-1]], 1), before_norm=True)
            logits = backbone.logits(backbone.norm(objective.heads[ahead](trunk)))[0, -length:]
            costs += [surprise(logits[i], label) for i, label in enumerate(answer[ahead:])]
        assert len(costs) == sum(max(length - ahead, 0) for length in LENGTHS)
        assert torch.allclose(parts[name], torch.stack(costs).mean(), atol=1e-5)


def test_head_that_has_nothing_to_ask_costs_nothing() -> None:
    objective, backbone = attached(MultiToken, WORDS, k=3)
    loss = objective.loss(backbone, problems([], []))
    assert loss.parts["ahead_1"] == loss.parts["ahead_2"] == 0
    assert loss.total == loss.parts["next_token"] > 0
    loss.total.backward()
    for name, parameter in [*backbone.named_parameters(), *objective.named_parameters()]:
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


# any_order


@given(seeds)
def test_any_order_hides_and_asks_no_place_after_the_end(seed: int) -> None:
    objective, backbone = attached(AnyOrder, WORDS)
    batch = WORDS.sample(16, generator("tests", seed))
    torch.manual_seed(seed)
    losses: list[Loss] = []
    (seen,) = read_by(backbone, lambda: losses.append(objective.loss(backbone, batch)))
    fed, labels = seen[:, 3:], losses[0].labels
    asked = labels != IGNORE
    assert not (asked & ~batch.mask).any()
    assert asked.any(1).all()  # of each problem something is
    assert torch.equal(labels[asked], batch.answers[asked])
    assert (fed[asked | ~batch.mask] == BLANK).all()
    shown = batch.mask & ~asked
    assert torch.equal(fed[shown], batch.answers[shown])
    assert losses[0].total.isfinite()


@pytest.mark.parametrize("mean", ["example", "token"])
def test_any_order_by_hand(mean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of [3, 1] with its end two of three are hidden, of [2] the end, of [] all there is."""
    objective, backbone = attached(AnyOrder, WORDS, mean=mean)
    batch = FIVE.rows(slice(3))
    tokens = torch.tensor([[0.9, 0.6, 0.3, 0.1, 0.2], [0.8, 0.7, 0.0, 0.0, 0.0], [0.9, 0.0, 0.0, 0.0, 0.0]])
    draws = iter([tokens, torch.tensor([[0.5], [0.1], [0.1]])])  # of each token, and the rates
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: next(draws))
    losses: list[Loss] = []
    (seen,) = read_by(backbone, lambda: losses.append(objective.loss(backbone, batch)))
    assert seen[:, 3:].tolist() == [[3, *[BLANK] * 4], [2, *[BLANK] * 4], [BLANK] * 5]
    assert losses[0].labels.tolist() == [[X, 1, END, X, X], [X, END, X, X, X], [END, X, X, X, X]]
    logits = backbone.logits(backbone(seen, causal=False))[:, -5:]
    one, two = surprise(logits[0, 1], 1), surprise(logits[0, 2], END)
    others = [surprise(logits[1, 1], END), surprise(logits[2, 0], END)]
    costs = [one, two, *others] if mean == "token" else [(one + two) / 2, *others]
    assert torch.allclose(losses[0].total, torch.stack(costs).mean(), atol=1e-5)


# belief_state, token_order, future_summary, next_latent: a batch is the weighed mean over its problems

PLACES: dict[type[Objective], dict[str, Callable[[int], float]]] = {
    BeliefState: {
        "after_prefix": lambda n: n * (n + 1) / 2,
        "before_suffix": lambda n: n * (n + 1) / 2,
    },
    TokenOrder: {"next_token": lambda n: n, "order": lambda n: n},
    FutureSummary: {"next_token": lambda n: n, "summary": lambda n: n - 1},
}
"""How many places of an answer of length n each part is the mean of."""


@pytest.mark.parametrize("kind", PLACES)
def test_loss_of_a_batch_is_the_mean_over_the_places_of_its_problems(kind: type[Objective]) -> None:
    objective, backbone = attached(kind, WORDS)
    whole = objective.loss(backbone, FIVE)
    alone = [(length, objective.loss(backbone, row)) for length, row in apart(FIVE)]
    assert set(whole.parts) == set(PLACES[kind])
    for name, places in PLACES[kind].items():
        weights = torch.tensor([places(length) for length, _ in alone])
        parts = torch.stack([loss.parts[name] for _, loss in alone])
        assert torch.allclose(whole.parts[name], (weights * parts).sum() / weights.sum(), rtol=1e-5, atol=1e-5), name
    assert torch.allclose(whole.total, torch.stack(list(whole.parts.values())).sum())
    # the accuracy in training is of the same answers, too
    assert whole.labels.tolist() == WRITTEN[TeacherForcing]
    for i, (length, loss) in enumerate(alone):
        assert torch.allclose(whole.logits[i, :length], loss.logits[0], atol=1e-4)


def test_next_latent_of_a_batch_is_the_mean_over_the_places_of_its_problems() -> None:
    """For each distance ahead over the places that have one so far ahead, and then over the distances."""
    horizon = 3
    objective, backbone = attached(NextLatent, WORDS, horizon=horizon)
    plain = TeacherForcing()
    plain.attach(WORDS, backbone)
    whole = objective.loss(backbone, FIVE)
    assert torch.equal(whole.parts["next_token"], plain.loss(backbone, FIVE).total)
    found: dict[str, list[list[tuple[int, Tensor]]]] = {
        name: [[] for _ in range(horizon)] for name in ("latent", "divergence")
    }
    for length, row in apart(FIVE):
        means = {name: torch.tensor(0.0) for name in found}
        for ahead in range(1, min(horizon, length - 1) + 1):
            objective.steps = ahead
            loss = objective.loss(backbone, row)
            for name, of_distance in found.items():  # the mean over 1 ... ahead, less what was there before
                part = loss.parts[name] * ahead - means[name]
                of_distance[ahead - 1].append((length - ahead, part))
                means[name] = means[name] + part
    for name, of_distance in found.items():
        assert [sum(places for places, _ in each) for each in of_distance] == [10, 6, 3]
        by_distance = [sum(places * part for places, part in each) / sum(p for p, _ in each) for each in of_distance]
        assert torch.allclose(whole.parts[name], torch.stack(by_distance).mean(), rtol=1e-4, atol=1e-5), name


def test_next_latent_by_hand() -> None:
    objective, backbone = attached(NextLatent, WORDS, horizon=4)
    batch = FIVE.rows(slice(3))  # of lengths 3, 2 and 1: nothing is three ahead, or four
    parts = objective.loss(backbone, batch).parts
    embedded = backbone.tokens.weight
    apart_by: dict[int, list[Tensor]] = {ahead: [] for ahead in range(1, 5)}
    for length, row in apart(batch):
        hidden = backbone(torch.cat([row.prompts, row.answers[:, :-1]], 1))[0, -length:]
        for first in range(length):
            guess = hidden[first]
            for ahead in range(1, length - first):
                token = embedded[row.answers[0, first + ahead - 1]]
                guess = guess + objective.mlp(objective.norm(torch.cat([guess, token])))
                apart_by[ahead].append(F.smooth_l1_loss(guess, hidden[first + ahead]))
    assert [len(each) for each in apart_by.values()] == [3, 1, 0, 0]
    by_distance = [torch.stack(each).mean() if each else torch.tensor(0.0) for each in apart_by.values()]
    assert torch.allclose(parts["latent"], torch.stack(by_distance).mean(), atol=1e-5)


def test_ranking_is_of_the_tokens_up_to_the_end() -> None:
    found = shares_of(FIVE.mask)
    for i, (length, _) in enumerate(apart(FIVE)):
        assert torch.allclose(found[i, :length, :length], shares(length), atol=1e-6)
        assert (found[i, :, length:] == 0).all()
        assert (found[i, length:] == 0).all()


def test_bags_hold_the_tokens_up_to_the_end() -> None:
    found = bags(FIVE.answers, V, FIVE.mask)
    held = [[set(row.nonzero().flatten().tolist()) for row in each] for each in found]
    assert held == [
        [{1, END}, {END}, set(), set()],
        [{END}, set(), set(), set()],
        [set(), set(), set(), set()],
        [{2, 3, 4, END}, {3, 4, END}, {4, END}, {END}],
        [{0, 6, END}, {6, END}, {END}, set()],
    ]


def test_belief_state_reads_suffixes_from_the_end_token_on() -> None:
    objective, _ = attached(BeliefState, WORDS)
    suffixes = objective.suffixes(FIVE.answers)
    for i, (length, row) in enumerate(apart(FIVE)):
        answer = row.answers[0].tolist()
        for place in range(length):
            tokens = [BLANK, *reversed(answer[place + 1 :])]
            expected = objective.backward_encoder(torch.tensor([tokens]))[0, -1]
            assert torch.allclose(suffixes[i, place], expected, atol=1e-5)
