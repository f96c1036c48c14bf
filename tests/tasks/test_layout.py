"""How problems are written down: every knob, and that none of them changes what nextfail drew before it had them."""

import hashlib
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from helpers import SMALL, drawn, graphs, rows, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from nextfail.errors import UserError
from nextfail.seeding import generator
from nextfail.tasks import Batch, PathStar
from nextfail.tasks.data import DrawnData, shuffled_batch

CHOICES = {
    "query": ("after", "before"),
    "edges": ("shuffled", "by_arm", "parents_first"),
    "direction": ("away", "random"),
    "edges_as": ("triples", "tokens"),
}

ALPHA = 1e-6  # significance of the chi-square tests; draws are seeded, so that none fails by bad luck


@st.composite
def written(draw: st.DrawFn) -> PathStar:
    """Graphs of many sizes, written down in every way."""
    return replace(draw(graphs()), **{key: draw(st.sampled_from(values)) for key, values in CHOICES.items()})


def data(graph: PathStar = SMALL, **settings: object) -> DrawnData:
    usual = {"train": 60, "validation": 10, "test": 10, "seed": 0, "batch_size": 12, "eval_batch_size": 10}
    made = DrawnData(graph, **{**usual, "run_seed": 0, **settings})
    made.setup()
    return made


def arms_of(graph: PathStar, edges: list[list[int]], start: int) -> list[list[int]]:
    """Edges in the order of the prompt, each with its node nearer to the start first, put into arms by walking."""
    near = {
        node: [other for edge in edges if node in edge for other in edge if other != node] for e in edges for node in e
    }
    arms = []
    for hop in near[start]:
        arm = [start, hop]
        while len(arm) < graph.path_length:
            arm += [node for node in near[arm[-1]] if node != arm[-2]]
        arms.append(arm)
    return arms


# what was drawn before there was a choice


def digest(batch: Batch) -> str:
    both = (batch.prompts.long().numpy().tobytes(), batch.answers.long().numpy().tobytes())
    return hashlib.sha256(b"".join(both)).hexdigest()[:16]


def test_problems_are_bit_for_bit_those_of_the_first_version() -> None:
    graph = PathStar(2, 5, 50)
    assert digest(graph.sample(1000, generator("tests", 0))) == "c2a161aa78f8107e"
    settings = {"validation": 20, "test": 20, "batch_size": 128, "eval_batch_size": 100}
    fixed, online = (data(graph, train=train, **settings) for train in (300, None))
    for each in (fixed, online):
        assert [digest(batch) for batch in (each.test, each.validation)] == ["c39b121840f9ea87", "f49c474c56739488"]
    assert [digest(fixed.train_batch(k)) for k in (0, 3)] == ["cdf00eae96db0a53", "9c0b4ca92ae8d1a8"]
    assert [digest(online.train_batch(k)) for k in (0, 3)] == ["7afb4b606c747b0c", "2a683b9be0f1b6f3"]


# the query


def test_query_by_hand() -> None:
    edges = torch.tensor([[[7, 1], [3, 9], [1, 4], [7, 3]]])
    start, goal = torch.tensor([7]), torch.tensor([4])
    bar, equals, slash = 10, 11, 12
    after = [7, 1, bar, 3, 9, bar, 1, 4, bar, 7, 3, slash, 7, 4, equals]
    before = [7, 4, slash, 7, 1, bar, 3, 9, bar, 1, 4, bar, 7, 3, equals]
    assert SMALL.vocab.layout(edges, start, goal).tolist() == [after]
    assert SMALL.vocab.layout(edges, start, goal, "after").tolist() == [after]
    assert SMALL.vocab.layout(edges, start, goal, "before").tolist() == [before]


@given(written(), seeds)
def test_split_undoes_layout(graph: PathStar, seed: int) -> None:
    prompts = graph.sample(3, generator("tests", seed)).prompts
    assert prompts.shape == (3, graph.prompt_length)
    assert torch.equal(graph.vocab.layout(*graph.vocab.split(prompts), graph.query), prompts)
    if graph.edges_as == "triples":
        slash = 2 if graph.query == "before" else -4
        assert prompts[:, slash].tolist() == [graph.vocab.slash] * 3


@given(graphs(), seeds)
def test_query_and_order_change_nothing_else(graph: PathStar, seed: int) -> None:
    """Same draws, other writing: keys, starts, goals and paths are the same."""
    one, other = (replace(graph, query=query).sample(3, generator("tests", seed)) for query in CHOICES["query"])
    assert not torch.equal(one.prompts, other.prompts)
    assert torch.equal(graph.keys(one), graph.keys(other))
    assert torch.equal(one.answers, other.answers)
    for left, right in zip(graph.vocab.split(one.prompts), graph.vocab.split(other.prompts), strict=True):
        assert torch.equal(left, right)


