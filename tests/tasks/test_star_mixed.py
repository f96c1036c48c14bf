"""Star graphs of several lengths: drawn as they should be, told apart, and scored up to their end."""

from itertools import pairwise
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nextfail.errors import UserError
from nextfail.seeding import generator
from nextfail.tasks import Batch
from nextfail.tasks.data import DrawnData
from nextfail.tasks.path_star.task import PathStar
from nextfail.tasks.star_mixed.task import StarMixed

SMALL = StarMixed(2, 3, 4, 10)
sizes = st.builds(
    lambda degree, shortest, more, spare, goal, edges_as: StarMixed(
        degree, shortest, shortest + more, 1 + degree * (shortest + more - 1) + spare, goal, edges_as
    ),
    st.integers(2, 4), st.integers(3, 5), st.integers(0, 3), st.integers(0, 20), st.sampled_from(["leaf", "any"]),
    st.sampled_from(["triples", "tokens"]),
)  # fmt: skip


def problems(task: StarMixed, batch: Batch) -> list[tuple[list[tuple[int, int]], int, int, list[int]]]:
    """Edges, start, goal and path of each problem, read token by token."""
    vocab, found = task.vocab, []
    for prompt, answer in zip(batch.prompts.tolist(), batch.answers.tolist(), strict=True):
        tokens = [token for token in prompt if token != vocab.fill]
        if task.edges_as == "tokens":
            edges = [divmod(-1 - token, task.num_nodes) for token in tokens[:-3]]
        else:
            edges = [(tokens[i], tokens[i + 1]) for i in range(0, len(tokens) - 3, 3)]
        found.append((edges, tokens[-3], tokens[-2], answer[: answer.index(vocab.end)]))
    return found


def test_by_hand() -> None:
    """The example of the docstring."""
    vocab = SMALL.vocab
    bar, equals, slash, end, fill = 10, 11, 12, 14, 15
    assert (vocab.end, vocab.fill, vocab.size) == (end, fill, 16) and vocab.texts[-3:] == ["$", ".", "_"]
    batch = SMALL.sample(200, generator("tests", 0)).long()
    row = next(i for i, prompt in enumerate(batch.prompts.tolist()) if prompt[0] == fill)
    prompt, answer = batch.prompts[row].tolist(), batch.answers[row].tolist()
    assert prompt[:6] == [fill] * 6 and fill not in prompt[6:]
    assert (prompt[8], prompt[11], prompt[14], prompt[17], prompt[20]) == (bar, bar, bar, slash, equals)
    assert answer[0] == prompt[18] and answer[2] == prompt[19] and answer[3:] == [end, end]
    assert batch.mask[row].tolist() == [True, True, True, True, False]


@given(sizes, st.integers(0, 2**32 - 1))
def test_every_problem_is_a_star_and_its_answer_the_path(task: StarMixed, seed: int) -> None:
    batch = task.sample(20, generator("tests", seed)).long()
    assert batch.prompts.shape == (20, task.prompt_length) and batch.answers.shape == (20, task.answer_length)
    for edges, start, goal, path in problems(task, batch):
        assert len(edges) % task.degree == 0
        length = len(edges) // task.degree + 1
        assert task.shortest <= length <= task.longest
        assert len({node for edge in edges for node in edge}) == 1 + task.degree * (length - 1)
        assert sum(tail == start for tail, _ in edges) == task.degree
        assert path[0] == start and path[-1] == goal and set(pairwise(path)) <= set(edges)
        assert 2 <= len(path) <= length and (task.goal == "any" or len(path) == length)
    ends = batch.answers == task.vocab.end
    assert torch.equal(batch.mask, ends.cumsum(1) - ends.long() == 0)
    assert batch.answers.masked_select(~batch.mask).eq(task.vocab.end).all()


