"""What holds of every mixer and every list of them, and parity of the options with others' code."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from nextfail.errors import UserError
from nextfail.models import Hybrid, Mamba, Mamba2, Stack, Transformer
from nextfail.models.backbone import BEFORE_NORM, BIDIRECTIONAL, CUSTOM_MASK, EMBEDDINGS, POSITIONS
from nextfail.models.mixers.attention import Attention
from nextfail.models.mixers.base import Mixer
from nextfail.models.mixers.gated_conv import GatedConv
from nextfail.models.mlp import SwiGLU

VOCAB, LENGTH = 17, 24
KINDS = ("attention", "conv", "mamba", "mamba2")
ALWAYS = {EMBEDDINGS, BEFORE_NORM}


def stack(layers: list[str], seed: int = 0, **more: Any) -> Hybrid:
    """In double precision, with weights larger than at the beginning of a training."""
    torch.manual_seed(seed)
    model = Hybrid(
        layers, width=16, heads=2, vocab_size=VOCAB, max_length=LENGTH, d_state=5, head_dim=8, init_std=0.3,
        scan="auto", **more,
    )  # fmt: skip
    return model.double()


def ids(rows: int = 2, length: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


patterns = st.lists(st.sampled_from(KINDS), min_size=1, max_size=4)
options = st.fixed_dictionaries(
    {
        "positions": st.sampled_from(["learned", "rope", "none"]),
        "norm": st.sampled_from(["layer", "rms"]),
        "mlp": st.sampled_from([None, "gelu", "swiglu"]),
        "qk_norm": st.booleans(),
        "conv": st.sampled_from([None, 2, 4]),
        "conv_at": st.sampled_from(["both", "mixer", "mlp"]),
    }
).filter(lambda how: how["mlp"] or not how["conv"] or how["conv_at"] != "mlp")


@given(patterns, options, st.lists(st.integers(1, 4), min_size=1, max_size=5))
@settings(max_examples=60)
@torch.no_grad()
def test_steps_of_any_size_equal_one_pass(layers: list[str], how: dict[str, Any], pieces: list[int]) -> None:
    model, tokens, cache, parts = stack(layers, **how), ids(length=sum(pieces)), None, []
    for piece in tokens.split(pieces, 1):
        hidden, cache = model.step(piece, cache)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), model(tokens))


@given(patterns, options, st.integers(1, 14), st.integers(1, 11))
@settings(max_examples=60)
@torch.no_grad()
def test_last_positions_only_equals_full(layers: list[str], how: dict[str, Any], last: int, first: int) -> None:
    """In one pass, and after a cache from which two branches go on; before the final norm and after it."""
    model = stack(layers, **how)
    full = model(ids())
    torch.testing.assert_close(model(ids(), last=last), full[:, -last:])
    torch.testing.assert_close(model.final_norm(model(ids(), last=last, before_norm=True)), full[:, -last:])
    _, cache = model.step(ids()[:, :first])
    other = torch.cat([ids()[:, :first], ids(length=12 - first, seed=1)], 1)
    for tokens in (ids(), other, ids()):
        hidden, _ = model.step(tokens[:, first:], cache, last=last)
        torch.testing.assert_close(hidden, model(tokens)[:, first:][:, -last:])
    raw, _ = model.step(ids()[:, first:], cache, last=last, before_norm=True)
    torch.testing.assert_close(model.final_norm(raw), full[:, first:][:, -last:])


@given(patterns, options, st.integers(0, 11))
@settings(max_examples=30)
@torch.no_grad()
def test_a_token_changes_nothing_before_it(layers: list[str], how: dict[str, Any], place: int) -> None:
    model, other = stack(layers, **how), ids()
    other[:, place] = (other[:, place] + 1) % VOCAB
    before, after = model(ids()), model(other)
    torch.testing.assert_close(after[:, :place], before[:, :place])
    assert (after[:, place] - before[:, place]).abs().amax() > 1e-6


@given(patterns, options)
@settings(max_examples=30)
def test_every_parameter_is_trained_and_gradients_pass_through_a_cache(layers: list[str], how: dict[str, Any]) -> None:
    model = stack(layers, **how)
    embedded = model.embed(ids()).detach().requires_grad_()
    at_once = torch.autograd.grad(model(embeddings=embedded)[:, 7:].sin().sum(), embedded)[0]
    _, cache = model.step(embeddings=embedded[:, :7])
    hidden, _ = model.step(None, cache, embeddings=embedded[:, 7:])
    if "attention" not in layers:  # whose buffer is filled in place
        in_steps = torch.autograd.grad(hidden.sin().sum(), embedded)[0]
        torch.testing.assert_close(in_steps, at_once)
    F.cross_entropy(model.logits(model(ids())).flatten(0, 1), ids(seed=1).flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@given(patterns, options)
@settings(max_examples=20)
def test_fresh_and_new_blocks_are_of_the_same_kind(layers: list[str], how: dict[str, Any]) -> None:
    model = stack(layers, **how)
    fresh, block = model.fresh().double(), model.new_block().double()
    assert [(n, p.shape) for n, p in fresh.named_parameters()] == [(n, p.shape) for n, p in model.named_parameters()]
    last = model.blocks[-1]
    assert [(n, p.shape) for n, p in block.named_parameters()] == [(n, p.shape) for n, p in last.named_parameters()]
    shared = {id(p) for p in model.parameters()}
    assert not shared & {id(p) for other in (fresh, block) for p in other.parameters()}
    x = model.embed(ids())
    torch.testing.assert_close(block(x, last=3), block(x)[:, -3:])


# who sees whom


def test_capabilities() -> None:
    for positions in ("learned", "rope"):
        assert (
            stack(["attention"], positions=positions).capabilities == {BIDIRECTIONAL, CUSTOM_MASK, POSITIONS} | ALWAYS
        )
    assert stack(["attention"]).capabilities == {BIDIRECTIONAL, CUSTOM_MASK} | ALWAYS
    assert stack(["attention"], conv=4).capabilities == {BIDIRECTIONAL} | ALWAYS
    for other in ("conv", "mamba", "mamba2"):
        assert stack(["attention", other], positions="rope").capabilities == ALWAYS


@pytest.mark.parametrize("positions", ["learned", "rope", "none"])
@torch.no_grad()
def test_masks_hide(positions: str) -> None:
    model = stack(["attention"] * 2, positions=positions)
    triangle = torch.ones(12, 12, dtype=torch.bool).tril()
    torch.testing.assert_close(model(ids(), mask=triangle), model(ids()))
    torch.testing.assert_close(model(ids(), mask=triangle.expand(2, 12, 12), last=3), model(ids(), last=3))
    torch.testing.assert_close(model(ids(), mask=torch.ones_like(triangle)), model(ids(), causal=False))
    assert not torch.allclose(model(ids(), causal=False), model(ids()))


@torch.no_grad()
def test_rotary_positions_are_relative() -> None:
    """Moved by the same number they give the same; each row may have its own."""
    model = stack(["attention"] * 2, positions="rope")
    for positions in (torch.arange(12), torch.arange(12) + 7, torch.stack([torch.arange(12), torch.arange(12) + 3])):
        torch.testing.assert_close(model(ids(), positions=positions), model(ids()), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            model(ids(), positions=positions, last=4), model(ids(), last=4), rtol=1e-5, atol=1e-5
        )
    assert not torch.allclose(model(ids(), positions=torch.arange(12) * 2 % LENGTH), model(ids()), atol=1e-3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    permuted = model(ids()[:, order], positions=order, causal=False)
    torch.testing.assert_close(permuted, model(ids(), causal=False)[:, order])


@torch.no_grad()
def test_without_positions_attention_sees_a_set() -> None:
    model = stack(["attention"])
    swapped = ids()
    swapped[:, [2, 5]] = ids()[:, [5, 2]]
    torch.testing.assert_close(model(swapped)[:, -1], model(ids())[:, -1])
    told_apart = stack(["conv", "attention"])
    assert not torch.allclose(told_apart(swapped)[:, -1], told_apart(ids())[:, -1])


def test_lengths_are_bound_where_positions_are_counted() -> None:
    long = ids(length=LENGTH + 1)
    for bound in (stack(["attention"]), stack(["mamba"], positions="learned"), stack(["mamba", "attention"])):
        bound(long[:, :-1])
        with pytest.raises(
            UserError, match=rf"a sequence of {LENGTH + 1} tokens is too long .* max_length is {LENGTH}"
        ):
            bound(long)
    for free in (stack(["mamba", "mamba2", "conv"]), stack(["mamba2"], positions="rope")):
        assert free(long).shape == (2, LENGTH + 1, 16)


def test_attention_of_a_hybrid() -> None:
    model = stack(["mamba", "attention"], positions="rope")
    x = model.embed(ids())
    assert model.attention(0, x) is None
    weights = model.attention(1, x)
    assert weights is not None and weights.shape == (2, 2, 12, 12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 12, dtype=torch.float64))
    assert weights.triu(1).abs().max() == 0


# others' code


def qwen3_with_the_weights_of(model: Transformer) -> Qwen3ForCausalLM:
    """Rotary positions, RMSNorm, SwiGLU and norms of queries and keys, with a bias in each map of attention."""
    each = model.width // model.heads
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=model.width, intermediate_size=model.blocks[0].mlp.expand.out_features,
        num_hidden_layers=model.depth, num_attention_heads=model.heads, num_key_value_heads=model.heads, head_dim=each,
        max_position_embeddings=LENGTH, rms_norm_eps=1e-5, rope_theta=10_000.0, attention_bias=True,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = Qwen3ForCausalLM(config).double()
    state = theirs.state_dict()
    names = {"norm": "input_layernorm", "norm_mlp": "post_attention_layernorm", "mixer.project": "self_attn.o_proj",
             "mixer.query_norm": "self_attn.q_norm", "mixer.key_norm": "self_attn.k_norm", "mlp.gate": "mlp.gate_proj",
             "mlp.expand": "mlp.up_proj", "mlp.contract": "mlp.down_proj"}  # fmt: skip
    with torch.no_grad():
        state["model.embed_tokens.weight"].copy_(model.tokens.weight)
        state["model.norm.weight"].copy_(model.norm.weight)
        for i, block in enumerate(model.blocks):
            for ours, name in names.items():
                for kind, value in block.get_submodule(ours).named_parameters():
                    state[f"model.layers.{i}.{name}.{kind}"].copy_(value)
            for kind, value in block.mixer.query_key_value.named_parameters():
                for name, part in zip("qkv", value.chunk(3), strict=True):
                    state[f"model.layers.{i}.self_attn.{name}_proj.{kind}"].copy_(part)
    return theirs.eval()


def test_equal_to_qwen3_with_the_same_weights() -> None:
    torch.manual_seed(0)
    model = Transformer(2, 16, 2, VOCAB, LENGTH, positions="rope", norm="rms", mlp="swiglu", qk_norm=True).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3)
    theirs = qwen3_with_the_weights_of(model)
    logits, expected = model.logits(model(ids())), theirs(ids()).logits
    assert float(expected.detach().std()) > 0.2
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    for each in (logits, expected):
        F.cross_entropy(each.flatten(0, 1), ids(seed=1).flatten()).backward()
    assert model.tokens.weight.grad is not None
    torch.testing.assert_close(model.tokens.weight.grad, theirs.model.embed_tokens.weight.grad, rtol=0, atol=1e-6)


# parts


def test_a_gated_convolution_by_hand() -> None:
    mixer = GatedConv(1, 2)
    with torch.no_grad():
        mixer.in_proj.weight.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
        mixer.weight.copy_(torch.tensor([[[10.0, 1.0]]]))
        mixer.out_proj.weight.fill_(1.0)
    y = mixer(torch.tensor([[[1.0], [2.0]]])).flatten().tolist()
    assert y == [2 * 1 * (3 * 1), 2 * 2 * (3 * 4 + 10 * 3)]  # gates x and 2x, values 3x; taps 10 and 1


def test_swiglu_has_as_many_parameters_as_gelu() -> None:
    for width in (48, 96, 384):
        assert sum(p.numel() for p in SwiGLU(width).parameters()) == 8 * width**2


def test_residual_branches_start_smaller_the_more_there_are() -> None:
    torch.manual_seed(0)
    for mlp, branches in ((None, 4), ("gelu", 8), ("swiglu", 8)):
        model = Hybrid(["attention", "mamba"], 64, 4, VOCAB, LENGTH, depth=4, mlp=mlp, init_std=0.05)
        assert model.blocks[0].mixer.project.weight.std().item() == pytest.approx(0.05 / math.sqrt(branches), rel=0.06)
        largest = model.blocks[1].mixer.out_proj.weight.abs().max().item()
        assert largest == pytest.approx(128**-0.5 / math.sqrt(branches), rel=0.01)
        if mlp:
            contract = model.blocks[1].mlp.contract.weight
            assert contract.std().item() == pytest.approx(0.05 / math.sqrt(branches), rel=0.06)


def test_layers_are_repeated_to_the_depth() -> None:
    kinds = [type(block.mixer).__name__ for block in Hybrid(["mamba", "attention"], 16, 2, 9, 9, depth=5).blocks]
    assert kinds == ["MambaMixer", "Attention"] * 2 + ["MambaMixer"]


class Mean(Mixer):
    """A mixer of a user's own, with `forward` alone: the mean of what was read."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, *, last: int | None = None, **_: Any) -> Tensor:
        means = self.scale * x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return means if last is None else means[:, -last:]


