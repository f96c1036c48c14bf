"""All forms of the scan against the plain loop, which is checked by hand."""

import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from torch import Tensor

from nextfail.models.scan import cpu_kernels, fused
from nextfail.models.scan.fused import _call
from nextfail.models.scan.selective_scan import loop, parallel
from nextfail.models.scan.selective_scan import selective_scan as scan

OTHERS = ("parallel", "fused")  # that run on this machine; mamba_ssm is in test_cuda.py
OPTIONAL = ("D", "z", "delta_bias", "initial_state")


def arguments(
    rows: int = 2, channels: int = 3, steps: int = 5, states: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=dtype)

    wide, narrow = (rows, channels, steps), (rows, states, steps)
    return {
        "u": normal(*wide), "delta": normal(*wide), "A": -normal(channels, states).exp(), "B": normal(*narrow),
        "C": normal(*narrow), "D": normal(channels), "z": normal(*wide), "delta_bias": normal(channels),
        "initial_state": normal(rows, channels, states),
    }  # fmt: skip


def everything(given: dict[str, Tensor], softplus: bool, form: str) -> list[Tensor]:
    """Output, last state, and the gradients of a function of both."""
    given = {name: value.clone().requires_grad_() for name, value in given.items()}
    out, last = scan(**given, delta_softplus=softplus, return_last_state=True, form=form)
    weights = torch.arange(out.numel()).view_as(out).cos()
    total = (out * weights).sum() + (last * last).sum()
    return [out, last, *torch.autograd.grad(total, list(given.values()))]


def assert_near(some: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(some, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        scale = max(1.0, float(other.detach().abs().max()))
        assert float((one - other).detach().abs().max()) <= tolerance * scale


# the specification


def test_two_steps_by_hand() -> None:
    one = torch.ones(1, 1, 2, dtype=torch.float64)
    u, delta = torch.tensor([[[2.0, 3.0]]]).double(), torch.tensor([[[0.5, 1.0]]]).double()
    A, B, C = (
        torch.tensor([[-1.0, 0.0]]).double(),
        one.expand(1, 2, 2),
        torch.tensor([[[1.0, 1.0], [10.0, 10.0]]]).double(),
    )
    # h_1 = (1, 1); h_2 = (exp(-1) 1 + 3, 1 + 3)
    out, last = scan(u, delta, A, B, C, return_last_state=True, form="loop")
    assert out.flatten().tolist() == pytest.approx([1 + 10, math.exp(-1) + 3 + 40])
    assert last.flatten().tolist() == pytest.approx([math.exp(-1) + 3, 4])
    gated = scan(u, delta, A, B, C, D=torch.tensor([7.0]).double(), z=2 * one, form="loop")
    silu = 2 / (1 + math.exp(-2))
    assert gated.flatten().tolist() == pytest.approx([(11 + 14) * silu, (math.exp(-1) + 43 + 21) * silu])


def test_step_sizes_by_hand() -> None:
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    bias = torch.tensor([0.25]).double()
    plain = scan(one, one, -one[0], one, one, delta_bias=bias, form="loop")
    assert plain.item() == pytest.approx(1.25)
    soft = scan(one, one, -one[0], one, one, delta_bias=bias, delta_softplus=True, form="loop")
    assert soft.item() == pytest.approx(math.log1p(math.exp(1.25)))


def test_a_recurrence_by_hand() -> None:
    decay, x = torch.tensor([[0.5, 2.0, 10.0]]), torch.tensor([[1.0, 1.0, 5.0]])
    assert loop(decay, x).tolist() == [[1, 3, 35]]
    assert parallel(decay, x).tolist() == [[1, 3, 35]]


# every form against it

shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 70), st.integers(1, 6))


@pytest.mark.parametrize("form", OTHERS)
@given(shapes, st.sets(st.sampled_from(OPTIONAL)), st.booleans(), st.integers(0, 1000))
def test_equals_the_loop(
    form: str, shape: tuple[int, int, int, int], left_out: set[str], softplus: bool, seed: int
) -> None:
    given = {name: each for name, each in arguments(*shape, seed=seed).items() if name not in left_out}
    if not softplus:
        given["delta"] = given["delta"].abs()
        given.pop("delta_bias", None)  # negative steps make states grow without end
    assert_near(everything(given, softplus, form), everything(given, softplus, "loop"), 1e-12)


@pytest.mark.parametrize("form", OTHERS)
@given(shapes, st.integers(0, 1000))
@settings(max_examples=15)
def test_equals_the_loop_in_single_precision(form: str, shape: tuple[int, int, int, int], seed: int) -> None:
    given = arguments(*shape, seed=seed, dtype=torch.float32)
    exact = [each.float() for each in everything({k: v.double() for k, v in given.items()}, True, "loop")]
    assert_near(everything(given, True, form), exact, 2e-5)


@pytest.mark.parametrize("form", ["loop", *OTHERS])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("left_out", [(), OPTIONAL])
def test_gradients(form: str, steps: int, left_out: tuple[str, ...]) -> None:
    given = {name: each.requires_grad_() for name, each in arguments(steps=steps).items() if name not in left_out}

    def both(*values: Tensor) -> Any:
        named = dict(zip(given, values, strict=True))
        return scan(**named, delta_softplus=True, return_last_state=True, form=form)

    assert torch.autograd.gradcheck(both, tuple(given.values()))


@pytest.mark.parametrize(
    "width", [cpu_kernels.CHUNK - 1, cpu_kernels.CHUNK, cpu_kernels.CHUNK + 1, 3 * cpu_kernels.CHUNK]
)
def test_chunks_and_tiles_meet(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "WIDEST", 4)
    given = arguments(channels=10, steps=width)
    assert_near(everything(given, True, "fused"), everything(given, True, "loop"), 1e-12)


