"""nextfail-eval and nextfail-data from the command line, on folders and files that may be somebody else's."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TINY, call, refused

from nextfail.runs.identity import digest


class Hostile:
    """Unpickling this touches a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    """A run folder that a test may spoil."""
    folder = tmp_path / "objective=teacher_forcing,seed=0"
    shutil.copytree(run_folder, folder)
    return folder


def test_eval_repeats_the_result(run_folder: Path, tmp_path: Path) -> None:
    evaluated = json.loads(call("eval", run_folder, "--json", cwd=tmp_path).stdout)
    result = json.loads((run_folder / "result.json").read_text())
    shared = set(result) & set(evaluated)
    assert {"exact_match", "token_accuracy", "forced_token_accuracy", "cheat_accuracy", "outcome", "task"} <= shared
    assert {key: evaluated[key] for key in shared} == {key: result[key] for key in shared}


def test_eval_prints_a_table(run_folder: Path, tmp_path: Path) -> None:
    printed = call("eval", run_folder, "--checkpoint", "best", cwd=tmp_path).stdout
    assert "best.ckpt" in printed and "exact match" in printed and "forced token accuracy 3" in printed


@pytest.mark.slow
def test_eval_on_a_file_and_on_another_size(run_folder: Path, tmp_path: Path) -> None:
    call("data", "--task", "g2_4", "--n", 150, "--seed", 3, "--out", "test.txt", cwd=tmp_path)
    on_file = json.loads(call("eval", run_folder, "--file", "test.txt", "--json", cwd=tmp_path).stdout)
    assert on_file["exact_match"]["n"] == 150
    smaller = json.loads(call("eval", run_folder, "--task", "g2_3", "--json", cwd=tmp_path).stdout)
    assert smaller["task"]["settings"]["path_length"] == 3 and len(smaller["token_accuracy"]) == 3
    same = call("eval", run_folder, *sized("path_star", "path_length=3"), "--json", cwd=tmp_path)
    assert json.loads(same.stdout) == smaller
    assert "this run's model reads at most" in refused("eval", run_folder, "--task", "g5_5", cwd=tmp_path)
    assert "knows only 50 labels" in refused("eval", run_folder, "--task", "g20_5", cwd=tmp_path)
    assert "choose one of g2_3" in refused("eval", run_folder, "--task", "g2", cwd=tmp_path)
    assert "there is no file" in refused("eval", run_folder, "--file", "no.txt", cwd=tmp_path)
    assert "test.txt, line 1" in refused("eval", run_folder, "--task", "g2_3", "--file", "test.txt", cwd=tmp_path)


def sized(name: str, *settings: str) -> list[str]:
    """Arguments that name a task and its settings."""
    return ["--task", name, *(text for setting in settings for text in ("--set", setting))]


@pytest.mark.slow
def test_eval_on_another_size_says_what_is_wrong_with_it(run_folder: Path, tmp_path: Path) -> None:
    for arguments, message in {
        ("--set", "degree=3"): "--set needs --task",
        (*sized("path_star", "degree"),): "--set degree: give KEY=VALUE",
        (*sized("path_star", "degree=1"),): "task.degree=1 is not a whole number of at least 2",
        (*sized("g2_4", "task.num_nodes=12"),): "task.num_nodes=12: this run's model is for task.num_nodes=50",
        (*sized("path_star", "query=before"),): "task.query cannot be changed for a trained model",
        (*sized("path_star", "arms=3"),): "unknown key task.arms: did you mean task.",
        (
            *sized("star_mixed"),
        ): "--task star_mixed is a nextfail.tasks.star_mixed.task.StarMixed, but this run's task is a",
        (*sized("path_star", "degree=[3"),): "--set degree=[3: ",
    }.items():
        assert message in refused("eval", run_folder, *arguments, cwd=tmp_path), arguments


