import pytest
import torch
from helpers import Averaging
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from nextfail.errors import UserError
from nextfail.models import Transformer
from nextfail.models.backbone import BEFORE_NORM, BIDIRECTIONAL, CUSTOM_MASK, EMBEDDINGS, POSITIONS

VOCAB, LENGTH = 17, 24


def small(seed: int = 0, depth: int = 3) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(depth=depth, width=16, heads=2, vocab_size=VOCAB, max_length=LENGTH, init_std=0.3)


def ids(rows: int = 3, length: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def near(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=tolerance, rtol=0)


@pytest.fixture
def model() -> Transformer:
    return small()


# last positions only


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("last", [1, 2, 5, 12])
@pytest.mark.parametrize("causal", [True, False])
def test_last_positions_only_equals_full(depth: int, last: int, causal: bool) -> None:
    model = small(depth=depth)
    full = model(ids(), causal=causal)
    assert near(model(ids(), last=last, causal=causal), full[:, -last:])


@pytest.mark.parametrize("batched", [False, True])
def test_last_positions_only_equals_full_under_a_mask(model: Transformer, batched: bool) -> None:
    mask = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(1)) < 0.5
    mask |= torch.eye(12, dtype=torch.bool)
    mask = mask if batched else mask[0]
    assert near(model(ids(), mask=mask, last=4), model(ids(), mask=mask)[:, -4:])


def test_last_positions_only_has_the_same_gradient() -> None:
    full, part = small(), small()
    weights = torch.randn(16, generator=torch.Generator().manual_seed(1))
    (full(ids())[:, -3:] @ weights).sum().backward()
    (part(ids(), last=3) @ weights).sum().backward()
    for one, other in zip(full.parameters(), part.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert near(one.grad, other.grad, 1e-4 * (1 + float(one.grad.abs().max())))


# who sees whom


@given(st.integers(0, 11), st.integers(1, VOCAB - 1))
@settings(max_examples=15)
def test_a_token_changes_nothing_before_it(place: int, shift: int) -> None:
    model, other = small(), ids()
    other[:, place] = (other[:, place] + shift) % VOCAB
    before, after = model(ids()), model(other)
    assert near(after[:, :place], before[:, :place], 1e-6)
    assert not near(after[:, place:], before[:, place:], 1e-2)


@torch.no_grad()
def test_every_position_sees_all_that_is_allowed(model: Transformer) -> None:
    causal, both = torch.zeros(12, 12), torch.zeros(12, 12)
    for place in range(12):
        other = ids()
        other[:, place] = (other[:, place] + 1) % VOCAB
        causal[:, place] = (model(other) - model(ids())).abs().amax((0, 2))
        both[:, place] = (model(other, causal=False) - model(ids(), causal=False)).abs().amax((0, 2))
    assert torch.equal(causal > 1e-5, torch.ones(12, 12).tril().bool())
    assert (both > 1e-5).all()


def test_masks_that_say_causal_and_all_equal_the_flags(model: Transformer) -> None:
    triangle, all_of_it = torch.ones(12, 12, dtype=torch.bool).tril(), torch.ones(3, 12, 12, dtype=torch.bool)
    assert near(model(ids(), mask=triangle), model(ids()))
    assert near(model(ids(), mask=all_of_it), model(ids(), causal=False))
    assert not near(model(ids(), causal=False), model(ids()), 1e-2)


def test_each_row_follows_its_own_mask(model: Transformer) -> None:
    masks = torch.stack([torch.ones(12, 12).tril(-k).bool() | torch.eye(12, dtype=torch.bool) for k in range(3)])
    together = model(ids(), mask=masks)
    for row in range(3):
        assert near(together[row : row + 1], model(ids()[row : row + 1], mask=masks[row]))
    assert near(together[:1], model(ids()[:1]))


def test_hidden_column_is_not_seen(model: Transformer) -> None:
    mask = torch.ones(12, 12, dtype=torch.bool)
    mask[:, 4] = False
    mask[4, 4] = True
    other = ids()
    other[:, 4] = (other[:, 4] + 1) % VOCAB
    same = [place for place in range(12) if place != 4]
    assert near(model(other, mask=mask)[:, same], model(ids(), mask=mask)[:, same], 1e-6)


# positions and embeddings


def test_given_positions_equal_the_usual_ones(model: Transformer) -> None:
    assert near(model(ids(), positions=torch.arange(12)), model(ids()))
    assert near(model(ids(), positions=torch.arange(12).expand(3, 12)), model(ids()))
    assert not near(model(ids(), positions=torch.arange(12) + 1), model(ids()), 1e-2)


def test_permuted_tokens_with_their_positions_are_permuted_states(model: Transformer) -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    permuted = model(ids()[:, order], positions=order, causal=False)
    assert near(permuted, model(ids(), causal=False)[:, order], 1e-4)


def test_embeddings_stand_for_their_tokens(model: Transformer) -> None:
    assert model.embed(ids()).shape == (3, 12, 16)
    assert near(model(embeddings=model.embed(ids()), last=5), model(ids(), last=5))
    start, cache = model.step(embeddings=model.embed(ids()[:, :7]))
    rest, _ = model.step(None, cache, embeddings=model.embed(ids()[:, 7:]))
    assert near(torch.cat([start, rest], 1), model(ids()))


def test_logits_are_products_with_the_embeddings(model: Transformer) -> None:
    hidden = model(ids(), last=2)
    assert near(model.logits(hidden), hidden @ model.embed(torch.arange(VOCAB)).T)


# the cache


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[1] * 12, [5, 7], [12], [7, 1, 1, 3], [1, 11], [4, 4, 4]])
def test_cached_equals_uncached(model: Transformer, pieces: list[int]) -> None:
    cache, seen = None, []
    for piece in ids().split(pieces, 1):
        hidden, cache = model.step(piece, cache)
        seen.append(hidden)
    assert near(torch.cat(seen, 1), model(ids()))


