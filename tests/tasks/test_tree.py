"""Random trees: drawn as their docstring says, told apart by their keys, and scored choice by choice."""

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nextfail.errors import UserError
from nextfail.reports.style import render
from nextfail.tasks.base import Batch, up_to_end
from nextfail.tasks.tree.examples import examples
from nextfail.tasks.tree.figure import answers as draw
from nextfail.tasks.tree.outcome import judge
from nextfail.tasks.tree.task import Tree

SMALL = Tree(nodes=5, children=2, longest=4, num_nodes=10)
TREE = Tree(nodes=12, children=2, longest=6, num_nodes=50)
EDGES = torch.tensor([[[3, 9], [7, 1], [3, 5], [7, 3]]])  # 7 above 1 and 3, which is above 9 and 5
END = 14


def by_hand() -> Batch:
    prompts = SMALL.vocab.layout(EDGES, torch.tensor([7]), torch.tensor([9]))
    answers = torch.tensor([[7, 3, 9, END, END]])
    return Batch(prompts, answers, up_to_end(answers, END))


def test_the_docstrings_problem() -> None:
    batch = by_hand()
    assert " ".join(SMALL.spell(batch.prompts)[0]) == "3 9 | 7 1 | 3 5 | 7 3 / 7 9 ="
    assert " ".join(SMALL.spell(batch.answers)[0]) == "7 3 9 . ."
    assert batch.prompts.shape[1] == SMALL.prompt_length and batch.answers.shape[1] == SMALL.answer_length
    assert SMALL.ways(batch).tolist() == [[1, 2, 2, 1, 1]]
    assert (SMALL.vocab.end, SMALL.vocab.size, SMALL.vocab.texts[-1]) == (END, 15, ".")


@pytest.mark.parametrize(
    ("decoded", "exact", "first"),
    [
        ([7, 3, 9, END, 0], 1, 1),  # what follows the end does not count
        ([7, 3, 5, END, END], 0, 1),  # the second choice is wrong
        ([7, 1, 9, END, END], 0, 0),
        ([7, 3, 9, 9, END], 0, 1),  # it does not end
    ],
)
def test_answers_are_scored_by_hand(decoded: list[int], exact: int, first: int) -> None:
    scores = SMALL.score(torch.tensor([decoded]), by_hand())
    assert [int(scores[name].right) for name in ("exact_match", "first_choice_accuracy")] == [exact, first]
    forced = SMALL.score_forced(torch.tensor([decoded]), by_hand())
    assert forced["choice_accuracy"].asked.tolist() == [2] and forced["copy_accuracy"].asked.tolist() == [2]
    assert forced["choice_accuracy"].right.tolist() == [(decoded[1] == 3) + (decoded[2] == 9)]
    assert forced["copy_accuracy"].right.tolist() == [1 + (decoded[3] == END)]


sizes = st.builds(
    lambda children, longest, more, seed: (children, longest, more, seed),
    st.integers(2, 4), st.integers(3, 6), st.integers(0, 12), st.integers(0, 2**32),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(sizes, st.sampled_from(["triples", "tokens"]))
def test_every_problem_is_a_tree_with_a_path_to_a_leaf(drawn: tuple[int, int, int, int], edges_as: str) -> None:
    children, longest, more, seed = drawn
    room = sum(children**depth for depth in range(longest))
    nodes = min(max(children + 2 + more, longest), room)
    task = Tree(nodes, children, longest, nodes + more, edges_as)
    batch = task.sample(20, torch.Generator().manual_seed(seed))
    assert batch.prompts.shape == (20, task.prompt_length) and batch.answers.shape == (20, longest + 1)
    assert int(batch.answers.max()) < task.vocab.size
    for item in task.example(batch, batch.answers):
        tails, heads = (Counter(column) for column in zip(*item["edges"], strict=True))
        assert len(item["edges"]) == nodes - 1 and max(tails.values()) <= children
        assert set(heads.values()) == {1} and item["root"] not in heads and {*tails} - {item["root"]} <= {*heads}
        assert item["path"][0] == item["root"] and item["path"][-1] == item["leaf"] and item["leaf"] not in tails
        assert 3 <= len(item["path"]) <= longest
        assert all([tail, head] in item["edges"] for tail, head in pairwise(item["path"]))
        assert item["generated"] == item["path"]
    assert examples(task.example(batch, batch.answers))
    assert torch.equal(batch.mask, up_to_end(batch.answers, task.vocab.end))


def test_shapes_leaves_and_labels_are_as_likely_as_they_should_be() -> None:
    """Trees of 4 nodes with 2 children: node 2 goes below 0 or 1, node 3 below any that has room."""
    task = Tree(4, 2, 4, 4)
    batch = task.sample(60_000, torch.Generator().manual_seed(0))
    lengths = Counter((up_to_end(batch.answers, task.vocab.end).sum(1) - 1).tolist())
    # node 2 below node 0 (1/2): node 3 below 1 or 2, a path of 3; else 0-1-2, and node 3 below 0 or 1 (2/3), a path of
    # 3, or below 2 (1/3), a path of 4
    assert lengths[4] / 60_000 == pytest.approx(1 / 6, abs=0.005) and {*lengths} == {3, 4}
    assert Counter(batch.answers[:, 0].tolist())[2] / 60_000 == pytest.approx(0.25, abs=0.006)
    ways = task.ways(batch)
    assert float((ways[:, 1] == 2).double().mean()) == pytest.approx(1 / 2 + 1 / 6, abs=0.006)  # the root's children


def test_keys_are_those_of_the_tree_whatever_the_order_and_the_leaf() -> None:
    generator = torch.Generator().manual_seed(1)
    batch = TREE.sample(200, generator)
    edges, roots, _ = TREE.vocab.split(batch.prompts.long())
    leaves = edges[:, 0, 1]  # any other node
    shuffled = TREE.vocab.layout(edges[:, torch.randperm(edges.shape[1], generator=generator)], roots, leaves)
    again = batch._replace(prompts=shuffled)
    assert torch.equal(TREE.keys(batch), TREE.keys(again)) and len(TREE.keys(batch).unique()) == 200
    edges[:, 0] = edges[:, 0].flip(-1)
    assert not (TREE.keys(batch) == TREE.keys(batch._replace(prompts=TREE.vocab.layout(edges, roots, leaves)))).any()


def test_problems_drawn_stay_the_same() -> None:
    batch = TREE.sample(1000, torch.Generator().manual_seed(0))
    weights = torch.arange(1, 1 + batch.prompts.numel()).view_as(batch.prompts)
    assert int((batch.prompts.long() * weights).sum() % 1_000_003) == DIGEST
    assert TREE.chance == pytest.approx(CHANCE)


DIGEST, CHANCE = 649150, 0.19046783447265625


def test_with_two_children_every_choice_is_a_guess_of_a_half() -> None:
    assert TREE._guesses[1] == 0.5
    by_choices = 0.5 ** (TREE.ways(TREE.sample(20_000, torch.Generator().manual_seed(5))) > 1).sum(1)
    assert TREE.chance == pytest.approx(float(by_choices.mean()), abs=0.005)


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 2000}