@pytest.mark.slow
def test_data_of_another_size_and_layout(tmp_path: Path) -> None:
    plain, sizes = ("--n", 20, "--seed", 1, "--out"), ("degree=2", "path_length=4", "num_nodes=50")
    call("data", "--task", "g2_4", *plain, "named.txt", cwd=tmp_path)
    call("data", *sized("path_star", *sizes), *plain, "put_together.txt", cwd=tmp_path)
    assert (tmp_path / "named.txt").read_text() == (tmp_path / "put_together.txt").read_text()
    call("data", *sized("g2_4", "edges=by_arm"), *plain, "by_arm.txt", cwd=tmp_path)
    for line in (tmp_path / "by_arm.txt").read_text().splitlines():
        edges = [edge.split(",") for edge in line.partition("/")[0].split("|")]
        assert all(edges[i][1] == edges[i + 1][0] for i in (0, 1, 3, 4)) and edges[0][0] == edges[3][0]
    assert "task.degree=1 is not a whole number of at least 2" in refused(
        "data", *sized("g2_4", "degree=1"), *plain, "a.txt", cwd=tmp_path
    )
    assert "unknown key task.arms" in refused("data", *sized("g2_4", "arms=1"), *plain, "a.txt", cwd=tmp_path)
    call("data", *sized("g2_4", "task.degree=3"), *plain, "with_a_prefix.txt", cwd=tmp_path)
    assert (tmp_path / "with_a_prefix.txt").read_text() != (tmp_path / "named.txt").read_text()
    assert not (tmp_path / "a.txt").exists()


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    assert "is not a folder" in refused("eval", "nowhere", cwd=tmp_path)
    assert "run.json is missing" in refused("eval", tmp_path, cwd=tmp_path)


def test_hostile_checkpoint_runs_nothing(copied: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with (copied / "checkpoints" / "last.ckpt").open("wb") as file:
        pickle.dump(Hostile(mark), file)
    assert "last.ckpt" in refused("eval", copied, cwd=tmp_path)
    torch.save({"nextfail": Hostile(mark)}, copied / "checkpoints" / "last.ckpt")
    assert "could run code" in refused("eval", copied, cwd=tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("section", ["task", "model", "objective", "data"])
def test_hostile_run_json_runs_nothing(copied: Path, tmp_path: Path, section: str) -> None:
    run = json.loads((copied / "run.json").read_text())
    run[section] = {"_target_": "os.mkdir", "path": str(tmp_path / "mark")}
    run["classes"][section] = {"name": "os.mkdir", "sha256": None}
    (copied / "run.json").write_text(json.dumps(run))
    assert "its hash is not that of its content" in refused("eval", copied, cwd=tmp_path)
    del run["checksum"]
    run["checksum"] = digest(run)  # as somebody would who means harm
    (copied / "run.json").write_text(json.dumps(run))
    assert "--trust" in refused("eval", copied, cwd=tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.slow
def test_checkpoint_of_another_run_or_schema(copied: Path, tmp_path: Path) -> None:
    path = copied / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"nextfail": {"schema": 1, "identity": "another"}}, path)
    assert "belongs to another run" in refused("eval", copied, cwd=tmp_path)
    torch.save(checkpoint | {"nextfail": {"schema": 99, "identity": "another"}}, path)
    assert "has schema 99" in refused("eval", copied, cwd=tmp_path)
    path.unlink()
    assert "there is no checkpoint" in refused("eval", copied, cwd=tmp_path)


@pytest.mark.slow
def test_data_never_writes_over_a_file(tmp_path: Path) -> None:
    arguments = ("--task", "g2_5", "--n", 20, "--seed", 1, "--out", "a.txt")
    call("data", *arguments, cwd=tmp_path)
    before = (tmp_path / "a.txt").read_text()
    assert "already exists" in refused("data", *arguments, cwd=tmp_path)
    assert (tmp_path / "a.txt").read_text() == before
    call("data", *arguments[:-1], "b.txt", cwd=tmp_path)
    assert (tmp_path / "b.txt").read_text() == before  # the seed decides
    assert len(before.splitlines()) == 20 and sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_training_on_files(tmp_path: Path) -> None:
    for name, count, seed in (("train.txt", 500, 1), ("test.txt", 100, 2)):
        call("data", "--task", "g2_4", "--n", count, "--seed", seed, "--out", name, cwd=tmp_path)
    sets = ("data=files", "data.validation=100", "data.train_file=train.txt", "data.test_file=test.txt")
    call("train", *TINY, *sets, "task=g2_4", "hydra.run.dir=run", cwd=tmp_path)
    evaluated = json.loads(call("eval", "run", "--json", cwd=tmp_path).stdout)
    assert evaluated["exact_match"] == json.loads((tmp_path / "run" / "result.json").read_text())["exact_match"]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(run["data"]["train_file"]["sha256"]) == 64  # known by content, wherever it lies