@torch.no_grad()
def test_a_mixer_of_ones_own_needs_forward_alone() -> None:
    model = Stack([lambda: Mean(8), lambda: Attention(8, 2, LENGTH)], 8, VOCAB, LENGTH, mlp="gelu", conv=2)
    full = model(ids())
    first, cache = model.step(ids()[:, :5])
    rest, _ = model.step(ids()[:, 5:], cache, last=4)
    torch.testing.assert_close(torch.cat([first, rest], 1), torch.cat([full[:, :5], full[:, -4:]], 1))
    assert model.capabilities == ALWAYS and model.attention(0, full) is None


OLD_NAMES = {"norm": "norm_attention", "mixer.query_key_value": "query_key_value", "mixer.project": "project",
             "norm_mlp": "norm_mlp", "mlp.expand": "expand", "mlp.contract": "contract", "conv_mixer": "conv_attention",
             "conv_mlp": "conv_mlp"}  # fmt: skip


@pytest.mark.parametrize("conv", [None, 4])
def test_weights_under_their_older_names_are_loaded(conv: int | None) -> None:
    model, other = (Transformer(2, 16, 2, VOCAB, LENGTH, conv=conv) for _ in range(2))
    old = {}
    for key, value in model.state_dict().items():
        for new, name in OLD_NAMES.items():
            if f".{new}." in key:
                key = key.replace(f".{new}.", f".{name}.")
                break
        old[key] = value
    assert "blocks.0.query_key_value.weight" in old and not [key for key in old if "mixer" in key]
    other.load_state_dict(old)
    assert torch.equal(other(ids()), model(ids()))
    block = nn.ModuleList([model.new_block()])  # as heads of an objective are
    block.load_state_dict({key.removeprefix("blocks."): old[key] for key in old if key.startswith("blocks.0.")})


