import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transformers import MambaConfig, MambaForCausalLM

from nextfail.errors import UserError
from nextfail.models import Mamba
from nextfail.models.backbone import BIDIRECTIONAL, CUSTOM_MASK, POSITIONS
from nextfail.models.mixers.mamba import ScanState

VOCAB, LENGTH = 17, 12
FORMS = ("fused", "parallel", "loop")


def small(seed: int = 0, depth: int = 3, scan: str = "auto", d_conv: int = 4) -> Mamba:
    """Weights are larger than at the beginning of a training, so that outputs differ."""
    torch.manual_seed(seed)
    model = Mamba(
        depth=depth, width=16, d_state=5, d_conv=d_conv, expand=2, vocab_size=VOCAB, max_length=LENGTH, scan=scan
    )
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "A_log" not in name:
            torch.nn.init.normal_(parameter, std=0.4)
        elif parameter.dim() == 1 and "dt_proj" not in name:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
    return model


def ids(rows: int = 3, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def near(one: Tensor, other: Tensor, tolerance: float = 2e-5) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=tolerance, rtol=0)


@pytest.fixture
def model() -> Mamba:
    return small()


# one pass


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("last", [1, 5, LENGTH])
def test_last_positions_only_equals_full(depth: int, last: int) -> None:
    model = small(depth=depth)
    assert near(model(ids(), last=last), model(ids())[:, -last:])