@pytest.mark.parametrize("form", ["loop", *OTHERS])
def test_long_sequences_stay_finite(form: str) -> None:
    given = arguments(rows=1, steps=1024, dtype=torch.float32)
    given["A"], given["delta"] = given["A"] * 16, given["delta"] * 10  # decays from none to exp(-300)
    exact = [each.float() for each in everything({k: v.double() for k, v in given.items()}, True, "loop")]
    results = everything(given, True, form)
    assert all(each.isfinite().all() for each in results)
    assert_near(results, exact, 1e-4)


@pytest.mark.parametrize("form", ["loop", *OTHERS])
def test_half_precision_is_computed_in_single(form: str) -> None:
    given = arguments(dtype=torch.float32)
    names = ("u", "delta", "B", "C", "z")
    half = given | {name: given[name].bfloat16() for name in names}
    single = given | {name: half[name].float() for name in names}
    out, last = scan(**half, return_last_state=True, form=form)
    expected, expected_last = scan(**single, return_last_state=True, form=form)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected.bfloat16())
    assert torch.equal(last, expected_last)


def test_any_memory_layout_will_do() -> None:
    given = arguments()
    turned = {k: v.transpose(0, -1).contiguous().transpose(0, -1) if v.dim() > 1 else v for k, v in given.items()}
    assert_near(everything(turned, True, "fused"), everything(given, True, "fused"), 0)


# the fused kernels


@pytest.fixture
def threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("threads")
def test_result_does_not_depend_on_threads() -> None:
    given = arguments(rows=5, channels=17, steps=40, dtype=torch.float32)
    results = []
    for count in (1, 2, 3, 8):
        torch.set_num_threads(count)
        results.append(everything(given, True, "fused"))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_little_is_saved_for_the_backward_pass() -> None:
    given = {k: v.requires_grad_() for k, v in arguments(8, 64, 256, 16, dtype=torch.float32).items()}
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        out = scan(**given, delta_softplus=True, form="fused")
    assert isinstance(out, Tensor)
    assert 0 < saved <= 2 * (out.nbytes + sum(each.nbytes for each in given.values()))


@njit
def elementary(x: Any, exp: Any, sigmoid: Any, softplus: Any) -> None:
    for i in range(x.size):
        exp[i], sigmoid[i], softplus[i] = (
            cpu_kernels._exp(x[i]),
            cpu_kernels._sigmoid(x[i]),
            cpu_kernels._softplus(x[i]),
        )


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 6e-7), (np.float64, 1e-15)])
def test_elementary_functions(dtype: type, tolerance: float) -> None:
    x = np.linspace(-87, 87, 100_001).astype(dtype)
    exp, sigmoid, softplus = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    elementary(x, exp, sigmoid, softplus)
    wide = x.astype(np.longdouble)
    np.testing.assert_allclose(exp, np.exp(wide), rtol=tolerance)
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-wide)), rtol=tolerance)
    np.testing.assert_allclose(softplus, np.logaddexp(0, wide), rtol=tolerance)


def test_elementary_functions_far_out() -> None:
    x = np.array([-np.inf, -1e30, -200, 200, 1e30, np.inf], np.float32)
    exp, sigmoid, softplus = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    elementary(x, exp, sigmoid, softplus)
    assert (exp[:3] < 1.3e-38).all() and (exp[3:] > 1e38).all()
    assert sigmoid.tolist() == pytest.approx([0, 0, 0, 1, 1, 1], abs=1e-37)
    assert softplus.tolist() == pytest.approx([0, 0, 0, 200, 1e30, np.inf], rel=1e-6, abs=1e-37)
    x[:] = np.nan
    elementary(x, exp, sigmoid, softplus)
    assert np.isnan(softplus).all(), "a loss that is not finite must not be hidden"


@pytest.mark.parametrize(
    ("name", "shape"),
    [("delta", (2, 3, 6)), ("B", (2, 3, 5)), ("C", (2, 4, 6)), ("D", (4,)), ("z", (1, 3, 5)), ("delta_bias", (1,)),
     ("initial_state", (2, 4, 3)), ("A", (2, 4))],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_named(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^{name} has shape"):
        scan(**arguments() | {name: torch.zeros(shape)})


def test_what_is_no_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="T at least 1"):
        scan(**arguments(steps=0))
    with pytest.raises(ValueError, match="real A"):
        scan(**arguments() | {"A": torch.zeros(3, 4, dtype=torch.complex64)})


# compiled code on disk


NO_CACHE = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []  # no folder can be written
from nextfail.models.scan.selective_scan import FORMS
from nextfail.models.scan.fused import fused_conv
import torch
print(FORMS["fused"].missing(), FORMS.choose("auto", "cpu"))
print(fused_conv(torch.ones(1, 2, 1), torch.ones(1, 2), torch.zeros(1)).shape)
"""


def test_code_that_cannot_be_kept_on_disk_is_compiled_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", NO_CACHE], capture_output=True, text=True)
    assert done.stdout == "None fused\ntorch.Size([1, 2, 1])\n", done.stderr


def test_a_disk_that_fills_up_while_code_is_saved_costs_nothing() -> None:
    called = []

    def kernel(*arguments: int) -> None:
        called.append(arguments)
        if len(called) == 1:
            raise OSError(28, "No space left on device")

    _call(kernel, 1, 2)
    assert called == [(1, 2), (1, 2)]
