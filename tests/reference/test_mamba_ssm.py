"""Mamba against mamba-ssm's own code, on the CPU: `make test-reference` installs it.

Its package wants a compiled CUDA module on import, which is not called here: an empty one stands in for it, and its
plain reference scan for its CUDA kernels.
"""

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from nextfail.models.mixers.mamba import MambaMixer
from nextfail.models.scan.selective_scan import selective_scan

absent = find_spec("mamba_ssm") is None
pytestmark = [pytest.mark.reference, pytest.mark.skipif(absent, reason="mamba-ssm is absent: make test-reference")]
FORMS = ("loop", "parallel", "fused")


def assert_near(found: Tensor | None, expected: Tensor) -> None:
    """Within single precision, next to the largest entry: both sides sum in float32, in orders of their own."""
    assert found is not None
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * scale)


@pytest.fixture(autouse=True)
def cuda_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", ModuleType("selective_scan_cuda"))


@pytest.fixture
def mixers(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, MambaMixer]:
    """One of theirs and one of ours, each made after the same seed."""
    from mamba_ssm.modules import mamba_simple
    from mamba_ssm.ops.selective_scan_interface import selective_scan_ref

    monkeypatch.setattr(mamba_simple, "selective_scan_fn", selective_scan_ref)
    torch.manual_seed(0)
    theirs = mamba_simple.Mamba(d_model=48, d_state=16, d_conv=4, expand=2, use_fast_path=False)
    torch.manual_seed(0)
    return theirs, MambaMixer(48, d_state=16, d_conv=4, expand=2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [1, 7, 64])
@pytest.mark.parametrize("options", [(), ("z",), ("D", "delta_bias"), ("D", "z", "delta_bias")])
def test_scan_equals_their_reference(form: str, steps: int, options: tuple[str, ...]) -> None:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_ref

    torch.manual_seed(steps)
    rows, channels, states = 2, 12, 16
    u, delta, z = (torch.randn(rows, channels, steps) for _ in range(3))
    B, C = (torch.randn(rows, states, steps) for _ in range(2))
    given = {"u": u, "delta": delta, "A": -torch.rand(channels, states), "B": B, "C": C}
    more = {"z": z, "D": torch.randn(channels), "delta_bias": torch.randn(channels)}
    given |= {name: more[name] for name in options}
    results = []
    for scan in (selective_scan_ref, lambda **given: selective_scan(**given, form=form)):
        leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
        out, last = scan(**leaves, delta_softplus=True, return_last_state=True)
        results.append([out, last, *torch.autograd.grad(out.sin().sum(), list(leaves.values()))])
    for expected, found in zip(*results, strict=True):
        assert_near(found, expected)


def test_names_and_shapes_are_theirs(mixers: tuple[Any, MambaMixer]) -> None:
    theirs, ours = ({name: (*value.shape,) for name, value in each.state_dict().items()} for each in mixers)
    assert ours == theirs


def test_initial_weights_are_theirs(mixers: tuple[Any, MambaMixer]) -> None:
    theirs, ours = (each.state_dict() for each in mixers)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_their_weights_give_their_outputs_and_gradients(form: str, mixers: tuple[Any, MambaMixer]) -> None:
    theirs, ours = mixers
    ours.scan = form
    torch.manual_seed(1)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 20, 48)
    outputs: list[Tensor] = [theirs(x), ours(x)]
    assert float(outputs[0].detach().std()) > 0.1
    assert_near(outputs[1], outputs[0])
    for out in outputs:
        (out * torch.arange(out.numel()).view_as(out).cos()).sum().backward()
    for name, parameter in theirs.named_parameters():
        assert_near(ours.get_parameter(name).grad, parameter.grad)
