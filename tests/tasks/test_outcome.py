import math
from typing import Any

import pytest

from nextfail.tasks.path_star.outcome import OUTCOMES, judge


def wilson(value: float, n: int = 2000) -> dict[str, float]:
    z = 1.959964
    centre, spread = value + z * z / (2 * n), z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return {"value": value, "low": low, "high": high, "n": n}


def metrics(
    exact: float,
    cheat: float | None = None,
    hard: float | None = None,
    others: tuple[float, ...] = (1.0, 1.0, 1.0),
    degree: int = 2,
    n: int = 2000,
) -> dict[str, Any]:
    """Of a path of one start, one hard token and `others[1:]`; the hard token is as right as the whole if not said."""
    tokens = [wilson(value, n) for value in (others[0], exact if hard is None else hard, *others[1:])]
    return {
        "exact_match": wilson(exact, n),
        "hard_token_accuracy": tokens[1],
        "cheat_accuracy": None if cheat is None else wilson(cheat, n),
        "token_accuracy": tokens,
        "forced_token_accuracy": None,
        "chance": 1 / degree,
    }


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        # the two of the issue
        ("clever_hans", metrics(0.485, cheat=0.97, hard=0.5)),
        ("undertrained", metrics(0.30, cheat=0.60, hard=0.5)),
        # solved
        ("solved", metrics(0.95, cheat=0.95)),
        ("solved", metrics(1.0, cheat=1.0)),
        ("solved", metrics(0.95)),
        ("undertrained", metrics(0.9495, cheat=1.0)),
        ("undertrained", metrics(0.9495)),
        # the cheat must be learned
        ("clever_hans", metrics(0.475, cheat=0.95, hard=0.5)),
        ("undertrained", metrics(0.47, cheat=0.9495, hard=0.5)),
        ("undertrained", metrics(0.47, cheat=0.94, hard=0.5)),
        # and the first hop a guess, with its whole interval
        ("clever_hans", metrics(0.52, cheat=1.0)),
        ("undertrained", metrics(0.535, cheat=1.0)),
        ("undertrained", metrics(0.56, cheat=1.0)),
        ("clever_hans", metrics(0.48, cheat=1.0)),
        ("undertrained", metrics(0.465, cheat=1.0)),
        ("undertrained", metrics(0.5, cheat=1.0, n=200)),
        ("undertrained", metrics(0.70, cheat=1.0)),
        # below 1/d nothing has failed yet
        ("undertrained", metrics(0.30, cheat=1.0, hard=0.30)),
        ("undertrained", metrics(0.0, cheat=0.0, hard=0.02)),
        ("undertrained", metrics(0.30, hard=0.30)),
        # chance is 1/d
        ("clever_hans", metrics(0.2, cheat=0.99, degree=5)),
        ("undertrained", metrics(0.5, cheat=0.99, degree=5)),
        ("undertrained", metrics(0.2, cheat=0.99, degree=2)),
        # with many arms, a hop that is never right is no guess
        ("clever_hans", metrics(0.05, cheat=0.99, degree=20)),
        ("undertrained", metrics(0.0, cheat=0.99, degree=20)),
        ("undertrained", metrics(0.0, degree=20)),
        # where no hop can be given
        ("at_chance", metrics(0.5, others=(1.0, 1.0, 1.0))),
        ("at_chance", metrics(0.47, hard=0.5, others=(0.95, 0.96, 0.95))),
        ("undertrained", metrics(0.47, hard=0.5, others=(0.9495, 1.0, 1.0))),
        ("undertrained", metrics(0.47, hard=0.5, others=(1.0, 0.94, 1.0))),
        ("undertrained", metrics(0.47, hard=0.5, others=(1.0, 1.0, 0.94))),
        ("undertrained", metrics(0.6, others=(1.0, 1.0, 1.0))),
        ("undertrained", metrics(0.5, others=(1.0, 1.0, 1.0), n=200)),
        ("at_chance", metrics(0.2, others=(1.0, 1.0, 1.0), degree=5)),
    ],
)
def test_rule(outcome: str, said: dict[str, Any]) -> None:
    assert judge(said) == outcome


@pytest.mark.parametrize("said", [metrics(1.0), metrics(0.5, cheat=1.0), metrics(0.5), metrics(0.1, cheat=0.1)])
def test_not_finite_comes_before_all(said: dict[str, Any]) -> None:
    assert judge(said, finite=False) == "diverged"
    assert judge(said, finite=True) != "diverged"


def test_edges_of_the_interval_belong_to_chance() -> None:
    said = metrics(0.5, cheat=1.0)
    said["hard_token_accuracy"] = {"value": 0.5, "low": 0.5 - 0.05, "high": 0.5 + 0.05, "n": 400}
    assert judge(said) == "clever_hans"
    for key, value in (("low", 0.4499), ("high", 0.5501)):
        hard = said["hard_token_accuracy"] | {key: value}
        assert judge(said | {"hard_token_accuracy": hard}) == "undertrained"


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 0.42, 0.46, 0.97])
def test_cheat_that_was_measured_is_never_called_chance(value: float) -> None:
    assert judge(metrics(value / 2, cheat=value, hard=0.5)) in ("undertrained", "clever_hans")


def test_every_outcome_is_explained() -> None:
    assert set(OUTCOMES) == {"diverged", "solved", "clever_hans", "at_chance", "undertrained"}


@pytest.mark.parametrize(
    ("hard", "outcome"), [(0.5, "at_chance"), (0.97, "solved"), (0.3, "undertrained"), (0.7, "undertrained")]
)
def test_first_hop_only_is_judged_on_the_hard_token_alone(hard: float, outcome: str) -> None:
    assert judge(metrics(0.0, hard=hard, others=(1.0, 0.0, 0.0)), judged_by="hard_token_accuracy") == outcome
