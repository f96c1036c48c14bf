import pytest
import torch
from helpers import LINE, drawn, graphs, seeds, tokenize
from hypothesis import given

from nextfail.errors import UserError
from nextfail.tasks import Batch, PathStar
from nextfail.tasks.path_star.vocab import Vocab


def test_ids_of_ten_labels() -> None:
    vocab = Vocab(10)
    assert (vocab.bar, vocab.equals, vocab.slash, vocab.blank, vocab.size) == (10, 11, 12, 13, 14)


def test_every_token_of_a_small_prompt() -> None:
    edges = torch.tensor([[[7, 1], [3, 9], [1, 4], [7, 3]]])
    prompt = Vocab(10).layout(edges, torch.tensor([7]), torch.tensor([4]))
    assert prompt.tolist() == [[7, 1, 10, 3, 9, 10, 1, 4, 10, 7, 3, 12, 7, 4, 11]]


def test_published_line_token_by_token() -> None:
    line = "32,3|16,12|3,19|32,34|34,6|6,16|19,47|47,28/32,12=32,34,6,16,12"
    pairs = [[32, 3], [16, 12], [3, 19], [32, 34], [34, 6], [6, 16], [19, 47], [47, 28]]
    prompt = Vocab(50).layout(torch.tensor([pairs]), torch.tensor([32]), torch.tensor([12]))
    by_hand = [32, 3, 50, 16, 12, 50, 3, 19, 50, 32, 34, 50, 34, 6, 50, 6, 16, 50, 19, 47, 50, 47, 28, 52, 32, 12, 51]
    assert prompt.tolist() == [by_hand]
    assert tokenize(line, 50) == (by_hand, [32, 34, 6, 16, 12])


@given(graphs(), seeds)
def test_split_undoes_layout(graph: PathStar, seed: int) -> None:
    prompts = drawn(graph, 5, seed).prompts
    edges, start, goal = graph.vocab.split(prompts)
    assert edges.shape == (5, graph.num_edges, 2)
    assert torch.equal(graph.vocab.layout(edges, start, goal).long(), prompts)


def test_split_of_a_small_prompt(by_hand: Batch) -> None:
    edges, start, goal = Vocab(10).split(by_hand.prompts)
    assert (edges.tolist(), start.tolist(), goal.tolist()) == ([[[7, 1], [3, 9], [1, 4], [7, 3]]], [7], [4])


def test_decode_reads_like_the_line(by_hand: Batch) -> None:
    text = " ".join(PathStar(2, 3, 10).spell(by_hand.prompts)[0])
    assert text == "7 1 | 3 9 | 1 4 | 7 3 / 7 4 ="
    assert text.replace(" ", "") == LINE.partition("=")[0].replace(",", "") + "="
    assert PathStar(2, 3, 10).spell(torch.tensor([[13, 14]])) == [["$", "<14>"]]


@pytest.mark.parametrize(("labels", "dtype"), [(10, torch.uint8), (252, torch.uint8), (253, torch.int16)])
def test_smallest_type_that_holds_every_id(labels: int, dtype: torch.dtype) -> None:
    assert Vocab(labels).dtype is dtype
    assert torch.iinfo(dtype).max >= Vocab(labels).size - 1


@pytest.mark.parametrize("labels", [32_764, 32_765, 100_000])
def test_every_id_fits_its_type_or_the_size_is_refused(labels: int) -> None:
    try:
        vocab = PathStar(2, 3, labels).vocab
    except UserError as error:
        assert "num_nodes" in str(error)
        assert labels > 32_764
    else:
        assert torch.iinfo(vocab.dtype).max >= vocab.size - 1
