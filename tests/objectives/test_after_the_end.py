"""What stands after the end token changes nothing: neither loss, gradient, decoding nor score."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import attached, quiet_trainer, trainable
from torch import Tensor
from torch.nn import functional as F
from words import BLANK, END, EQUALS, FIVE, WORDS, V, Words, apart, junk, problems

from nextfail.models import Backbone
from nextfail.objectives import (
    ALL,
    AnyOrder,
    BeliefState,
    FirstHopOnly,
    MultiToken,
    Objective,
    Reverse,
    Scratchpad,
    TeacherForcing,
    TokenMasking,
)
from nextfail.seeding import generator
from nextfail.tasks import Batch
from nextfail.tasks.data import DrawnData
from nextfail.training.metrics import AnswerMetrics


def lossy(objective: Objective, backbone: Backbone, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients, by the same chance each time."""
    torch.manual_seed(0)
    for owner in (objective, backbone):
        owner.zero_grad()
    total = objective.loss(backbone, batch).total
    total.backward()
    named = [*objective.named_parameters(), *backbone.named_parameters(prefix="backbone")]
    return total.detach(), {name: p.grad.clone() for name, p in named if p.grad is not None}


def assert_same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert torch.allclose(one[0], other[0], rtol=1e-6, atol=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert torch.allclose(gradient, other[1][name], rtol=1e-4, atol=1e-5), name


def has_hop(kind: type[Objective], batch: Batch) -> Batch:
    """For first_hop_only the problems that have a token there alone."""
    return batch.rows(batch.mask[:, 1].nonzero().flatten()) if kind is FirstHopOnly else batch


@pytest.mark.parametrize("kind", ALL)
def test_what_stands_after_the_end_changes_neither_loss_nor_gradient(kind: type[Objective]) -> None:
    objective, backbone = attached(kind, WORDS)
    batch = has_hop(kind, Batch.join([FIVE, WORDS.sample(11, generator("tests", 0))]))
    usual = lossy(objective, backbone, batch)
    assert usual[0].isfinite()
    assert usual[0] > 0
    assert all(gradient.isfinite().all() for gradient in usual[1].values())
    for seed in range(3):
        assert_same(usual, lossy(objective, backbone, junk(batch, seed)))


def test_random_tokens_are_those_before_the_end_of_an_answer() -> None:
    objective, backbone = attached(TokenMasking, WORDS, m=0.5, random=0.5)
    batch = Batch.join([FIVE, WORDS.sample(11, generator("tests", 0))])
    usual = lossy(objective, backbone, batch)
    for seed in range(3):
        assert_same(usual, lossy(objective, backbone, junk(batch, seed)))


@torch.no_grad()
def test_confident_decoding_puts_nothing_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the model was trained on nothing, however sure it is."""
    objective, backbone = attached(AnyOrder, WORDS, decode="confident")
    logits = torch.zeros(5, V)
    logits[torch.arange(5), torch.tensor([3, END, 5, 6, 7])] = torch.tensor([4.0, 6.0, 9.0, 8.0, 7.0])
    monkeypatch.setattr(backbone, "logits", lambda hidden: logits.expand(len(hidden), -1, -1))
    read: list[Tensor] = []
    monkeypatch.setattr(objective, "states", lambda backbone, prompts, paths: read.append(paths) or prompts)
    answers = objective.generate(backbone, FIVE.prompts, 5)
    assert [paths[0].tolist() for paths in read] == [[BLANK] * 5, [BLANK, END, *[BLANK] * 3]]
    assert answers[:, :2].eq(torch.tensor([3, END])).all()


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not AnyOrder])
def test_more_room_changes_neither_loss_nor_gradient(kind: type[Objective], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of any_order, which sees how much room there is."""
    chance = torch.rand(16, 7, generator=generator("tests", 1))
    monkeypatch.setattr(torch, "rand", lambda shape, **_: chance[: shape[0], : shape[1]])
    objective, backbone = attached(kind, Words(7))
    batch = has_hop(kind, Batch.join([FIVE, WORDS.sample(11, generator("tests", 0))]))
    room = torch.full_like(batch.answers[:, :2], END)
    more = Batch(batch.prompts, torch.cat([batch.answers, room], 1), F.pad(batch.mask, (0, 2)))
    assert_same(lossy(objective, backbone, batch), lossy(objective, backbone, more))


@pytest.mark.parametrize("kind", ALL)
def test_answers_that_are_nothing_but_their_end_are_learned_from(kind: type[Objective]) -> None:
    objective, backbone = attached(kind, WORDS)
    total, gradients = lossy(objective, backbone, problems([], []))
    assert total.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


# decoding


def speaking(objective: Objective, backbone: Backbone, tokens: list[list[int]]) -> list[int]:
    """Let every answer be as said, whatever the model thinks; how many tokens were asked for, each time."""
    script, asked = torch.tensor(tokens), [0]

    def answer(backbone: Backbone, hidden: Tensor) -> Tensor:
        first, count = sum(asked), hidden.shape[1]
        asked.append(count)
        return F.one_hot(script[:, first : first + count], V).float()

    objective.answer = answer
    return asked


def test_decoding_stops_once_all_have_ended() -> None:
    objective, backbone = attached(TeacherForcing, WORDS)
    asked = speaking(objective, backbone, [[5, END, 7, 1, 1], [6, 7, END, 1, 1], [END, 2, END, 1, 1]])
    steps: list[int] = []
    step = backbone.step

    def counted(tokens: Tensor, *more: Any, **named: Any) -> Any:
        steps.append(tokens.shape[1])
        return step(tokens, *more, **named)

    backbone.step = counted
    found = objective.generate(backbone, FIVE.prompts[:3], 5)
    assert found.tolist() == [[5, END, 7, END, END], [6, 7, END, END, END], [END, 2, END, END, END]]
    assert asked[1:] == [1, 1, 1]
    assert steps == [3, 1, 1]  # the prompt, and each token that another one was asked after


def test_decoding_goes_on_until_all_have_ended() -> None:
    objective, backbone = attached(TeacherForcing, WORDS)
    asked = speaking(objective, backbone, [[5, END, 7, 1, 1], [6, 7, 1, 1, 1]])
    found = objective.generate(backbone, FIVE.prompts[:2], 5)
    assert found.tolist() == [[5, END, 7, 1, 1], [6, 7, 1, 1, 1]]
    assert asked[1:] == [1] * 5


def test_reverse_is_read_from_what_it_wrote_before_its_end() -> None:
    objective, backbone = attached(Reverse, WORDS)
    speaking(objective, backbone, [[1, 3, END, 7, 7], [4, 3, 2, 1, END], [END, 6, 6, 6, 6]])
    found = objective.generate(backbone, FIVE.prompts[:3], 5)
    assert [row[: row.index(END)] for row in found.tolist()] == [[3, 1], [1, 2, 3, 4], []]


def test_scratchpad_is_read_after_its_first_separator() -> None:
    objective, backbone = attached(Scratchpad, WORDS)
    speaking(objective, backbone, [[1, 3, EQUALS, 3, 1, END, *[7] * 5], [4, 3, 2, 1, EQUALS, 1, 2, 3, 4, END, 7],
                                   [EQUALS, END, *[6] * 9]])  # fmt: skip
    found = objective.generate(backbone, FIVE.prompts[:3], 5)
    assert [row[: row.index(END)] for row in found.tolist()] == [[3, 1], [1, 2, 3, 4], []]


def test_score_ignores_what_comes_after_the_end() -> None:
    batch = FIVE.rows(torch.tensor([0, 0, 0, 0, 0, 2, 2, 3]))
    said = [
        [3, 1, END, END, END],
        [3, 1, END, 5, 0],
        [3, 1, 2, END, END],  # its end comes too late
        [3, END, END, END, END],  # or too early
        [0, 1, END, END, END],
        [END, 4, 4, 4, 4],
        [4, END, END, END, END],
        [1, 2, 3, 4, 5],  # or never
    ]
    right, asked = WORDS.score(torch.tensor(said), batch)["exact_match"]
    assert right.tolist() == [True, True, False, False, False, True, False, False]
    assert asked.all()


# the place of what was predicted, where all before it is true


@pytest.mark.parametrize("kind", [TeacherForcing, Reverse, Scratchpad, MultiToken, BeliefState, TokenMasking])
@torch.no_grad()
def test_forced_predictions_stand_at_the_places_that_they_are_of(kind: type[Objective]) -> None:
    """Each token by itself, from the true ones before it; wherever the model would have ended."""
    objective, backbone = attached(kind, WORDS)
    batch = WORDS.sample(32, generator("tests", 0))
    for forced in (objective.forced(backbone, batch), objective.predict(backbone, batch).forced):
        assert forced is not None
        for found, (length, row) in zip(forced.tolist(), apart(batch), strict=True):
            written = objective.write(row.answers)
            if kind is MultiToken:
                alone = objective.forced(backbone, row)
            else:
                alone = objective.answer(backbone, objective.states(backbone, row.prompts, written)).argmax(-1)
            *digits, end = alone[objective.counts(written)].tolist()[-length:]  # of scratchpad's after the separator
            assert found[:length] == [*(reversed(digits) if kind is Reverse else digits), end]


# all together


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not FirstHopOnly])
def test_a_model_that_knows_the_answers_ends_them(kind: type[Objective]) -> None:
    torch.manual_seed(0)
    objective, backbone = attached(kind, WORDS)
    optimizer = torch.optim.Adam([*backbone.parameters(), *objective.parameters()], lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        objective.loss(backbone, FIVE).total.backward()
        optimizer.step()
    metrics = AnswerMetrics(WORDS)
    metrics.update(objective.predict(backbone, FIVE), FIVE)
    found = metrics.compute()
    assert found["exact_match"]["value"] == 1
    assert [(each["value"], each["n"]) for each in found["token_accuracy"]] == [(1, 5), (1, 4), (1, 3), (1, 2), (1, 1)]
    if found["forced_token_accuracy"] is not None:
        assert found["forced_token_accuracy"] == found["token_accuracy"]
    assert found["rest"] is None or found["rest"]["value"] == 1


@pytest.mark.parametrize("kind", [TeacherForcing, Scratchpad])
def test_a_run_on_it(kind: type[Objective], tmp_path: Path) -> None:
    module = trainable(kind(), WORDS)
    data = DrawnData(WORDS, train=24, validation=10, test=10, batch_size=8, eval_batch_size=4, run_seed=0)
    trainer = quiet_trainer(tmp_path, 4, val_check_interval=4)
    trainer.fit(module, datamodule=data)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    trainer.test(module, datamodule=data, verbose=False)
    assert data.test is not None
    assert [each["n"] for each in module.results["token_accuracy"]] == data.test.mask.sum(0).tolist()
    assert module.results["exact_match"]["n"] == 10
    for batch in (data.train_batch(1), data.test, data.validation):  # also after what clashed was drawn again
        ends = batch.answers == END
        assert torch.equal(batch.mask, ends.cumsum(1) - ends.long() == 0)
        assert torch.equal(ends.any(1), torch.ones(len(ends), dtype=torch.bool))
