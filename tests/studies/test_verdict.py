"""The rules, on runs whose verdict is plain; the statistics, against scipy and by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from synthetic import make_run

from nextfail.reports.collect import Group, collect
from nextfail.studies.pitfalls import verdict

NEAR_HALF = (0.49, 0.505, 0.51)


def groups(tmp_path: Path, objective: str, runs: Sequence[dict[str, Any]], **more: Any) -> list[Group]:
    """Runs that differ by their seed, read back."""
    for seed, run in enumerate(runs):
        make_run(tmp_path / f"{objective}{seed}", objective=objective, seed=seed, **more, **run)
    return collect([tmp_path]).groups


def says(rule: verdict.Rule, found: list[Group], objective: str) -> verdict.Verdict:
    group = next(group for group in found if group.objective == objective)
    return verdict.of(rule, group, found)


# the test of equivalence


def test_equivalence_by_hand() -> None:
    # mean 0.5, standard deviation 0.01, three seeds: t = 0.03 / (0.01 / sqrt(3)) with 2 degrees of freedom, twice
    test = verdict.equivalence([0.49, 0.5, 0.51], 0.5)
    assert test.mean == pytest.approx(0.5) and test.n == 3
    assert test.p == pytest.approx(student.sf(0.03 / (0.01 / 3**0.5), 2))
    assert test.shown


def test_equivalence_is_the_worse_of_two_tests() -> None:
    test = verdict.equivalence([0.51, 0.52, 0.53], 0.5)
    assert test.p == pytest.approx(student.sf(0.01 / (0.01 / 3**0.5), 2)) and not test.shown


def test_one_seed_allows_no_test() -> None:
    assert verdict.equivalence([0.5], 0.5).p is None and not verdict.equivalence([0.5], 0.5).shown


@pytest.mark.parametrize(("value", "shown"), [(0.5, True), (0.52, True), (0.54, False)])
def test_seeds_that_agree_to_the_digit(value: float, shown: bool) -> None:
    assert verdict.equivalence([value] * 3, 0.5).shown is shown


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0.05, 0.5))
def test_equivalence_is_never_shown_of_a_mean_outside_the_margin(values: list[float], target: float) -> None:
    test = verdict.equivalence(values, target)
    assert test.p is not None and 0 <= test.p <= 1
    assert not test.shown or abs(test.mean - target) < verdict.EQUAL


# failure


def test_failure_is_reproduced_by_seeds_that_guess(tmp_path: Path) -> None:
    found = groups(tmp_path, "teacher_forcing", [{"exact": each, "hard": each} for each in NEAR_HALF])
    told = says(verdict.guesses, found, "teacher_forcing")
    assert told.word == "reproduced"
    assert told.why == "mean exact match 0.502 over 3 seeds, 1/d = 0.500, p = 0.02"


@pytest.mark.parametrize(
    ("runs", "word", "why"),
    [
        ([{"exact": 0.5}], "too few seeds", "over 1 seed, 1/d = 0.500, no test with one seed"),
        ([{"exact": 0.5}, {"exact": 0.9, "hard": 0.9, "outcome": "undertrained"}], "not reproduced", "in 1 of 2 seeds"),
        ([{"exact": 0.5}, {"exact": 0.2, "hard": 0.4, "outcome": "undertrained"}], "undertrained", "in 1 of 2 seeds"),
        ([{"exact": None}], "not run", "no run is done"),
        ([{"exact": None}, {"exact": 0.5}], "too few seeds", "over 1 seed,"),
    ],
)
def test_failure_is_not_claimed_too_soon(tmp_path: Path, runs: list[dict[str, Any]], word: str, why: str) -> None:
    told = says(verdict.guesses, groups(tmp_path, "teacher_forcing", runs), "teacher_forcing")
    assert told.word == word and why in told.why


def test_accuracy_below_chance_is_never_a_failure(tmp_path: Path) -> None:
    runs = [{"exact": 0.3, "hard": 0.3, "cheat": 0.5, "outcome": "undertrained"}] * 3
    found = groups(tmp_path, "teacher_forcing", runs)
    for rule in (verdict.guesses, verdict.cheats, verdict.never_learned):
        assert says(rule, found, "teacher_forcing").word == "undertrained"


def test_model_that_learned_the_hop_did_not_cheat(tmp_path: Path) -> None:
    found = groups(tmp_path, "teacher_forcing", [{"exact": 0.99, "hard": 0.99, "cheat": 1.0, "outcome": "solved"}])
    assert says(verdict.cheats, found, "teacher_forcing").word == "not reproduced"


def test_mean_that_is_too_low_is_undertrained_however_many_seeds_there_are(tmp_path: Path) -> None:
    found = groups(tmp_path, "teacher_forcing", [{"exact": each, "hard": 0.48, "cheat": 0.95} for each in (0.45, 0.46)])
    assert says(verdict.guesses, found, "teacher_forcing").word == "undertrained"


def test_cheat_needs_every_seed(tmp_path: Path) -> None:
    found = groups(tmp_path, "teacher_forcing", [{"cheat": 0.99}, {"cheat": 0.94}])
    assert says(verdict.cheats, found, "teacher_forcing").why == "cheat accuracy of at least 0.95 in 1 of 2 seeds"


def test_hard_token_alone(tmp_path: Path) -> None:
    runs = [{"exact": 0.0, "hard": each, "cheat": None, "outcome": "at_chance"} for each in NEAR_HALF]
    found = groups(tmp_path, "first_hop_only", runs)
    assert says(verdict.guesses_alone, found, "first_hop_only").word == "reproduced"


# errors that add up


@pytest.mark.parametrize(
    ("run", "word"),
    [
        ({}, "reproduced"),
        ({"exact": 0.4}, "not reproduced"),  # more is lost after the hop
        ({"trained": 0.9}, "not reproduced"),  # it was learned by heart
        ({"forced": 0.7}, "too few seeds"),
        ({"forced": None}, "not run"),
        ({"trained": None}, "not run"),
    ],
)
def test_forced_hop(tmp_path: Path, run: dict[str, Any], word: str) -> None:
    found = groups(tmp_path, "teacher_forcing", [{"exact": 0.5, "hard": 0.5} | run] * 2)
    assert says(verdict.never_learned, found, "teacher_forcing").word == word


# remedies

SOLVED = {"exact": 0.99, "hard": 0.99, "cheat": None, "outcome": "solved"}
STUCK = {"exact": 0.5, "cheat": None, "outcome": "at_chance"}
EARLY = {"exact": 0.1, "hard": 0.1, "cheat": None, "outcome": "undertrained"}


@pytest.mark.parametrize(
    ("runs", "word"),
    [([SOLVED, SOLVED], "reproduced"), ([SOLVED, STUCK], "not reproduced"), ([SOLVED, EARLY], "undertrained")],
)
def test_reverse_needs_every_seed(tmp_path: Path, runs: list[dict[str, Any]], word: str) -> None:
    found = groups(tmp_path, "reverse", runs)
    assert says(verdict.solves, found, "reverse").word == word


def test_solved_seeds_have_an_interval(tmp_path: Path) -> None:
    told = says(verdict.solves, groups(tmp_path, "reverse", [SOLVED] * 3), "reverse")
    assert told.why == "3 of 3 seeds solved [0.44, 1.00]"


@pytest.mark.parametrize(
    ("forced", "depth", "word", "why"),
    [
        ({"exact": 0.5}, 4, "reproduced", "teacher-forcing with these settings: 1 of 1 seed clever_hans"),
        ({"exact": 0.99, "outcome": "solved"}, 4, "not reproduced", "nothing to repair"),
        ({"exact": 0.1, "outcome": "undertrained"}, 4, "undertrained", "0 of 1 seed clever_hans"),
        ({"exact": 0.5}, 8, "undertrained", "0 of 0 seeds clever_hans"),
        ({"exact": None}, 4, "undertrained", "0 of 0 seeds clever_hans"),
    ],
)
def test_teacherless_repairs_only_what_fails(
    tmp_path: Path, forced: dict[str, Any], depth: int, word: str, why: str
) -> None:
    groups(tmp_path, "teacher_forcing", [forced], depth=depth)
    told = says(verdict.repairs, groups(tmp_path, "teacherless", [SOLVED]), "teacherless")
    assert told.word == word and why in told.why


def test_teacherless_that_ends_on_the_plateau_is_undertrained(tmp_path: Path) -> None:
    found = groups(tmp_path, "teacherless", [SOLVED, STUCK])
    assert says(verdict.repairs, found, "teacherless").word == "undertrained"


# the cascade, of a path of four nodes

BACKWARDS = {10: [1.0, 0.2, 0.95, 1.0], 20: [1.0, 0.95, 1.0, 1.0]}
FORWARDS = {10: [1.0, 0.95, 0.2, 1.0], 20: [1.0, 0.95, 1.0, 1.0]}
AT_ONCE = {10: [1.0, 0.2, 0.2, 1.0], 20: [1.0, 0.95, 0.95, 1.0]}
HALF_WAY = {10: [1.0, 0.2, 0.95, 1.0], 20: [1.0, 0.5, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("tokens", "word"),
    [
        (BACKWARDS, "reproduced"),
        (FORWARDS, "not reproduced"),
        (AT_ONCE, "not reproduced"),
        (HALF_WAY, "undertrained"),
    ],
)
def test_order_in_which_tokens_come_in(tmp_path: Path, tokens: dict[int, list[float]], word: str) -> None:
    found = groups(tmp_path, "teacherless", [{**SOLVED, "tokens": tokens}], length=4)
    assert says(verdict.right_to_left, found, "teacherless").word == word


def test_path_of_three_nodes_has_no_order(tmp_path: Path) -> None:
    found = groups(tmp_path, "teacherless", [SOLVED])
    assert says(verdict.right_to_left, found, "teacherless").word == "not run"


def test_arrival_in_problems(tmp_path: Path) -> None:
    (group,) = groups(tmp_path, "teacherless", [{**SOLVED, "tokens": BACKWARDS}], length=4)
    assert verdict.arrived(group.runs[0]) == [1000, 2000, 1000, 1000]


# several configurations


def test_contradiction_counts_most_and_what_says_nothing_least() -> None:
    made = [verdict.Verdict(word, "") for word in reversed(verdict.WORDS)]
    assert verdict.combined(made).word == "not reproduced"
    assert verdict.combined(made[:-1]).word == "reproduced"
    assert verdict.combined([]).word == "not run"