@torch.no_grad()
@pytest.mark.parametrize("last", [1, 2, 4])
def test_cached_last_positions_equal_full(model: Transformer, last: int) -> None:
    first, cache = model.step(ids()[:, :7], last=last)
    rest, _ = model.step(ids()[:, 7:], cache, last=last)
    assert near(first, model(ids()[:, :7])[:, -last:])
    assert near(rest, model(ids())[:, -last:])


@torch.no_grad()
def test_two_branches_from_one_cache(model: Transformer) -> None:
    _, cache = model.step(ids()[:, :6])
    for seed, length in ((1, 5), (2, 3), (3, 6)):
        branch = ids(length=length, seed=seed)
        whole = model(torch.cat([ids()[:, :6], branch], 1))[:, 6:]
        hidden, onward = model.step(branch[:, :2], cache)
        rest, _ = model.step(branch[:, 2:], onward)
        assert near(torch.cat([hidden, rest], 1), whole)
    assert cache.length == 6


@torch.no_grad()
def test_cache_reaches_to_the_longest_sequence(model: Transformer) -> None:
    tokens = ids(length=LENGTH)
    _, cache = model.step(tokens[:, :-1])
    hidden, cache = model.step(tokens[:, -1:], cache)
    assert near(hidden, model(tokens, last=1))
    with pytest.raises(UserError, match=rf"a sequence of {LENGTH + 1} tokens is too long .* max_length is {LENGTH}"):
        model.step(tokens[:, :1], cache)


@torch.no_grad()
def test_cached_equals_uncached_in_bfloat16(model: Transformer) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        full = model(ids()).float()
        _, cache = model.step(ids()[:, :7])
        rest, _ = model.step(ids()[:, 7:], cache)
    assert near(rest.float(), full[:, 7:], 0.1)


# more of them


def test_new_block_is_causal_and_newly_initialised(model: Transformer) -> None:
    one, other, hidden = model.new_block(), model.new_block(), model(ids())
    assert one(hidden).shape == hidden.shape
    changed = hidden.clone()
    changed[:, 5] += torch.randn(16)  # not a constant, which its norm would take away
    assert near(one(changed)[:, :5], one(hidden)[:, :5], 1e-6)
    assert not near(one(changed)[:, 6:], one(hidden)[:, 6:], 1e-4)
    assert not near(one(hidden), other(hidden), 1e-2)
    assert not near(one(hidden), model.blocks[0](hidden), 1e-2)
    assert not {id(p) for p in one.parameters()} & {id(p) for p in model.parameters()}


def test_fresh_has_the_same_sizes_and_other_weights(model: Transformer) -> None:
    fresh = model.fresh()
    assert [p.shape for p in fresh.parameters()] == [p.shape for p in model.parameters()]
    assert not near(fresh(ids()), model(ids()), 1e-2)
    assert not {id(p) for p in fresh.parameters()} & {id(p) for p in model.parameters()}
    assert fresh.init_std == model.init_std