def test_last_positions_only_has_the_same_gradient() -> None:
    full, part = small(), small()
    weights = torch.randn(16, generator=torch.Generator().manual_seed(1))
    (full(ids())[:, -3:] @ weights).sum().backward()
    (part(ids(), last=3) @ weights).sum().backward()
    for one, other in zip(full.parameters(), part.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert near(one.grad, other.grad, 1e-4 * (1 + float(one.grad.abs().max())))


@torch.no_grad()
def test_every_position_sees_itself_and_what_is_before(model: Mamba) -> None:
    seen = torch.zeros(LENGTH, LENGTH)
    for place in range(LENGTH):
        other = ids()
        other[:, place] = (other[:, place] + 1) % VOCAB
        seen[:, place] = (model(other) - model(ids())).abs().amax((0, 2))
    assert torch.equal(seen > 1e-5, torch.ones(LENGTH, LENGTH).tril().bool())


def test_order_matters(model: Mamba) -> None:
    swapped = ids()
    swapped[:, [2, 5]] = ids()[:, [5, 2]]
    assert not near(model(swapped)[:, -1], model(ids())[:, -1], 1e-2)


def test_embeddings_are_taken_for_tokens(model: Mamba) -> None:
    assert torch.equal(model(embeddings=model.embed(ids())), model(ids()))


@pytest.mark.parametrize("form", FORMS)
def test_forms_give_the_same_model(form: str) -> None:
    one, other = small(scan=form), small(scan="loop")
    for model in (one, other):
        F.cross_entropy(model.logits(model(ids())).flatten(0, 1), ids(seed=1).flatten()).backward()
    assert near(one(ids()), other(ids()))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert float(b.grad.abs().max()) > 0, "every parameter is used"
        assert near(a.grad, b.grad, 1e-5 * (1 + float(b.grad.abs().max())))


def test_autocast_gives_nearly_the_same(model: Mamba) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model(ids())
    assert near(hidden.float(), model(ids()), 0.2 * float(model(ids()).detach().abs().max()))


# decoding


@pytest.mark.parametrize("form", FORMS)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
@torch.no_grad()
def test_steps_of_any_size_equal_one_pass(form: str, sizes: list[int]) -> None:
    model, tokens = small(scan=form), ids(length=sum(sizes))
    cache, parts = None, []
    for part in tokens.split(sizes, 1):
        hidden, cache = model.step(part, cache)
        parts.append(hidden)
    assert near(torch.cat(parts, 1), model(tokens), 1e-4)


@pytest.mark.parametrize("d_conv", [1, 2, 4])
@torch.no_grad()
def test_prompt_then_token_by_token(d_conv: int) -> None:
    model = small(d_conv=d_conv)
    full = model(ids())
    hidden, cache = model.step(ids()[:, :7], last=2)
    assert near(hidden, full[:, 5:7])
    for place in range(7, LENGTH):
        hidden, cache = model.step(ids()[:, place : place + 1], cache)
        assert near(hidden, full[:, place : place + 1], 1e-4)


@torch.no_grad()
def test_a_cache_may_be_gone_on_from_twice(model: Mamba) -> None:
    _, cache = model.step(ids()[:, :7])
    states = [each.mixer for each in cache.blocks]
    kept = [ScanState(each.window.clone(), each.state.clone()) for each in states]
    first, _ = model.step(ids()[:, 7:], cache)
    again, _ = model.step(ids()[:, 7:], cache)
    assert torch.equal(first, again)
    for one, other in zip(states, kept, strict=True):
        assert torch.equal(one.window, other.window) and torch.equal(one.state, other.state)


def test_a_cache_does_not_grow(model: Mamba) -> None:
    _, short = model.step(ids(length=2))
    _, long = model.step(ids(length=40))  # longer than max_length, which binds models with positions alone
    shapes = [[(*each.window.shape,), (*each.state.shape,)] for each in (short.blocks[0].mixer, long.blocks[0].mixer)]
    assert shapes == [[(3, 3, 32), (3, 32, 5)]] * 2


def test_gradients_pass_through_a_cache(model: Mamba) -> None:
    embedded = model.embed(ids()).detach().requires_grad_()
    _, cache = model.step(embeddings=embedded[:, :7])
    hidden, _ = model.step(None, cache, embeddings=embedded[:, 7:])
    (in_steps,) = torch.autograd.grad(hidden.sin().sum(), embedded)
    (at_once,) = torch.autograd.grad(model(embeddings=embedded)[:, 7:].sin().sum(), embedded)
    assert near(in_steps, at_once, 1e-4 * float(at_once.abs().max()))


def test_what_computes_is_logged_once_a_model(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for model in (small(), small(scan="loop")):
            for _ in range(2):
                model(ids())
                model.step(ids())
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "scan on cpu: a fused kernel for the CPU",
        "scan on cpu: one step after the other in plain torch",
    ]


# parts


def test_new_block_and_fresh_share_nothing(model: Mamba) -> None:
    x = model.embed(ids())
    block = model.new_block()
    assert block(x).shape == x.shape
    assert not near(block(x), x, 1e-4)
    for other in (block, model.fresh()):
        assert not {id(p) for p in other.parameters()} & {id(p) for p in model.parameters()}
    fresh = small(scan="loop").fresh()
    assert [p.shape for p in fresh.parameters()] == [p.shape for p in model.parameters()]
    assert not near(fresh(ids()), model(ids()), 1e-2)
    assert {each.scan for each in fresh.modules() if hasattr(each, "scan")} == {"loop"}


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = Mamba(depth=4, width=64, d_state=16, d_conv=4, expand=2, vocab_size=400, max_length=LENGTH)
    assert model.tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for block in model.blocks:
        mixer = block.mixer
        assert torch.allclose(-mixer.A_log.exp(), -torch.arange(1.0, 17).expand(128, 16))
        assert (mixer.D == 1).all()
        steps = F.softplus(mixer.dt_proj.bias)
        assert 1e-3 * 0.999 <= steps.min() < 4e-3
        assert 2.5e-2 < steps.max() <= 1e-1 * 1.001
        assert steps.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.4)  # evenly in the logarithm
        assert 0.4 < mixer.dt_proj.weight.abs().max() <= 4**-0.5
        assert mixer.in_proj.weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.01)
        assert mixer.out_proj.weight.abs().max().item() == pytest.approx(128**-0.5 / 2, rel=0.01)
        assert getattr(mixer.A_log, "no_weight_decay", False) and getattr(mixer.D, "no_weight_decay", False)


