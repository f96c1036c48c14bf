"""What it took, worked out by hand from run folders that were written without training."""

from pathlib import Path

import pytest
from synthetic import change, curve, make_run

from nextfail.reports import budget, leaderboard, report
from nextfail.reports.collect import Collection, Group, collect
from nextfail.reports.record import read_run


@pytest.fixture
def found(tmp_path: Path) -> Collection:
    """Teacher-forcing, which fails, and zigzag, which two of three seeds solve; batches of 100 problems, 20 steps."""
    for seed in (0, 1):
        run = make_run(tmp_path / f"tf{seed}", seed=seed)
        change(run / "result.json", flops=1e9, seconds=4.0 + seed, parameters=1000)
    for seed, steps in ((0, {4: 0.5, 8: 0.96, 12: 0.94}), (1, {4: 0.95}), (2, {4: 0.5, 20: 0.9})):
        made = make_run(tmp_path / f"zig{seed}", objective="zigzag", seed=seed, exact=0.97 if seed < 2 else 0.9,
                        outcome="solved" if seed < 2 else "undertrained")  # fmt: skip
        curve(made, steps)
        change(made / "result.json", flops=3e9, seconds=9.0, parameters=1250)
    cut = make_run(tmp_path / "zig3", objective="zigzag", seed=3, exact=None, status={"state": "cut"})
    curve(cut, {4: 0.97})
    return collect([tmp_path])


def group(found: Collection, objective: str) -> Group:
    return next(each for each in found.groups if each.objective == objective)


def test_first_validation_at_the_target_counts(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", exact=0.9)
    for steps, expected in (({4: 0.5, 8: 0.95, 12: 0.94}, 800), ({4: 0.949}, None), ({4: 1.0, 8: 0.2}, 400)):
        curve(made, steps)
        assert leaderboard.to_solved(read_run(made)) == expected
    (made / "metrics.csv").unlink()
    assert leaderboard.to_solved(read_run(made)) is None


def test_costs_are_medians_over_seeds(tmp_path: Path) -> None:
    for seed, step in enumerate((4, 8, 20)):
        made = make_run(tmp_path / str(seed), seed=seed, exact=0.97, outcome="solved")
        curve(made, {step: 0.96})
        change(made / "result.json", flops=2000.0)  # one a problem
    (only,) = collect([tmp_path]).groups
    row = leaderboard.row(only, [only])
    assert row[3:6] == ["3/3 [0.44, 1.00]", "800", "8.0e+02"]


def test_the_figure_of_costs_has_a_dot_a_seed_and_hollow_ones_that_never_came(found: Collection) -> None:
    figure = budget.costs(found.groups)
    assert figure is not None
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines if line.get_linestyle() == "-"][:3] == [
        [0.5, 0.96, 0.94], [0.95], [0.5, 0.9]
    ]  # fmt: skip
    flops = 3e9 / 2000  # of a problem
    dots = [list(line.get_xdata()) for line in right.lines if line.get_marker() == "o" and line.get_mfc() != "white"]
    assert dots[0] == pytest.approx([800 * flops, 400 * flops])
    hollow = [line.get_ydata()[0] for line in right.lines if line.get_mfc() == "white"]
    assert hollow == [0, 1, 1]  # one seed of zigzag, two of teacher_forcing; a run that was cut says nothing
    bars = [line.get_xdata()[0] for line in right.lines if line.get_marker() == "|"]
    assert bars == pytest.approx([600 * flops])
    assert [label.get_text() for label in right.get_yticklabels()] == ["zigzag", "teacher_forcing"]
    figure.draw_without_rendering()
    assert all(axes.get_position().width > 0.25 for axes in figure.axes)  # nothing outside a panel takes its room
    assert budget.costs(found.groups[:1]) is None


def test_costs_by_hand(found: Collection) -> None:
    cost = leaderboard.cost(group(found, "zigzag"), found.groups)
    assert cost.problems == [800, 400]
    assert cost.flops == [800 * 3e9 / 2000, 400 * 3e9 / 2000]
    assert cost.flops_ratio == pytest.approx(3)
    assert cost.time_ratio == pytest.approx(2)  # 9 s against the median of 4 and 5
    assert cost.parameters == 250


