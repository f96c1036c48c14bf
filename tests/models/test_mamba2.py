"""Mamba-2 against transformers' own, and its initial weights."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import Mamba2Config, Mamba2ForCausalLM

from nextfail.errors import UserError
from nextfail.models import Mamba2
from nextfail.models.mixers.mamba2 import Mamba2Mixer

VOCAB, LENGTH = 17, 12


def small(seed: int = 0, depth: int = 3, **more: object) -> Mamba2:
    """Weights are larger than at the beginning of a training, so that outputs differ."""
    torch.manual_seed(seed)
    sizes = {"depth": depth, "width": 16, "d_state": 6, "head_dim": 8, "vocab_size": VOCAB, "max_length": LENGTH}
    model = Mamba2(**sizes, **more)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            torch.nn.init.normal_(parameter, std=0.4)
        elif "A_log" not in name:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
    return model


def ids(rows: int = 3, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def theirs_of(model: Mamba2) -> Mamba2ForCausalLM:
    """With our weights copied in."""
    config = Mamba2Config(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=model.depth, state_size=6, head_dim=8, num_heads=4,
        expand=2, conv_kernel=4, n_groups=1, chunk_size=4, tie_word_embeddings=True, layer_norm_epsilon=1e-5,
        pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = Mamba2ForCausalLM(config)
    state = theirs.state_dict()
    pairs = {"tokens.weight": "embeddings.weight", "norm.weight": "norm_f.weight"}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            state[f"backbone.{pairs.get(name, name.replace('blocks.', 'layers.'))}"].copy_(value)
    return theirs.eval()


def test_equals_mamba2_of_transformers() -> None:
    model = small()
    theirs = theirs_of(model)
    logits, expected = model.logits(model(ids())), theirs(ids()).logits
    assert float(expected.detach().std()) > 0.5
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    for each in (logits, expected):
        F.cross_entropy(each.flatten(0, 1), ids(seed=1).flatten()).backward()
    named = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        if "blocks" in name:
            other = named[f"backbone.{name.replace('blocks.', 'layers.')}"].grad
            assert parameter.grad is not None and other is not None
            torch.testing.assert_close(parameter.grad, other, rtol=1e-3, atol=1e-4, msg=name)


def test_forms_give_the_same_model() -> None:
    one, other = small(scan="blocked"), small(scan="loop")
    torch.testing.assert_close(one(ids()), other(ids()), rtol=0, atol=2e-5)


@pytest.mark.parametrize("steps", [1, 31, 32, 33, 70])
def test_flops_do_not_depend_on_the_form(steps: int) -> None:
    """Those of matrix products are counted by torch, and the others told by the mixer."""
    counts = []
    for scan in ("blocked", "loop"):
        mixer = Mamba2Mixer(16, d_state=6, head_dim=8, scan=scan)
        x = torch.randn(2, steps, 16, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            mixer(x).sum().backward()
        counts.append(counter.get_total_flops() + 3 * mixer.uncounted_flops(x))
    assert counts[0] == counts[1]


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = Mamba2(depth=4, width=256, vocab_size=400, max_length=LENGTH)
    assert model.tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for block in model.blocks:
        mixer = block.mixer
        assert (mixer.D == 1).all() and (mixer.norm.weight == 1).all()
        assert mixer.A_log.exp().min() >= 1 and mixer.A_log.exp().max() <= 16.001
        steps = F.softplus(mixer.dt_bias)
        assert steps.min() >= 1e-3 * 0.999 and steps.max() <= 1e-1 * 1.001
        assert mixer.out_proj.weight.abs().max().item() == pytest.approx(512**-0.5 / 2, rel=0.01)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"head_dim": 5}, r"model\.head_dim=5 does not divide the 32 inner channels, model\.expand=2 times model\.w"),
        ({"d_state": 0}, r"model\.d_state=0 is not a whole number of at least 1"),
        ({"scan": "fused"}, r"model\.scan='fused' is unknown: choose auto, mamba_ssm, blocked or loop"),
    ],
)
def test_impossible_size_is_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Mamba2(**{"depth": 2, "width": 16, "vocab_size": 9, "max_length": 9, **sizes})
