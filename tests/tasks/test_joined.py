"""One token for each edge: the same problems, read by two tables of embeddings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, Averaging, drawn, graphs, hand_batch, seeds, tiny
from hypothesis import given
from hypothesis import strategies as st

from nextfail.errors import UserError
from nextfail.models import Mamba
from nextfail.objectives import TeacherForcing
from nextfail.seeding import generator
from nextfail.tasks import PathStar
from nextfail.tasks.data import DrawnData, FileData
from nextfail.tasks.path_star.vocab import MOST_JOINED
from nextfail.training.module import TaskModule

JOINED = replace(SMALL, edges_as="tokens")


def test_by_hand() -> None:
    edges = torch.tensor([[[7, 1], [1, 4], [7, 3], [3, 9]]])
    start, goal = torch.tensor([7]), torch.tensor([4])
    codes, equals = [-72, -15, -74, -40], 11
    assert JOINED.vocab.layout(edges, start, goal).tolist() == [[*codes, 7, 4, equals]]
    assert JOINED.vocab.layout(edges, start, goal, "before").tolist() == [[7, 4, *codes, equals]]
    assert " ".join(JOINED.spell(torch.tensor([[*codes, 7, 4, equals]]))[0]) == "7,1 1,4 7,3 3,9 7 4 ="
    assert JOINED.prompt_length == 7 and SMALL.prompt_length == 15
    assert PathStar(2, 5, 50, edges_as="tokens").prompt_length == 11
    assert replace(JOINED, edges_as="triples") == SMALL != JOINED and str(JOINED) == "G(2,3)"


@given(graphs(), st.sampled_from(["after", "before"]), seeds)
def test_the_same_problems_as_three_tokens_an_edge(graph: PathStar, query: str, seed: int) -> None:
    graph = replace(graph, query=query)
    other = replace(graph, edges_as="tokens")
    mine, theirs = (each.sample(5, generator("tests", seed)) for each in (graph, other))
    assert torch.equal(mine.answers.long(), theirs.answers.long())
    both = graph.vocab.split(mine.prompts), other.vocab.split(theirs.prompts)
    assert all(torch.equal(a.long(), b.long()) for a, b in zip(*both, strict=True))
    assert torch.equal(graph.keys(mine), other.keys(theirs))
    assert theirs.prompts.shape == (5, graph.num_edges + 3)


def test_as_many_labels_as_have_ids() -> None:
    graph = PathStar(2, 3, MOST_JOINED, edges_as="tokens")
    edges = torch.tensor([[[MOST_JOINED - 1, MOST_JOINED - 1], [0, 0]]])
    prompts = graph.vocab.layout(edges, torch.tensor([0]), torch.tensor([MOST_JOINED - 1]))
    assert prompts.dtype == torch.int16
    assert torch.equal(graph.vocab.split(prompts)[0].long(), edges)
    with pytest.raises(UserError, match=r"task\.num_nodes=182 is too large for task\.edges_as=tokens: .* allows 181"):
        PathStar(2, 3, MOST_JOINED + 1, edges_as="tokens")


def test_sets_are_those_of_three_tokens_an_edge() -> None:
    settings: dict[str, Any] = {"run_seed": 0, "train": None, "validation": 20, "test": 20, "seed": 3}
    one, other = DrawnData(SMALL, **settings), DrawnData(JOINED, **settings)
    for data in (one, other):
        data.setup()
    pairs = [(one.test, other.test), (one.validation, other.validation), (one.train_batch(7), other.train_batch(7))]
    for mine, theirs in pairs:
        assert mine is not None and theirs is not None
        assert torch.equal(mine.answers.long(), theirs.answers.long())
        assert torch.equal(SMALL.keys(mine), JOINED.keys(theirs))


def write(path: Path, graph: PathStar, seed: int) -> None:
    path.write_text("".join(f"{line}\n" for line in graph.lines(graph.sample(30, generator("tests", seed)))))


def test_text_files_are_as_published(tmp_path: Path) -> None:
    for name, graph in (("one", SMALL), ("other", JOINED)):
        write(tmp_path / name, graph, 0)
    assert (tmp_path / "one").read_text() == (tmp_path / "other").read_text()
    one, other = SMALL.read(tmp_path / "one"), JOINED.read(tmp_path / "one")
    assert torch.equal(SMALL.keys(one), JOINED.keys(other)) and other.prompts.shape == (30, 7)
    many = PathStar(2, 3, 50)  # labels, so that no graph is met twice
    for seed, name in enumerate(("train", "test")):
        write(tmp_path / name, many, seed)
    files = {"train_file": str(tmp_path / "train"), "test_file": str(tmp_path / "test")}
    data = FileData(replace(many, edges_as="tokens"), 0, **files, validation=5, batch_size=4)
    data.setup()
    assert data.train_batch(0).prompts.shape == (4, 7)


# how models read it


def test_an_edge_is_the_sum_of_its_ends() -> None:
    backbone = tiny(SMALL)
    backbone.join_pairs(10)
    assert backbone.pairs is not None
    first, second, tokens = backbone.pairs.first.weight, backbone.pairs.second.weight, backbone.tokens.weight
    x = backbone.embed(torch.tensor([[-72, -15, 7, 11], [0, -1, -100, 13]]))
    expected = [
        [first[7] + second[1], first[1] + second[4], tokens[7], tokens[11]],
        [tokens[0], first[0] + second[0], first[9] + second[9], tokens[13]],
    ]
    torch.testing.assert_close(x, torch.stack([torch.stack(row) for row in expected]))


@pytest.mark.parametrize(
    "make",
    [
        tiny,
        lambda graph: Mamba(depth=1, width=16, d_state=4, vocab_size=graph.vocab.size, max_length=20),
        lambda graph: Averaging(width=16, vocab_size=graph.vocab.size, max_length=20),
    ],
)
def test_any_backbone_reads_it_and_writes_tokens_alone(make: Any) -> None:
    module = TaskModule(JOINED, make(JOINED), TeacherForcing())
    batch = drawn(JOINED, 6)
    loss = module.objective.loss(module.backbone, batch)
    assert loss.logits.shape == (6, 3, SMALL.vocab.size)
    loss.total.backward()
    pairs = module.backbone.pairs
    assert pairs is not None and all(table.weight.grad is not None for table in (pairs.first, pairs.second))
    assert module.objective.predict(module.backbone, batch).generated.shape == (6, 3)


def test_what_is_no_edge_leaves_the_tables_alone() -> None:
    backbone = tiny(SMALL)
    backbone.join_pairs(10)
    backbone.embed(torch.tensor([[-72, 3]])).sum().backward()
    assert backbone.pairs is not None
    gradients = [table.weight.grad for table in (backbone.pairs.first, backbone.pairs.second, backbone.tokens)]
    touched = [grad.abs().sum(1).nonzero().flatten().tolist() for grad in gradients if grad is not None]
    assert touched == [[7], [1], [3]]


def test_without_it_nothing_is_made() -> None:
    module = TaskModule(SMALL, tiny(SMALL), TeacherForcing())
    assert module.backbone.pairs is None and not [name for name, _ in module.named_parameters() if "pairs" in name]
    assert module.objective.loss(module.backbone, hand_batch("7,1|3,9|1,4|7,3/7,4=7,1,4")).total > 0
