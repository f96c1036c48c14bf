"""Mamba-2's scan: its forms against the recurrence, by hand, and their gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nextfail.models.scan.ssd import ssd


def inputs(steps: int, rows: int = 2, heads: int = 3, channels: int = 4, states: int = 5) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(steps)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=made, dtype=torch.float64)

    return {
        "x": normal(rows, steps, heads, channels),
        "dt": normal(rows, steps, heads),
        "A": -normal(heads).exp(),
        "B": normal(rows, steps, states),
        "C": normal(rows, steps, states),
        "D": normal(heads),
        "dt_bias": normal(heads),
        "initial_state": normal(rows, heads, channels, states),
    }


def test_by_hand() -> None:
    """One head of one channel and one state: a sum that halves at each step, read twofold, and the input itself."""
    x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    ones = torch.ones(1, 3, 1)
    halving = -torch.tensor([2.0]).log()
    for form in ("loop", "blocked"):
        y, last = ssd(x, ones, halving, ones, 2 * ones, torch.tensor([10.0]), form=form)
        assert y.flatten().tolist() == pytest.approx([2 + 10, 2 * 2.5 + 20, 2 * 4.25 + 30])
        assert last.flatten().tolist() == pytest.approx([4.25])


@given(
    st.integers(1, 21),
    st.integers(1, 8),
    st.booleans(),
    st.sets(st.sampled_from(["D", "dt_bias", "initial_state"])),
)
@settings(max_examples=60)
def test_blocks_equal_the_recurrence(steps: int, chunk: int, softplus: bool, optional: set[str]) -> None:
    """Outputs, last state and all gradients, in double precision, wherever the chunks end."""
    made = inputs(steps)
    names = ["x", "dt", "A", "B", "C", *sorted(optional)]
    if not softplus:  # steps are not negative
        made |= {"dt": made["dt"].abs(), "dt_bias": made["dt_bias"].abs()}
    results = []
    for form in ("loop", "blocked"):
        leaves = {name: made[name].clone().requires_grad_() for name in names}
        y, last = ssd(**leaves, dt_softplus=softplus, form=form, chunk=chunk)
        loss = y.sin().sum() + last.cos().sum()
        results.append([y, last, *torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)])
    for one, other in zip(*results, strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_differences() -> None:
    made = {name: value.requires_grad_() for name, value in inputs(5, rows=1, heads=2, channels=2, states=2).items()}

    def outputs(*values: Tensor) -> tuple[Tensor, Tensor]:
        return ssd(**dict(zip(made, values, strict=True)), dt_softplus=True, form="blocked", chunk=2)

    assert torch.autograd.gradcheck(outputs, tuple(made.values()))


@given(st.integers(2, 20), st.data())
@settings(max_examples=30)
def test_a_state_carries_over(steps: int, data: st.DataObject) -> None:
    made = inputs(steps)
    cut = data.draw(st.integers(1, steps - 1))
    whole, last = ssd(**made, dt_softplus=True, form="blocked", chunk=4)
    first = {key: value[:, :cut] if key in ("x", "dt", "B", "C") else value for key, value in made.items()}
    rest = {key: value[:, cut:] if key in ("x", "dt", "B", "C") else value for key, value in made.items()}
    one, state = ssd(**first, dt_softplus=True, form="blocked", chunk=4)
    other, end = ssd(**{**rest, "initial_state": state}, dt_softplus=True, form="blocked", chunk=4)
    torch.testing.assert_close(torch.cat([one, other], 1), whole)
    torch.testing.assert_close(end, last)


def test_long_decays_do_not_overflow() -> None:
    """Within a chunk a decay is a product of many: its logarithm is summed, and nothing is divided by it."""
    made = {name: value.float() for name, value in inputs(64).items()}
    made["A"] = torch.full((3,), -1e4)
    y, last = ssd(**made, dt_softplus=True, form="blocked")
    assert y.isfinite().all() and last.isfinite().all()
    leaf = made["x"].requires_grad_()
    (gradient,) = torch.autograd.grad(ssd(**{**made, "x": leaf}, dt_softplus=True, form="blocked")[0].sum(), leaf)
    assert gradient.isfinite().all()


def test_types() -> None:
    made = {name: value.bfloat16() for name, value in inputs(9).items()}
    y, last = ssd(**made, dt_softplus=True, form="blocked")
    expected, _ = ssd(**{name: value.double() for name, value in made.items()}, dt_softplus=True, form="loop")
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y.double(), expected, rtol=0.02, atol=0.02)
