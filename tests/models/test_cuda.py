"""Scans on a CUDA GPU, mamba-ssm's fused kernels among them, against the plain loop: `make test-gpu`."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nextfail.models import Mamba, Mamba2
from nextfail.models.scan import ssd
from nextfail.models.scan.selective_scan import FORMS, selective_scan

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")]
without = FORMS["mamba_ssm"].missing() if torch.cuda.is_available() else "no CUDA GPU here"
needs_kernels = pytest.mark.skipif(without is not None, reason=str(without))
KERNELS = pytest.param("mamba_ssm", marks=needs_kernels)


@needs_kernels
def test_auto_takes_the_fused_kernels() -> None:
    assert FORMS.choose("auto", "cuda") == "mamba_ssm"


@pytest.mark.skipif(without is None, reason="mamba-ssm is here")
def test_auto_takes_the_parallel_form_without_them() -> None:
    assert FORMS.choose("auto", "cuda") == "parallel"


@pytest.mark.parametrize("form", [KERNELS, "parallel"])
@pytest.mark.parametrize("steps", [1, 7, 32, 1024])
@pytest.mark.parametrize("options", [(), ("z",), ("D", "delta_bias"), ("D", "z", "delta_bias")])
def test_scan_equals_the_loop(form: str, steps: int, options: tuple[str, ...]) -> None:
    torch.manual_seed(steps)
    rows, channels, states = 2, 64, 16
    u, delta, z = (torch.randn(rows, channels, steps, device="cuda") for _ in range(3))
    B, C = (torch.randn(rows, states, steps, device="cuda") for _ in range(2))
    given = {"u": u, "delta": delta, "A": -torch.rand(channels, states, device="cuda"), "B": B, "C": C}
    more = {"z": z, "D": torch.randn(channels, device="cuda"), "delta_bias": torch.randn(channels, device="cuda")}
    given |= {name: more[name] for name in options}
    weights = torch.randn_like(u)
    results = []
    for each in ("loop", form):
        leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
        out, last = selective_scan(**leaves, delta_softplus=True, return_last_state=True, form=each)
        results.append([out, last, *torch.autograd.grad((out * weights).sum(), list(leaves.values()))])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.detach().abs().max()))


triton = ssd.FORMS["mamba_ssm"].missing() if torch.cuda.is_available() else "no CUDA GPU here"
TRITON = pytest.param("mamba_ssm", marks=pytest.mark.skipif(triton is not None, reason=str(triton)))


@pytest.mark.parametrize("form", [TRITON, "blocked"])
@pytest.mark.parametrize("steps", [1, 7, 32, 300])
@pytest.mark.parametrize("optional", [(), ("D", "dt_bias"), ("initial_state",)])
def test_ssd_equals_the_loop(form: str, steps: int, optional: tuple[str, ...]) -> None:
    torch.manual_seed(steps)
    rows, heads, channels, states = 2, 4, 32, 64

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda")

    given = {"x": normal(rows, steps, heads, channels), "dt": normal(rows, steps, heads), "A": -normal(heads).exp(),
             "B": normal(rows, steps, states), "C": normal(rows, steps, states)}  # fmt: skip
    more = {"D": normal(heads), "dt_bias": normal(heads), "initial_state": normal(rows, heads, channels, states)}
    given |= {name: more[name] for name in optional}
    weights = normal(rows, steps, heads, channels)
    results = []
    for each in ("loop", form):
        leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
        out, last = ssd.ssd(**leaves, dt_softplus=True, form=each)
        assert last is not None
        results.append([out, last, *torch.autograd.grad((out * weights).sum(), list(leaves.values()))])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2 * float(expected.detach().abs().max()))


MODELS = [(Mamba, "auto"), (Mamba, "parallel"), (Mamba2, "auto"), (Mamba2, "blocked")]


@pytest.mark.parametrize(("kind", "scan"), MODELS)
def test_a_model_is_the_same_as_on_the_cpu(kind: Any, scan: str) -> None:
    torch.manual_seed(0)
    model = kind(depth=2, width=64, d_state=16, d_conv=4, expand=2, vocab_size=20, max_length=40, scan=scan)
    tokens = torch.randint(20, (3, 40))
    losses, gradients = [], []
    for device in ("cpu", "cuda"):
        model.to(device).zero_grad()
        logits = model.logits(model(tokens.to(device)))
        loss = F.cross_entropy(logits.flatten(0, 1), tokens.to(device).flatten())
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.cpu().clone() for p in model.parameters() if p.grad is not None])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-2, atol=1e-3 * float(one.abs().max()))


@pytest.mark.parametrize("kind", [Mamba, Mamba2])
@torch.no_grad()
def test_decoding_from_a_cache_equals_one_pass(kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(depth=2, width=64, d_state=16, d_conv=4, expand=2, vocab_size=20, max_length=40).cuda()
    tokens = torch.randint(20, (3, 40), device="cuda")
    full = model(tokens)
    hidden, cache = model.step(tokens[:, :30])
    torch.testing.assert_close(hidden, full[:, :30], rtol=1e-3, atol=1e-3)
    for place in range(30, 40):
        hidden, cache = model.step(tokens[:, place : place + 1], cache)
        torch.testing.assert_close(hidden, full[:, place : place + 1], rtol=1e-3, atol=1e-3)