def test_paper_size() -> None:
    model = Mamba(depth=12, width=384, d_state=16, d_conv=4, expand=2, vocab_size=54, max_length=32)
    inner, rank = 768, 24
    mixer = 2 * inner * 384 + 5 * inner + inner * (rank + 32) + (rank + 1) * inner + 17 * inner + inner * 384
    assert sum(p.numel() for p in model.parameters()) == 12 * (mixer + 384) + 384 + 54 * 384


# others' code


def transformers_mamba(model: Mamba) -> MambaForCausalLM:
    """With our weights copied in."""
    sizes = {
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "state_size": 5,
        "conv_kernel": 4,
        "expand": 2,
    }
    tokens = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    theirs = MambaForCausalLM(MambaConfig(**sizes, **tokens, layer_norm_epsilon=1e-5, use_mambapy=False))
    state = theirs.state_dict()
    pairs = {"tokens.weight": "embeddings.weight", "norm.weight": "norm_f.weight"}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            theirs_name = pairs.get(name, name.replace("blocks.", "layers."))
            state[f"backbone.{theirs_name}"].copy_(value)
    return theirs.eval()


def test_equals_mamba_of_transformers(model: Mamba) -> None:
    theirs = transformers_mamba(model)
    logits, expected = model.logits(model(ids())), theirs(ids()).logits
    assert float(expected.detach().std()) > 0.5
    assert near(logits, expected, 1e-4)
    for each in (logits, expected):
        F.cross_entropy(each.flatten(0, 1), ids(seed=1).flatten()).backward()
    named = dict(theirs.named_parameters())
    for name in ("A_log", "D", "dt_proj.bias", "conv1d.weight", "in_proj.weight"):
        ours = model.get_parameter(f"blocks.1.mixer.{name}").grad
        other = named[f"backbone.layers.1.mixer.{name}"].grad
        assert ours is not None
        assert other is not None
        assert near(ours, other, 1e-4 * (1 + float(other.abs().max())))


# what cannot be


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d_state": 0}, r"model\.d_state=0 is not a whole number of at least 1"),
        ({"expand": -1}, r"model\.expand=-1 is not a whole number of at least 1"),
        ({"scan": "slow"}, r"model\.scan='slow' is unknown: choose auto, mamba_ssm, fused, parallel or loop"),
    ],
)
def test_impossible_size_is_refused(sizes: dict[str, int], message: str) -> None:
    usual = {"depth": 2, "width": 16, "d_state": 4, "d_conv": 4, "expand": 2, "vocab_size": 9, "max_length": 9}
    with pytest.raises(UserError, match=message):
        Mamba(**{**usual, **sizes})


@pytest.mark.parametrize(
    ("asked", "capability"),
    [
        ({"causal": False}, BIDIRECTIONAL),
        ({"mask": torch.ones(LENGTH, LENGTH, dtype=torch.bool)}, CUSTOM_MASK),
        ({"positions": torch.arange(LENGTH)}, POSITIONS),
    ],
)
def test_what_it_cannot_do_is_refused(model: Mamba, asked: dict[str, Tensor], capability: str) -> None:
    with pytest.raises(
        UserError, match=rf"Mamba does not support '{capability}'; it supports \['before_norm', 'embeddings'\]"
    ):
        model(ids(), **asked)


def test_evaluation_computes_the_scan_as_the_machine_can() -> None:
    """A run that was trained with CUDA's kernels can be evaluated on a laptop."""
    sizes = {"depth": 2, "width": 16, "d_state": 4, "vocab_size": 14, "max_length": 18}
    torch.manual_seed(0)
    model, tokens = Mamba(**sizes, scan="mamba_ssm"), torch.randint(14, (2, 18))
    with pytest.raises(UserError, match=r"model\.scan=mamba_ssm runs on cuda, not on cpu"):
        model(tokens)
    model.adapt("cpu")
    torch.manual_seed(0)
    assert torch.equal(model(tokens), Mamba(**sizes, scan="auto")(tokens))
    kept = Mamba(**sizes, scan="loop")
    kept.adapt("cpu")
    assert kept.blocks[0].mixer.scan == "loop"