# what cannot be


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"layers": []}, r"model\.layers=\[\] is not a list of mixers, such as \[mamba,attention\]"),
        ({"layers": "mamba"}, r"model\.layers='mamba' is not a list of mixers"),
        (
            {"layers": ["mamba", "rnn"]},
            r"model\.layers names 'rnn', which is not a mixer: choose attention, conv, mamba, m",
        ),
        ({"layers": [{"a": 1}]}, r"model\.layers names \{'a': 1\}, which is not a mixer"),
        ({"depth": 1}, r"model\.depth=1 is too small for the 2 mixers in model\.layers"),
        ({"depth": 0}, r"model\.depth=0 is not a whole number of at least 1 or null"),
        ({"positions": "sine"}, r"model\.positions='sine' is unknown: choose learned, rope or none"),
        ({"norm": "batch"}, r"model\.norm='batch' is unknown: choose layer or rms"),
        ({"mlp": "relu"}, r"model\.mlp='relu' is unknown: choose gelu, swiglu or null"),
        (
            {"mlp": None, "conv": 3, "conv_at": "mlp"},
            r"model\.conv_at=mlp has no effect with model\.mlp=null: choose mixer",
        ),
        ({"conv_at": "head"}, r"model\.conv_at='head' is unknown: choose both, mixer, mlp or none"),
        ({"heads": 3}, r"model\.heads=3 does not divide model\.width=16"),
        ({"heads": 16, "positions": "rope"}, r"model\.positions=rope rotates pairs of channels, and a head has 1"),
        ({"d_conv": 0, "layers": ["conv"]}, r"model\.d_conv=0 is not a whole number of at least 1"),
        ({"d_state": -1}, r"model\.d_state=-1 is not a whole number of at least 1"),
    ],
)
def test_impossible_options_are_refused(more: dict[str, Any], message: str) -> None:
    usual = {"layers": ["mamba", "attention"], "width": 16, "heads": 2, "vocab_size": 9, "max_length": 9}
    with pytest.raises(UserError, match=message):
        Hybrid(**{**usual, **more})


def test_tokens_or_embeddings() -> None:
    model = stack(["attention"])
    for given_both in ({}, {"tokens": ids(), "embeddings": model.embed(ids())}):
        with pytest.raises(UserError, match="a backbone reads tokens or embeddings: give one of them"):
            model(**given_both)


def test_all_of_a_kind_is_that_model() -> None:
    """A hybrid of one mixer is Mamba or Mamba-2 with the same weights."""
    for kind, made in (
        ("mamba", Mamba(2, 16, VOCAB, LENGTH, d_state=5)),
        ("mamba2", Mamba2(2, 16, VOCAB, LENGTH, d_state=5, head_dim=8)),
    ):
        hybrid = stack([kind] * 2, mlp=None).float()
        hybrid.load_state_dict(made.state_dict())
        assert torch.equal(hybrid(ids()), made(ids()))