def test_initial_weights_have_the_stated_spread() -> None:
    torch.manual_seed(0)
    model = Transformer(depth=8, width=64, heads=4, vocab_size=400, max_length=200, init_std=0.05)
    for name, parameter in [*model.named_parameters(), *model.new_block().named_parameters()]:
        if parameter.dim() == 1:
            assert set(parameter.tolist()) == ({1.0} if "norm" in name and name.endswith("weight") else {0.0})
        else:
            residual = name.endswith(("project.weight", "contract.weight"))
            assert parameter.std().item() == pytest.approx(0.05 / (4 if residual else 1), rel=0.06)


# the published architecture


def gpt2_with_the_weights_of(model: Transformer) -> GPT2LMHeadModel:
    sizes = {"n_layer": model.depth, "n_embd": model.width, "n_head": model.heads, "n_positions": model.max_length}
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=model.vocab_size, **sizes, **still))
    state = theirs.state_dict()
    with torch.no_grad():
        state["transformer.wte.weight"].copy_(model.tokens.weight)
        state["transformer.wpe.weight"].copy_(model.positions.weight)
        pairs = {"norm": "ln_f"}
        for i in range(model.depth):
            names = ("norm", "mixer.query_key_value", "mixer.project", "norm_mlp", "mlp.expand", "mlp.contract")
            their_names = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
            pairs |= {f"blocks.{i}.{a}": f"h.{i}.{b}" for a, b in zip(names, their_names, strict=True)}
        for ours, name in pairs.items():
            for kind, value in model.get_submodule(ours).named_parameters():
                # their linear maps keep weights as (in, out)
                state[f"transformer.{name}.{kind}"].copy_(value.t())
    return theirs


def test_equal_to_gpt2_with_the_same_weights(model: Transformer) -> None:
    torch.manual_seed(1)
    for parameter in model.parameters():  # biases and norms too, which are born zero and one
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    theirs = gpt2_with_the_weights_of(model)
    logits, expected = model.logits(model(ids())), theirs(ids()).logits
    assert near(logits, expected, 1e-4)
    labels = ids(seed=1)
    for each in (logits, expected):
        F.cross_entropy(each.flatten(0, 1), labels.flatten()).backward()
    assert model.tokens.weight.grad is not None
    assert near(model.tokens.weight.grad, theirs.transformer.wte.weight.grad, 1e-4)


# what cannot be


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heads": 3}, r"model\.heads=3 does not divide model\.width=16"),
        ({"heads": 0}, r"model\.heads=0 is not a whole number of at least 1"),
        ({"depth": 0}, r"model\.depth=0 is not a whole number of at least 1"),
        ({"width": 0}, r"model\.width=0 is not a whole number of at least 1"),
    ],
)
def test_impossible_size_is_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Transformer(**{"depth": 2, "width": 16, "heads": 2, "vocab_size": 9, "max_length": 9, **sizes})


def test_too_long_a_sequence_is_refused(model: Transformer) -> None:
    model(ids(length=LENGTH))
    with pytest.raises(UserError, match=rf"a sequence of {LENGTH + 1} tokens is too long .* max_length is {LENGTH}"):
        model(ids(length=LENGTH + 1))


def test_transformer_can_all_that_may_be_asked() -> None:
    assert Transformer.capabilities == small().capabilities
    assert small().capabilities == {BIDIRECTIONAL, CUSTOM_MASK, POSITIONS, EMBEDDINGS, BEFORE_NORM}


@pytest.mark.parametrize(
    ("asked", "capability"),
    [
        ({"causal": False}, BIDIRECTIONAL),
        ({"mask": torch.ones(12, 12, dtype=torch.bool)}, CUSTOM_MASK),
        ({"positions": torch.arange(12)}, POSITIONS),
    ],
)
def test_unknown_capability_is_refused(asked: dict[str, Tensor], capability: str) -> None:
    torch.manual_seed(0)
    plain = Averaging(width=16, vocab_size=VOCAB, max_length=LENGTH)
    assert plain(ids(), last=2).shape == (3, 2, 16)
    with pytest.raises(UserError, match=rf"Averaging does not support '{capability}'; it supports \[\]"):
        plain(ids(), **asked)
