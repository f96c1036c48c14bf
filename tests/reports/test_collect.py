import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from synthetic import AS_PUBLISHED, change, cut_short, example, make_run, rewrite, write

from nextfail.errors import UserError
from nextfail.reports.collect import chance_of, collect, find
from nextfail.reports.record import read_run
from nextfail.reports.series import series
from nextfail.runs.lock import Owner
from nextfail.runs.records import ODD


def test_finds_runs_at_any_depth_and_each_once(tmp_path: Path) -> None:
    deep, flat = make_run(tmp_path / "a/b/objective=reverse,seed=1"), make_run(tmp_path / "plain", seed=1)
    assert find([tmp_path]) == [deep, flat]
    assert find([deep]) == [deep]
    assert find([tmp_path, tmp_path / "a"]) == find([tmp_path / "a", tmp_path]) != []
    assert len(find([tmp_path, tmp_path / "a"])) == 2


def test_a_folder_that_is_missing_or_has_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        collect([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no run found in .*empty"):
        collect([tmp_path / "empty"])


def test_seeds_make_a_group_with_means_over_them(tmp_path: Path) -> None:
    for seed, exact in ((10, 0.9), (2, 0.5), (0, 0.4)):
        outcome = "solved" if exact == 0.9 else "clever_hans"
        make_run(tmp_path / str(seed), seed=seed, exact=exact, hard=exact / 2, outcome=outcome)
    (group,) = collect([tmp_path]).groups
    assert [run.seed for run in group.runs] == [0, 2, 10]
    assert group.mean("exact_match") == pytest.approx(0.6)  # (0.9 + 0.5 + 0.4) / 3
    assert group.mean("hard_token_accuracy") == pytest.approx(0.3)
    assert group.outcomes == {"clever_hans": 2, "solved": 1}
    assert (group.task, group.model, group.objective, group.chance) == (
        "G(2,3)",
        "transformer",
        "teacher_forcing",
        0.5,
    )


def test_a_cheat_that_was_not_asked_has_no_mean(tmp_path: Path) -> None:
    make_run(tmp_path / "a", objective="teacherless", cheat=None)
    (group,) = collect([tmp_path]).groups
    assert group.mean("cheat_accuracy") is None and group.mean("exact_match") == 0.5


def test_namesakes_are_told_apart_by_the_keys_that_differ(tmp_path: Path) -> None:
    for name, depth, seed in (("a", 16, 0), ("b", 4, 0), ("c", 16, 1)):
        make_run(tmp_path / name, depth=depth, seed=seed)
    make_run(tmp_path / "alone", objective="reverse", depth=16)
    groups = collect([tmp_path]).groups
    assert [(group.objective, group.model) for group in groups] == [
        ("teacher_forcing", "transformer (model.depth=4)"),
        ("teacher_forcing", "transformer (model.depth=16)"),
        ("reverse", "transformer"),
    ]
    assert [len(group.runs) for group in groups] == [1, 2, 1]


def test_labels_stay_short_and_different(tmp_path: Path) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        make_run(tmp_path / name, optimizer=dict.fromkeys("pqrst", lr))
    labels = [group.differs for group in collect([tmp_path]).groups]
    assert len(set(labels)) == 3
    assert labels[0] == "optimizer.p=0.1, optimizer.q=0.1, optimizer.r=0.1, ..."


def test_labels_that_would_be_the_same_end_in_a_hash(tmp_path: Path) -> None:
    for name, lr, decay in (("a", 0.1, 0), ("b", 0.1, 1), ("c", 0.2, 0)):
        make_run(tmp_path / name, optimizer={**dict.fromkeys("pqr", lr), "s": decay})
    labels = [group.differs for group in collect([tmp_path]).groups]
    long = r"optimizer.p=0.1, optimizer.q=0.1, optimizer.r=0.1, \.\.\."
    assert len(set(labels)) == 3 and sum(bool(re.fullmatch(f"{long} [0-9a-f]{{4}}", label)) for label in labels) == 2


def test_labels_name_the_classes_that_differ(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / name, optimizer={"_target_": f"{name}.Mine", "_partial_": True})
    assert {group.differs.partition(",")[0] for group in collect([tmp_path]).groups} == {
        "optimizer=one.Mine", "optimizer=two.Mine"
    }  # fmt: skip


def test_order_is_the_papers_and_then_by_name(tmp_path: Path) -> None:
    names = ("zigzag", "teacherless", "another", "teacher_forcing", "reverse")
    for name in names:
        make_run(tmp_path / name, objective=name)
    make_run(tmp_path / "wide", objective="zigzag", degree=3)
    groups = collect([tmp_path]).groups
    assert [group.objective for group in groups] == [
        "teacher_forcing", "reverse", "teacherless", "another", "zigzag", "zigzag"
    ]  # fmt: skip
    assert groups[-1].task == "G(3,3)"


def test_one_run_in_two_folders_counts_once_and_done(tmp_path: Path) -> None:
    cut, done = tmp_path / "a", tmp_path / "b"
    make_run(cut, exact=None, status={"state": "cut", "step": 15})
    make_run(done, exact=0.5)
    make_run(tmp_path / "c", exact=None, status={"state": "cut", "step": 5})
    found = collect([tmp_path])
    assert [run.folder for group in found.groups for run in group.runs] == [done]
    assert [(problem.folder.name, problem.reason) for problem in found.problems] == [
        (name, f"the same run as {done}, which counts") for name in ("a", "c")
    ]


STATES: dict[str, tuple[dict[str, object] | None, str, str]] = {
    "running": (
        {"state": "running", "step": 1500, "max_steps": 2000},
        "running",
        "at step 1,500 of 2,000, last heartbeat",
    ),
    "not started": ({"state": "starting", "step": ...}, "running", "before its first step"),
    "killed": ({"state": "running", "time": 0}, "cut", "min, at step 20 of 20; the same command resumes"),
    "cut": ({"state": "cut"}, "cut", "at step 20 of 20; the same command resumes"),
    "failed": ({"state": "failed", "error": "no space"}, "failed", "no space"),
    "without a result": ({"state": "done"}, "cut", "its result is missing or damaged"),
    "no status": (None, "cut", "status.json is missing or damaged"),
}


@pytest.mark.parametrize("name", STATES)
def test_why_a_run_is_not_done(tmp_path: Path, name: str) -> None:
    status, state, reason = STATES[name]
    folder = make_run(tmp_path / "run", exact=None)
    if status is None:
        cut_short(folder / "status.json")
    else:
        change(folder / "status.json", **status)
    if state == "running":
        (folder / ".lock").write_text(json.dumps(asdict(Owner.here())))
    (problem,) = collect([tmp_path]).problems
    assert problem.state == state and reason in problem.reason


def test_a_run_that_failed_before_it_had_a_status(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", exact=None)
    (folder / "status.json").unlink()
    (folder / "error.txt").write_text("Traceback")
    assert read_run(folder).state == "failed"


EMPTY = {**AS_PUBLISHED, "degree": 0, "path_length": 3, "num_nodes": 50}
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "half a run.json": (lambda folder: cut_short(folder / "run.json"), "run.json is missing or damaged"),
    "no run.json": (lambda folder: (folder / "run.json").unlink(), "run.json is missing or damaged"),
    "a later schema": (lambda folder: change(folder / "run.json", schema=99), "schema 99"),
    "no choices": (lambda folder: rewrite(folder / "run.json", choices=...), "it has no choices"),
    "no model": (lambda folder: change(folder / "run.json", model=...), "its hash is not that of its content"),
    "odd task": (lambda folder: change(folder / "run.json", task=[2, 5]), "its hash is not that of its content"),
    "no arms": (lambda folder: change(folder / "run.json", task=EMPTY), "its hash is not that of its content"),
    "odd task, summed": (lambda folder: rewrite(folder / "run.json", task=[2, 5]), f"{ODD}: task"),
    "no arms, summed": (lambda folder: rewrite(folder / "run.json", task=EMPTY), "run.json: task.degree is '0'"),
    "half a result": (lambda folder: cut_short(folder / "result.json"), "result.json is damaged"),
    "result of a later schema": (lambda folder: change(folder / "result.json", schema=99), "result.json: schema 99"),
    "no exact match": (lambda folder: change(folder / "result.json", exact_match=...), "field `exact_match`"),
    "null exact match": (lambda folder: change(folder / "result.json", exact_match=None), f"{ODD}: exact_match"),
    "another's result": (lambda folder: change(folder / "result.json", identity="abc"), "to another run"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_cannot_be_read_is_listed_and_not_fatal(tmp_path: Path, name: str) -> None:
    damage, reason = DAMAGES[name]
    damage(make_run(tmp_path / "bad", seed=1))
    good = make_run(tmp_path / "good")
    found = collect([tmp_path])
    (problem,) = found.problems
    assert problem.folder == tmp_path / "bad" and problem.state == "unreadable" and reason in problem.reason
    assert [run.folder for group in found.groups for run in group.runs if run.result] == [good]


def test_a_curve_is_the_validation_rows_in_order(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", tokens={20: [1.0, 0.5, 0.6], 10: [0.9, 0.1, 0.2]}, batch_size=128)
    curve = read_run(folder).curve()
    assert curve is not None
    assert curve.samples == [1280, 2560]
    assert curve.tokens == [[0.9, 0.1, 0.2], [1.0, 0.5, 0.6]]
    assert curve.cheat == [1.0, 1.0]


def test_a_step_may_be_of_several_batches(tmp_path: Path) -> None:
    budget = {"max_steps": 20, "val_every": 10, "options": {"accumulate_grad_batches": 3}}
    run = read_run(make_run(tmp_path / "run", batch_size=128, budget=budget))
    curve = run.curve()
    assert curve is not None and curve.samples == [3840, 7680]
    assert series(run, "validation/token_accuracy_1") == [(3840, 0.2), (7680, 0.5)]


def test_settings_that_make_no_sense_have_no_curve(tmp_path: Path) -> None:
    budget = {"max_steps": 20, "val_every": 10, "options": {"accumulate_grad_batches": "x"}}
    run = read_run(make_run(tmp_path / "run", budget=budget))
    assert run.curve() is None and series(run, "validation/token_accuracy_1") == []


def test_chance_is_that_of_the_run_that_knows_it(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / str(seed), seed=seed)
    (group,) = collect([tmp_path]).groups
    facts = [replace(run.facts, chance=chance) for run, chance in zip(group.runs, (None, 0.3), strict=True)]
    runs = [replace(run, facts=each) for run, each in zip(group.runs, facts, strict=True)]
    assert replace(group, runs=runs).chance == 0.3
    assert chance_of([replace(group, runs=[run]) for run in runs]) == 0.3
    assert math.isnan(chance_of([replace(group, runs=runs[:1])]))


def test_a_curve_without_some_columns_has_gaps(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", tokens={10: [1.0, 0.5]}, cheat=None)
    with (folder / "metrics.csv").open("a") as file:
        file.write("odd,validation,1\n30,validation,x\n")
    curve = read_run(folder).curve()
    assert curve is not None and curve.samples == [1000, 3000]
    assert curve.tokens[0][:2] == [1.0, 0.5]
    assert math.isnan(curve.tokens[0][2]) and math.isnan(curve.tokens[1][0]) and math.isnan(curve.cheat[0])


def test_done_runs_that_lack_what_figures_need_are_listed(tmp_path: Path) -> None:
    for name, seed in (("empty", 0), ("binary", 1), ("gone", 2)):
        folder = make_run(tmp_path / name, seed=seed)
        (folder / "metrics.csv").unlink()
        if name != "gone":
            (folder / "metrics.csv").write_bytes(b"" if name == "empty" else b"\xff\xfe\x00step")
    found = collect([tmp_path])
    assert [problem.state for problem in found.problems] == ["done"] * 3
    assert all("metrics.csv" in problem.reason and "examples" not in problem.reason for problem in found.problems)
    assert found.groups[0].mean("exact_match") == 0.5


BAD_EXAMPLES = {
    "no list": {"edges": []},
    "no key": [{"edges": [], "start": 1}],
    "path off the graph": [example([7, 1, 4]) | {"path": [7, 9, 4]}],
    "another length": [example([7, 1])],
    "empty path": [example([]) | {"path": []}],
}


@pytest.mark.parametrize("name", BAD_EXAMPLES)
def test_examples_are_whole_or_none(tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path / "run")
    assert [each.generated for each in read_run(folder).examples()] == [(7, 3, 9)]
    write(folder / "examples.json", BAD_EXAMPLES[name])
    assert read_run(folder).examples() == []
    (problem,) = collect([tmp_path]).problems
    assert problem.reason == "not in every figure: nothing to draw in examples.json"