@given(graph=written(), seed=seeds)
@settings(max_examples=20)
def test_text_files_are_read_as_the_task_writes(
    graph: PathStar, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Lines are as published, whatever the prompt; an edge of theirs always leads away from the start."""
    graph = replace(graph, direction="away")
    batch = graph.sample(3, generator("tests", seed))
    path = tmp_path_factory.mktemp("layout") / "problems.txt"
    path.write_text("".join(f"{line}\n" for line in graph.lines(batch)))
    again = graph.read(path)
    assert torch.equal(again.prompts, batch.prompts)
    assert torch.equal(again.answers, batch.answers)
    assert again.mask.all()
    assert list(replace(graph, query="after", edges_as="triples").read(path).prompts.shape) == [
        3,
        3 * graph.num_edges + 3,
    ]


@given(graph=written(), copies=st.integers(2, 3), seed=seeds)
@settings(max_examples=20)
def test_copies_of_the_edges_change_the_prompt_alone(
    graph: PathStar, copies: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Same draws, the edges written several times: keys, answers, lines and examples are the same."""
    graph = replace(graph, direction="away")
    more = replace(graph, copies=copies)
    one, many = (each.sample(3, generator("tests", seed)) for each in (graph, more))
    edges, starts, goals = graph.vocab.split(one.prompts)
    repeated = graph.vocab.split(many.prompts)
    assert torch.equal(repeated[0], torch.cat([edges] * copies, 1))
    assert torch.equal(repeated[1], starts) and torch.equal(repeated[2], goals)
    assert many.prompts.shape[1] == more.prompt_length
    assert torch.equal(more.keys(many), graph.keys(one))
    assert torch.equal(many.answers, one.answers)
    assert more.example(many, many.answers) == graph.example(one, one.answers)
    path = tmp_path_factory.mktemp("layout") / "problems.txt"
    path.write_text("".join(f"{line}\n" for line in more.lines(many)))
    assert path.read_text() == "".join(f"{line}\n" for line in graph.lines(one))
    assert torch.equal(more.read(path).prompts, many.prompts)


def test_copies_by_hand() -> None:
    """G(2,3) as in the docstring of vocab.py, with the edges twice."""
    edges = torch.tensor([[[7, 1], [1, 4], [7, 3], [3, 9]]])
    graph = PathStar(2, 3, 10, copies=2)
    batch = graph._written(edges, torch.tensor([7]), torch.tensor([4]), torch.tensor([[7, 1, 4]]))
    once = "7 1 | 1 4 | 7 3 | 3 9"
    assert " ".join(graph.vocab.texts[each] for each in batch.prompts[0]) == f"{once} | {once} / 7 4 ="


# the edges


@given(written(), seeds)
def test_every_layout_is_a_path_star(graph: PathStar, seed: int) -> None:
    batch = graph.sample(3, generator("tests", seed))
    edges, starts, goals = graph.vocab.split(batch.prompts)
    for row, start, goal, path in zip(
        edges.tolist(), starts.tolist(), goals.tolist(), batch.answers.tolist(), strict=True
    ):
        arms = arms_of(graph, row, start)
        assert len(row) == graph.num_edges
        assert len({node for arm in arms for node in arm}) == graph.size
        assert path in arms
        assert path[-1] == goal


@given(graphs(), st.sampled_from(CHOICES["query"]), st.sampled_from(CHOICES["direction"]), seeds)
def test_order_of_edges(graph: PathStar, query: str, direction: str, seed: int) -> None:
    for order in ("by_arm", "parents_first"):
        ordered = replace(graph, query=query, edges=order, direction=direction)
        prompts = ordered.sample(3, generator("tests", seed)).prompts
        edges, starts, _ = graph.vocab.split(prompts)
        for row, start in zip(edges.tolist(), starts.tolist(), strict=True):
            place = {frozenset(edge): i for i, edge in enumerate(row)}
            for arm in arms_of(graph, row, start):
                places = [place[frozenset(edge)] for edge in pairwise(arm)]
                assert places == sorted(places)
                if order == "by_arm":
                    assert places == list(range(places[0], places[0] + len(places)))


def counts(labels: list[object]) -> Tensor:
    return torch.tensor([labels.count(each) for each in sorted(set(labels))])


@pytest.mark.parametrize(("order", "number"), [("shuffled", 24), ("by_arm", 2), ("parents_first", 6)])
def test_every_order_is_equally_likely(order: str, number: int) -> None:
    """G(2,3) has 4! orders of its edges, 2! of whole arms, and 4!/(2! 2!) in which no edge precedes its parent."""
    seen = [tuple(row) for row in replace(SMALL, edges=order)._order(6000, generator("tests", 0)).tolist()]
    found = counts(seen)
    assert len(found) == number
    assert chisquare(found).pvalue > ALPHA


def test_direction_is_a_fair_coin_for_every_edge() -> None:
    batch = replace(SMALL, direction="random").sample(4000, generator("tests", 0))
    plain = SMALL.sample(4000, generator("tests", 0))
    edges, _, _ = SMALL.vocab.split(batch.prompts)
    usual, _, _ = SMALL.vocab.split(plain.prompts)
    turned = (edges != usual).any(-1)
    assert torch.equal(torch.where(turned.unsqueeze(-1), edges.flip(-1), edges), usual)
    patterns = counts([tuple(row) for row in turned.tolist()])
    assert len(patterns) == 16
    assert chisquare(patterns).pvalue > ALPHA


# several goals of a graph


@given(written(), seeds, st.data())
def test_problems_of_one_graph_differ_by_the_goal_alone(graph: PathStar, seed: int, draw: st.DataObject) -> None:
    goals = draw.draw(st.integers(1, graph.degree))
    batch = graph.sample(2 * goals, generator("tests", seed), goals)
    edges, starts, ends = graph.vocab.split(batch.prompts)
    assert len(batch.answers) == 2 * goals
    for first in (0, goals):
        same = slice(first, first + goals)
        assert (edges[same] == edges[first]).all()
        assert (starts[same] == starts[first]).all()
        assert len(set(ends[same].tolist())) == goals
    assert torch.equal(batch.answers[:, -1], ends)
    if goals > 1:
        assert not torch.equal(edges[0], edges[goals])


@pytest.mark.parametrize("train", [60, None])
def test_training_batches_hold_whole_graphs_and_held_out_sets_do_not(train: int | None) -> None:
    graph = PathStar(3, 3, 20, goals=3)
    made = data(graph, train=train)
    for k in (0, 1, 6):  # of 60 problems, batches of 12 end an epoch after five
        batch = made.train_batch(k)
        keys = graph.keys(batch).view(4, 3)
        assert (keys == keys[:, :1]).all()
        assert len(keys.unique()) == 4
        assert all(len(set(row)) == 3 for row in batch.prompts[:, -2].view(4, 3).tolist())
    held_out = torch.cat([graph.keys(made.test), graph.keys(made.validation)])
    assert len(held_out.unique()) == 20  # independent graphs
    for k in range(20):
        assert not torch.isin(graph.keys(made.train_batch(k)), held_out).any()


def test_redrawing_keeps_goals_together() -> None:
    """So few graphs that many clash with what is held out."""
    graph = PathStar(2, 3, 6, goals=2)
    made = data(graph, train=None, validation=90, test=90)
    held_out = torch.cat([graph.keys(made.test), graph.keys(made.validation)])
    for k in range(30):
        keys = graph.keys(made.train_batch(k)).view(6, 2)
        assert (keys[:, 0] == keys[:, 1]).all()
        assert not torch.isin(keys, held_out).any()


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), seeds)
def test_epochs_hold_every_problem_once(number: int, size: int, together: int, seed: int) -> None:
    problems = drawn(SMALL, number * together)
    tags = Batch.full(torch.arange(number * together).unsqueeze(1).expand(-1, 15), problems.answers)
    order = [
        int(row[0]) for k in range(3 * number) for row in rows(shuffled_batch(tags, k, size * together, seed, together))
    ]
    for first in range(0, len(order) - number * together + 1, number * together):
        assert sorted(order[first : first + number * together]) == list(range(number * together))
    for first in range(0, len(order), together):
        assert order[first : first + together] == list(range(order[first], order[first] + together))


# mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"query": "left"}, r"task\.query='left' is unknown: choose after or before"),
        ({"edges": "sorted"}, r"task\.edges='sorted' is unknown: choose shuffled, by_arm or parents_first"),
        ({"direction": None}, r"task\.direction=null is unknown: choose away or random"),
        ({"edges_as": "pairs"}, r"task\.edges_as='pairs' is unknown: choose triples or tokens"),
        ({"goals": 3}, r"task\.goals=3: G\(2,3\) has 1 to 2 different goals"),
        ({"goals": 0}, r"task\.goals=0 is not a whole number of at least 1"),
        ({"goals": 1.0}, r"task\.goals=1\.0 is not a whole number"),
        ({"goals": True}, r"task\.goals=true is not a whole number"),
    ],
)
def test_what_cannot_be_is_said(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(SMALL, **settings)


@pytest.mark.parametrize("key", ["batch_size", "train"])
def test_sizes_that_would_part_a_graph_are_refused(key: str) -> None:
    message = rf"data\.{key}=61 is not a multiple of 2, and G\(2,3\) samples this many problems together"
    with pytest.raises(UserError, match=message):
        data(replace(SMALL, goals=2), **{key: 61})
    with pytest.raises(UserError, match="5 problems are not a multiple of 2 goals"):
        SMALL.sample(5, generator("tests", 0), 2)


def test_published_is_the_default() -> None:
    assert PathStar(2, 3, 10, "after", "shuffled", "away", "triples", 1) == SMALL
    assert data().task == SMALL