@pytest.mark.parametrize(
    ("exact", "first", "copies", "finite", "outcome"),
    [
        (0.97, 0.98, 1.0, True, "solved"),
        (0.2, 0.5, 0.99, True, "clever_hans"),
        (0.2, 0.5, 0.9, True, "undertrained"),
        (0.2, 0.7, 0.99, True, "undertrained"),
        (0.2, 0.3, 0.99, True, "undertrained"),
        (0.2, 0.5, None, True, "undertrained"),
        (0.97, 0.98, 1.0, False, "diverged"),
    ],
)
def test_outcomes(exact: float, first: float, copies: float | None, finite: bool, outcome: str) -> None:
    metrics = {"exact_match": share(exact), "first_choice_accuracy": share(first),
               "copy_accuracy": None if copies is None else share(copies)}  # fmt: skip
    assert judge(metrics, finite, 0.5) == outcome


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": 3}, r"task\.nodes=3 is not a whole number of at least 4"),
        ({"nodes": 5, "children": 4}, r"task\.nodes=5 is too small: needs at least 6"),
        ({"nodes": 20, "longest": 4}, r"task\.nodes=20 is too large.* has room for 15"),
        ({"longest": 13}, r"task\.longest=13 is too large: a tree has 12 nodes"),
        ({"nodes": "12"}, r"task\.nodes='12' is not a whole number"),
        ({"children": True}, r"task\.children=true is not a whole number"),
        ({"num_nodes": 11}, r"task\.num_nodes=11 is too small: a tree has 12 nodes"),
        ({"num_nodes": 40_000}, r"task\.num_nodes=40000 is too large"),
        ({"num_nodes": 200, "edges_as": "tokens"}, r"task\.num_nodes=200 is too large"),
        ({"edges_as": "pairs"}, r"task\.edges_as='pairs' is unknown: choose triples or tokens"),
    ],
)
def test_sizes_that_are_refused(change: dict[str, Any], message: str) -> None:
    usual = {"nodes": 12, "children": 2, "longest": 6, "num_nodes": 50}
    with pytest.raises(UserError, match=message):
        Tree(**usual | change)


def test_other_sizes_with_the_labels_of_the_model() -> None:
    assert TREE.resized({"nodes": 8, "num_nodes": 99}) == Tree(8, 2, 6, 50)
    with pytest.raises(UserError, match=r"task\.edges_as cannot be changed"):
        TREE.resized({"edges_as": "tokens"})


def test_answers_are_drawn() -> None:
    items = SMALL.example(by_hand(), torch.tensor([[7, 1, 9, END, END]]))
    assert items == [{"edges": EDGES[0].tolist(), "root": 7, "leaf": 9, "path": [7, 3, 9], "generated": [7, 1, 9]}]
    figure = draw(examples(items), "reverse")
    assert figure.axes[0].get_title() == "from 7 to 9: wrong" and len(render(figure)["png"]) > 1000


@pytest.mark.parametrize(
    "change",
    [{"edges": []}, {"edges": [[7, 3], [3, 7]]}, {"edges": [[7, 3], [3, 9], [7, 9]]}, {"root": 3}, {"path": [7, 9]},
     {"path": []}, {"edges": [[7, 3], [3, 9], [1, 2]]}, {"generated": None}, {"leaf": "x"}],
)  # fmt: skip
def test_examples_that_are_no_trees_are_not_drawn(change: dict[str, Any]) -> None:
    (item,) = SMALL.example(by_hand(), by_hand().answers)
    assert examples([item]) and not examples([item | change])
