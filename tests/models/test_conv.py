"""The short convolution against torch's, by hand, and within the Transformer."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nextfail.errors import UserError
from nextfail.models import Transformer
from nextfail.models.backbone import BEFORE_NORM, BIDIRECTIONAL, CUSTOM_MASK, EMBEDDINGS, POSITIONS
from nextfail.models.mixers.conv import ShortConv

VOCAB, LENGTH = 17, 24
PLACES = ("both", "attention", "mlp")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand() -> None:
    conv = ShortConv(1, 3)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[100.0, 10.0, 1.0]]]))
    y = conv(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]))
    assert y.flatten().tolist() == [2, 2 + 12, 3 + 123, 4 + 234]  # itself, and the last three as digits


@pytest.mark.parametrize("taps", [2, 4, 7])
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_it_is_a_residual_depthwise_convolution(taps: int, steps: int) -> None:
    """Values and gradients are those of torch's own."""
    conv = ShortConv(5, taps).double()
    x = numbers(3, steps, 5).requires_grad_()
    y = x + F.conv1d(F.pad(x.transpose(1, 2), (taps - 1, 0)), conv.weight, groups=5).transpose(1, 2)
    expected = [y, *torch.autograd.grad(y.sin().sum(), [x, conv.weight])]
    found = conv(x)
    for one, other in zip(expected, [found, *torch.autograd.grad(found.sin().sum(), [x, conv.weight])], strict=True):
        torch.testing.assert_close(other, one)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(2, 6))
@settings(max_examples=25)
def test_piece_by_piece_is_the_whole(pieces: list[int], taps: int) -> None:
    conv, x, window = ShortConv(3, taps).double(), numbers(2, sum(pieces), 3), None
    parts = []
    for part in x.split(pieces, 1):
        y, window = conv.step(part, window)
        assert window.shape == (2, taps - 1, 3)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), conv(x))


def test_it_begins_as_torchs_does() -> None:
    torch.manual_seed(0)
    weight = ShortConv(1000, 4).weight.detach()
    assert weight.abs().max() <= 0.5 and weight.std() == pytest.approx(0.5 / 3**0.5, rel=0.03)


@pytest.mark.parametrize("taps", [0, 1, -4, 2.5, True])
def test_wrong_numbers_of_taps(taps: object) -> None:
    with pytest.raises(UserError, match=r"model\.conv=.* is not a whole number of at least 2 or null"):
        Transformer(2, 16, 2, VOCAB, LENGTH, conv=taps)  # type: ignore[arg-type]


def test_a_place_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"model\.conv_at='head' is unknown: choose both, attention, mlp or none"):
        Transformer(2, 16, 2, VOCAB, LENGTH, conv=4, conv_at="head")


# within the Transformer


def model(place: str, depth: int = 3, taps: int = 4) -> Transformer:
    torch.manual_seed(0)
    return Transformer(depth, 16, 2, VOCAB, LENGTH, init_std=0.3, conv=taps, conv_at=place).double()


def ids(length: int = 12) -> Tensor:
    return torch.randint(VOCAB, (3, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("place", PLACES)
def test_it_stands_where_it_should(place: str) -> None:
    names = {name.split(".")[-2] for name, _ in model(place).named_parameters() if "conv" in name}
    expected = {"both": {"conv_mixer", "conv_mlp"}, "attention": {"conv_mixer"}, "mlp": {"conv_mlp"}}
    assert names == expected[place]
    assert len([name for name, _ in model(place).fresh().named_parameters() if "conv" in name]) == 3 * len(names)


@pytest.mark.parametrize("made", [{}, {"conv": 4, "conv_at": "none"}])
def test_without_one_nothing_is_different(made: dict[str, Any]) -> None:
    plain = Transformer(2, 16, 2, VOCAB, LENGTH, **made)
    assert not [name for name, _ in plain.named_parameters() if "conv" in name]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("causal", [True, False])
def test_last_positions_only_equals_full(place: str, depth: int, causal: bool) -> None:
    made = model(place, depth)
    full = made(ids(), causal=causal)
    for last in (1, 2, 4, 9, 12, 15):
        torch.testing.assert_close(made(ids(), last=last, causal=causal), full[:, -last:])


@torch.no_grad()
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("first", [1, 2, 5, 11])
@pytest.mark.parametrize("last", [None, 1, 2])
def test_decoding_from_a_cache_equals_one_pass(place: str, first: int, last: int | None) -> None:
    made = model(place)
    full = made(ids())
    hidden, cache = made.step(ids()[:, :first], last=last)
    torch.testing.assert_close(hidden, full[:, :first][:, -(last or first) :])
    several, _ = made.step(ids()[:, first:], cache, last=last)  # the cache stays as it was
    torch.testing.assert_close(several, full[:, first:][:, -(last or 12) :])
    for place_now in range(first, 12):
        hidden, cache = made.step(ids()[:, place_now : place_now + 1], cache)
        torch.testing.assert_close(hidden, full[:, place_now : place_now + 1])


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_causal_under_any_attention(causal: bool) -> None:
    """Of one block: what comes after a position reaches it through attention alone."""
    made = model("both", depth=1)
    with torch.no_grad():
        made.blocks[0].mixer.project.weight.zero_()  # type: ignore[union-attr]
        before = made(ids(), causal=causal)
        after = made(torch.cat([ids()[:, :-1], (ids()[:, -1:] + 1) % VOCAB], 1), causal=causal)
    assert torch.equal(before[:, :-1], after[:, :-1]) and not torch.equal(before[:, -1], after[:, -1])


def test_a_mask_is_refused_since_it_would_not_hide() -> None:
    made = model("both")
    assert (
        made.capabilities == {BIDIRECTIONAL, POSITIONS, EMBEDDINGS, BEFORE_NORM}
        and CUSTOM_MASK in Transformer.capabilities
    )
    with pytest.raises(UserError, match="does not support 'custom_mask'"):
        made(ids(), mask=torch.ones(12, 12, dtype=torch.bool))
