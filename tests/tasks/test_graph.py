from itertools import pairwise, permutations

import pytest
import torch
from helpers import SMALL, drawn, graphs, hand_batch, identity, keys, rows, seeds
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from nextfail.errors import UserError
from nextfail.seeding import generator
from nextfail.tasks import Batch, PathStar
from nextfail.tasks.sampling import draw_without_replacement

ALPHA = 1e-6  # significance of every chi-square test here; draws are seeded, so that none fails by bad luck
MASK = 2**64 - 1


# sizes


@pytest.mark.parametrize(
    ("degree", "path_length", "num_nodes", "size", "prompt", "sequence"),
    [
        (2, 5, 50, 9, 27, 32),
        (5, 5, 50, 21, 63, 68),
        (10, 5, 50, 41, 123, 128),
        (20, 5, 100, 81, 243, 248),
        (2, 20, 50, 39, 117, 137),
    ],
)
def test_published_sizes(degree: int, path_length: int, num_nodes: int, size: int, prompt: int, sequence: int) -> None:
    graph = PathStar(degree, path_length, num_nodes)
    assert (graph.size, graph.num_edges, graph.prompt_length) == (size, size - 1, prompt)
    assert graph.prompt_length + graph.path_length == sequence
    assert graph.chance == 1 / degree
    assert str(graph) == f"G({degree},{path_length})"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((2, 5, 8), r"task\.num_nodes=8 is too small for G\(2,5\): needs at least 9"),
        ((1, 5, 50), r"task\.degree=1 is not a whole number of at least 2"),
        ((2, 2, 50), r"task\.path_length=2 is not a whole number of at least 3"),
        ((2.0, 5, 50), r"task\.degree=2\.0 is not a whole number"),
        ((2, 5, True), r"task\.num_nodes=true is not a whole number of at least 1"),
        ((2, "5", 50), r"task\.path_length='5' is not a whole number"),
    ],
)
def test_impossible_size_is_refused(sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PathStar(*sizes)


def test_least_number_of_nodes_is_enough() -> None:
    edges, _ = identity(drawn(PathStar(2, 5, 9), 1).prompts[0].tolist())
    assert frozenset.union(*edges) == set(range(9))


# sampling


@given(graphs(), seeds)
def test_every_sample_is_a_path_star(graph: PathStar, seed: int) -> None:
    batch = graph.sample(4, generator("tests", seed))
    assert batch.prompts.shape == (4, graph.prompt_length)
    assert batch.answers.shape == (4, graph.path_length)
    assert batch.prompts.dtype == batch.answers.dtype == graph.vocab.dtype
    for prompt, path in zip(batch.prompts.tolist(), batch.answers.tolist(), strict=True):
        triples, (slash, start, goal, equals) = prompt[:-4], prompt[-4:]
        assert (slash, equals) == (graph.vocab.slash, graph.vocab.equals)
        assert triples[2::3] == [graph.vocab.bar] * (graph.num_edges - 1)
        edges = list(zip(triples[0::3], triples[1::3], strict=True))
        labels = {label for edge in edges for label in edge}
        assert len(labels) == graph.size
        assert labels <= set(range(graph.num_nodes))
        onward = dict(edge for edge in edges if edge[0] != start)
        arms = []
        for hop in (v for u, v in edges if u == start):
            arm = [start, hop]
            while arm[-1] in onward:
                arm.append(onward[arm[-1]])
            arms.append(arm)
        assert [len(arm) for arm in arms] == [graph.path_length] * graph.degree
        assert len(edges) == len(set(edges)) == graph.num_edges
        assert sum(len(arm) - 1 for arm in arms) == graph.num_edges  # every edge lies on an arm
        assert path in arms
        assert path[-1] == goal


def test_sample_depends_on_its_generator_alone() -> None:
    torch.manual_seed(1)
    one = SMALL.sample(50, torch.Generator().manual_seed(0))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = SMALL.sample(50, torch.Generator().manual_seed(0))
    assert rows(one) == rows(again)
    assert torch.equal(before, torch.get_rng_state())
    assert rows(one) != rows(SMALL.sample(50, torch.Generator().manual_seed(1)))


def test_generator_goes_on_between_calls_and_chunks() -> None:
    graph, source = PathStar(2, 5, 50), generator("tests", 0)
    first, second = graph.sample(20_000, source), graph.sample(20_000, source)
    together = rows(first) + rows(second)
    assert len(together) == len(set(together)) == 40_000


def test_no_samples_have_the_right_shape() -> None:
    batch = SMALL.sample(0, generator("tests", 0))
    assert (batch.prompts.shape, batch.answers.shape) == ((0, 15), (0, 3))


# statistics


def assert_uniform(cells: Tensor, number: int) -> None:
    """Cells 0..number-1 are equally likely, at significance ALPHA."""
    assert chisquare(torch.bincount(cells.long(), minlength=number).numpy()).pvalue > ALPHA


def test_ordered_choices_are_uniform() -> None:
    chosen = draw_without_replacement(30_000, 5, 3, generator("tests", 1)).tolist()
    cells = {choice: i for i, choice in enumerate(permutations(range(5), 3))}
    assert_uniform(torch.tensor([cells[tuple(row)] for row in chosen]), 60)


def test_labels_are_uniform() -> None:
    graph = PathStar(2, 4, 11)
    batch = drawn(graph, 40_000, 2)
    for position in range(graph.path_length):
        assert_uniform(batch.answers[:, position], 11)
    start, goal = batch.answers[:, 0], batch.answers[:, -1]
    assert_uniform(start * 10 + goal - (goal > start).long(), 110)  # ordered pairs of different labels


def test_goal_arm_is_uniform() -> None:
    graph = PathStar(4, 3, 20)
    batch = drawn(graph, 40_000, 3)
    edges, start, _ = graph.vocab.split(batch.prompts)
    leaves = edges[..., 0] == start[:, None]
    hops = edges[..., 1][leaves].view(-1, 4)  # in the order of the prompt
    hard = batch.answers[:, 1:2]
    assert_uniform((hops == hard).long().argmax(1), 4)
    assert_uniform((hops < hard).sum(1), 4)


def test_edge_order_is_uniform() -> None:
    batch = drawn(SMALL, 48_000, 4)
    edges, start, goal = SMALL.vocab.split(batch.prompts)
    # the role of each edge: on the goal's arm or not, at the start or not
    first = edges[..., 0] == start[:, None]
    true = (edges[..., 1] == batch.answers[:, 1:2]) | (edges[..., 1] == goal[:, None])
    roles = (2 * first + true).tolist()
    cells = {order: i for i, order in enumerate(permutations(range(4)))}
    assert_uniform(torch.tensor([cells[tuple(row)] for row in roles]), 24)


def test_graphs_are_uniform() -> None:
    graph = PathStar(2, 3, 5)
    _, cells = graph.keys(drawn(graph, 30_000, 5)).unique(return_inverse=True)
    assert_uniform(cells, graph.distinct)


# canonical keys


def enumerated(graph: PathStar) -> Tensor:
    """A prompt for each way to label the nodes of a graph; the goal is the last arm's."""
    prompts = []
    for labels in permutations(range(graph.num_nodes), graph.size):
        start, hop = labels[0], graph.path_length - 1
        arms = [[start, *labels[i : i + hop]] for i in range(1, graph.size, hop)]
        edges = [edge for arm in arms for edge in pairwise(arm)]
        line = "|".join(f"{u},{v}" for u, v in edges) + f"/{start},{labels[-1]}="
        prompts.append(hand_batch(line, graph.num_nodes).prompts)
    return torch.cat(prompts)


@pytest.mark.parametrize(
    ("graph", "distinct"), [(PathStar(2, 3, 5), 60), (PathStar(2, 3, 6), 360), (PathStar(3, 3, 7), 840)]
)
def test_distinct_counts_the_graphs_there_are(graph: PathStar, distinct: int) -> None:
    prompts = enumerated(graph)
    by_identity = {identity(prompt) for prompt in prompts.tolist()}
    assert graph.distinct == len(by_identity) == distinct
    assert len(keys(graph, prompts).unique()) == distinct  # and no two of them share a key


def test_sampling_reaches_every_graph() -> None:
    graph = PathStar(2, 3, 6)
    seen = {identity(prompt) for prompt in drawn(graph, 8_000, 6).prompts.tolist()}
    assert len(seen) == graph.distinct == 360


@given(graphs(), seeds, st.data())
def test_key_ignores_edge_order_direction_and_goal(graph: PathStar, seed: int, data: st.DataObject) -> None:
    batch = drawn(graph, 1, seed)
    edges, start, _ = graph.vocab.split(batch.prompts)
    order = torch.tensor(data.draw(st.permutations(range(graph.num_edges))))
    flips = torch.tensor(data.draw(st.lists(st.booleans(), min_size=graph.num_edges, max_size=graph.num_edges)))
    mixed = edges[:, order]
    mixed = torch.where(flips[None, :, None], mixed.flip(-1), mixed)
    leaves = sorted(set(edges[..., 1].flatten().tolist()) - set(edges[..., 0].flatten().tolist()))
    goal = torch.tensor([data.draw(st.sampled_from(leaves))])
    assert len(leaves) == graph.degree
    assert torch.equal(keys(graph, graph.vocab.layout(mixed, start, goal)), graph.keys(batch))


@given(graphs(), seeds, st.data())
def test_key_tells_starts_and_edges_apart(graph: PathStar, seed: int, data: st.DataObject) -> None:
    prompt = drawn(graph, 1, seed).prompts
    place = data.draw(st.sampled_from([-3, *(3 * i + j for i in range(graph.num_edges) for j in (0, 1))]))
    label = data.draw(st.integers(0, graph.num_nodes - 1).filter(lambda label: label != int(prompt[0, place])))
    other = prompt.clone()
    other[0, place] = label
    assert identity(other[0].tolist()) != identity(prompt[0].tolist())
    assert not torch.equal(keys(graph, other), keys(graph, prompt))


@given(st.lists(seeds, min_size=2, max_size=2, unique=True))
def test_keys_agree_with_identities(pair: list[int]) -> None:
    graph = PathStar(2, 3, 5)  # 60 graphs: many of these hundred are equal
    prompts = torch.cat([drawn(graph, 50, seed).prompts for seed in pair])
    identities = [identity(prompt) for prompt in prompts.tolist()]
    same = torch.tensor([[one == other for other in identities] for one in identities])
    found = keys(graph, prompts)
    assert torch.equal(found[:, None] == found, same)


def mixed(x: int) -> int:
    """Output number x of SplitMix64 from state 0, in whole numbers."""
    x = x * 0x9E3779B97F4A7C15 & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def test_key_of_a_small_graph(by_hand: Batch) -> None:
    assert mixed(1) == 0xE220A8397B1DCDAF  # the generator's published first output
    edges = [(1, 7), (3, 9), (1, 4), (3, 7)]
    key = sum(mixed(10 * low + high) for low, high in edges) + mixed(-1 - 7) & MASK
    assert int(SMALL.keys(by_hand)) & MASK == key


@given(graphs(), seeds)
def test_key_does_not_depend_on_the_stored_type(graph: PathStar, seed: int) -> None:
    batch = graph.sample(5, generator("tests", seed))
    assert torch.equal(graph.keys(batch), graph.keys(batch.long()))


# batches


def test_rows_and_long_keep_the_numbers(by_hand: Batch) -> None:
    batch = SMALL.sample(6, generator("tests", 0))
    assert rows(batch.long()) == rows(batch)
    assert batch.long().answers.dtype == batch.long().prompts.dtype == torch.int64
    assert batch.mask.dtype == batch.long().mask.dtype == torch.bool
    assert batch.mask.shape == batch.answers.shape
    assert batch.mask.all()
    assert rows(batch.rows(slice(2, 4))) == rows(batch)[2:4]
    assert rows(batch.rows(torch.tensor([5, 0]))) == [rows(batch)[5], rows(batch)[0]]
    assert rows(Batch.join([batch, by_hand, batch.rows(slice(1))])) == [*rows(batch), *rows(by_hand), rows(batch)[0]]


def test_mask_goes_with_its_problem() -> None:
    prompts, answers = torch.arange(3)[:, None], torch.tensor([[5, 6], [5, 9], [9, 9]])
    batch = Batch(prompts, answers, torch.tensor([[True, True], [True, True], [True, False]]))
    assert batch.long().mask.tolist() == batch.mask.tolist()
    assert batch.rows(torch.tensor([2, 0])).mask.tolist() == [[True, False], [True, True]]
    assert Batch.join([batch, batch.rows(slice(2, None))]).mask.tolist() == [*batch.mask.tolist(), [True, False]]
    assert [each.device.type for each in batch.to("meta")] == ["meta"] * 3