def test_lengths_and_goals_are_drawn_evenly() -> None:
    task = StarMixed(2, 3, 5, 50, "any")
    lengths = [len(edges) // 2 + 1 for edges, *_ in problems(task, task.sample(6000, generator("tests", 1)).long())]
    assert all(abs(lengths.count(length) - 2000) < 200 for length in (3, 4, 5))
    batch = StarMixed(2, 5, 5, 50, "any").sample(4000, generator("tests", 2))
    hops = batch.mask.sum(1) - 2
    assert all(abs(int((hops == hop).sum()) - 1000) < 150 for hop in (1, 2, 3, 4))


def test_draws_are_a_function_of_the_generator() -> None:
    one, other = (SMALL.sample(50, generator("tests", 3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@given(sizes, st.integers(0, 2**32 - 1))
def test_keys_are_equal_just_for_the_same_graph(task: StarMixed, seed: int) -> None:
    batch = task.sample(30, generator("tests", seed)).long()
    graphs = [(frozenset(map(frozenset, edges)), start) for edges, start, *_ in problems(task, batch)]
    keys = task.keys(batch).tolist()
    assert [[a == b for b in graphs] for a in graphs] == [[a == b for b in keys] for a in keys]


@given(sizes, st.integers(0, 2**32 - 1))
def test_a_key_does_not_depend_on_other_problems(task: StarMixed, seed: int) -> None:
    batch = task.sample(20, generator("tests", seed)).long()
    alone = torch.cat([task.keys(batch.rows(slice(i, i + 1))) for i in range(20)])
    assert torch.equal(task.keys(batch), alone)


def test_keys_are_those_of_path_star() -> None:
    task, star = StarMixed(2, 5, 5, 50), PathStar(2, 5, 50)
    mixed = task.sample(20, generator("tests", 4)).long()
    plain = Batch.full(mixed.prompts, mixed.answers[:, :5])
    assert torch.equal(task.keys(mixed), star.keys(plain))


def test_score_stops_at_the_end() -> None:
    end = SMALL.vocab.end
    answers = torch.tensor([[7, 1, 4, end, end], [7, 1, 4, 2, end]])
    batch = Batch(torch.zeros(2, SMALL.prompt_length), answers, torch.tensor([[True] * 4 + [False], [True] * 5]))
    decoded = torch.tensor([[7, 1, 4, end, 9], [7, 1, 4, end, 9]])
    scores = SMALL.score(decoded, batch)
    assert scores["exact_match"].right.tolist() == [True, False]
    assert scores["hard_token_accuracy"].right.tolist() == [True, True]
    assert [scores[f"length_{length}_accuracy"].asked.tolist() for length in (3, 4)] == [[True, False], [False, True]]
    assert [scores[f"length_{length}_accuracy"].right.sum().item() for length in (3, 4)] == [1, 0]
    assert SMALL.score(torch.tensor([[7, 1, 4, 9, end]] * 2), batch)["exact_match"].right.tolist() == [False, False]


def test_accuracy_by_length_is_by_the_nodes_of_the_path() -> None:
    task = StarMixed(2, 5, 5, 10, "any")
    assert task.metrics == ("hard_token_accuracy", *(f"length_{nodes}_accuracy" for nodes in (2, 3, 4, 5)))
    batch = task.sample(200, generator("tests", 5)).long()
    scores = task.score(batch.answers, batch)
    paths = [len(path) for *_, path in problems(task, batch)]
    for nodes in (2, 3, 4, 5):
        share = scores[f"length_{nodes}_accuracy"]
        assert share.asked.tolist() == share.right.tolist() == [length == nodes for length in paths]


def test_sets_are_disjoint() -> None:
    data = DrawnData(StarMixed(2, 3, 4, 8), 0, train=300, validation=50, test=50, batch_size=20, eval_batch_size=50)
    data.setup()
    assert data.test is not None and data.validation is not None and data.train is not None
    keys = [set(data.task.keys(each).tolist()) for each in (data.train, data.validation, data.test)]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((2, 4, 3, 50), r"task\.shortest=4 is above task\.longest=3"),
        ((2, 2, 3, 50), r"task\.shortest=2 is not a whole number of at least 3"),
        ((2, 3, 9, 10), r"task\.num_nodes=10 is too small"),
        ((2, 3, 4, 50, "root"), r"task\.goal='root' is unknown: choose leaf or any"),
        ((2, 3.5, 4, 50), r"task\.shortest=3\.5 is not a whole number"),
    ],
)
def test_mistakes(settings: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        StarMixed(*settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("goal", "chance"), [("leaf", 1 / 3), ("any", (1 / 2 + 1 / 3 + 1 / 4) / 3 * 2 / 3 + 1 / 3)])
def test_chance_is_what_a_guess_scores(goal: Literal["leaf", "any"], chance: float) -> None:
    """A guess among the neighbours of the start takes the goal if it is one of them."""
    task, right, count = StarMixed(3, 3, 5, 20, goal), 0.0, 20_000
    for edges, start, end, _ in problems(task, task.sample(count, generator("tests", 0)).long()):
        near = [v for u, v in edges if u == start]
        right += 1.0 if end in near else 1 / len(near)
    assert task.chance == pytest.approx(chance)
    assert right / count == pytest.approx(chance, abs=0.01)


def test_as_many_labels_as_tokens_of_16_bits_allow() -> None:
    most = StarMixed(2, 3, 4, 2**15 - 6)
    assert most.sample(8, generator("tests", 0)).prompts.max() == most.vocab.fill == 2**15 - 1
    with pytest.raises(UserError, match=r"num_nodes=32763 is too large: .* which allows 32762"):
        StarMixed(2, 3, 4, 2**15 - 5)