def test_the_row_says_it(found: Collection) -> None:
    row = dict(zip(leaderboard.COLUMNS, leaderboard.row(group(found, "zigzag"), found.groups), strict=True))
    assert row == {
        "objective": "zigzag",
        "model": "transformer",
        "exact match": "0.947",
        "solved": "2/4 [0.15, 0.85]",
        "problems to 0.95": "600",
        "FLOPs to 0.95": "9.0e+08",
        "FLOPs a problem": "3.00",
        "time a problem": "2.00",
        "extra parameters": "250",
    }
    row = dict(zip(leaderboard.COLUMNS, leaderboard.row(group(found, "teacher_forcing"), found.groups), strict=True))
    assert (row["problems to 0.95"], row["FLOPs a problem"], row["extra parameters"]) == ("-", "1.00", "0")


def test_a_baseline_of_another_setting_is_none(tmp_path: Path) -> None:
    make_run(tmp_path / "tf", depth=8)
    make_run(tmp_path / "zig", objective="zigzag")
    found = collect([tmp_path])
    cost = leaderboard.cost(group(found, "zigzag"), found.groups)
    assert (cost.flops_ratio, cost.time_ratio, cost.parameters) == (None, None, None)
    assert leaderboard.row(group(found, "zigzag"), found.groups)[-3:] == ["-", "-", "-"]


def test_results_without_costs_are_shown_without(found: Collection, tmp_path: Path) -> None:
    for path in tmp_path.glob("*/result.json"):
        change(path, flops=None, seconds=0, parameters=...)
    again = collect([tmp_path])
    row = leaderboard.row(group(again, "zigzag"), again.groups)
    assert row[4:] == ["600", "-", "-", "-", "-"]


def test_best_first(tmp_path: Path) -> None:
    for name, exact, outcome, steps in (
        ("slow", 0.97, "solved", {16: 0.97}),
        ("quick", 0.97, "solved", {4: 0.97}),
        ("close", 0.9, "undertrained", {16: 0.9}),
        ("far", 0.5, "clever_hans", {16: 0.5}),
    ):
        curve(make_run(tmp_path / name, objective=name, exact=exact, outcome=outcome), steps)
    ranked = leaderboard.ranked(collect([tmp_path]).groups)
    assert [each.objective for each in ranked] == ["quick", "slow", "close", "far"]


def test_what_is_judged_on_the_hop_comes_last_and_by_the_hop(tmp_path: Path) -> None:
    """Three of three solved by its own rule, and no path right: it is no better than one of two."""
    for seed in range(3):
        make_run(tmp_path / f"hop{seed}", objective="first_hop_only", seed=seed, exact=0.01, hard=0.99, cheat=None,
                 outcome="solved", tokens={4: [1.0, 0.5, 0.0], 8: [1.0, 0.96, 0.0]})  # fmt: skip
    make_run(tmp_path / "half", objective="reverse", exact=0.97, outcome="solved")
    make_run(tmp_path / "other", objective="reverse", seed=1, exact=0.5)
    found = collect([tmp_path])
    assert [each.objective for each in leaderboard.ranked(found.groups)] == ["reverse", "first_hop_only"]
    row = leaderboard.row(group(found, "first_hop_only"), found.groups)
    assert (row[3], row[4]) == ("3/3 [0.44, 1.00]", "800")
    (sentence,) = report.in_words(found)
    assert "first_hop_only with transformer (3 of 3 seeds, hard token 0.990)" in sentence


def test_what_has_not_ended_is_counted_and_shown(tmp_path: Path) -> None:
    make_run(tmp_path / "done", objective="zigzag", exact=0.97, outcome="solved")
    for seed in (1, 2):
        make_run(tmp_path / f"cut{seed}", objective="zigzag", seed=seed, exact=None, status={"state": "cut"})
    make_run(tmp_path / "two of two", objective="reverse", exact=0.97, outcome="solved")
    make_run(tmp_path / "none", objective="spiral", exact=None, status={"state": "cut"})
    text = report.page(collect([tmp_path]), ())
    lines = text.partition("costs, best first")[2].partition("\n\n- ")[0].splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")][2:]
    shown = [(row[0].strip("| "), row[3].partition(" ")[0]) for row in rows]
    assert shown == [("reverse", "1/1"), ("zigzag", "1/3"), ("spiral", "0/1")]


def test_nothing_to_compare_is_no_table(tmp_path: Path) -> None:
    make_run(tmp_path / "alone")
    assert "costs, best first" not in report.page(collect([tmp_path]), ())
