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
    assert {"exact_match", "token_accuracy", "forced_token_accuracy", "cheat_accuracy", "outcome", "graph"} <= shared
    assert {key: evaluated[key] for key in shared} == {key: result[key] for key in shared}


def test_eval_prints_a_table(run_folder: Path, tmp_path: Path) -> None:
    printed = call("eval", run_folder, "--checkpoint", "best", cwd=tmp_path).stdout
    assert "best.ckpt" in printed and "exact match" in printed and "forced token accuracy 3" in printed


def test_eval_on_a_file_and_on_another_size(run_folder: Path, tmp_path: Path) -> None:
    call("data", "--task", "g2_4", "--n", 150, "--seed", 3, "--out", "test.txt", cwd=tmp_path)
    on_file = json.loads(call("eval", run_folder, "--file", "test.txt", "--json", cwd=tmp_path).stdout)
    assert on_file["exact_match"]["n"] == 150
    smaller = json.loads(call("eval", run_folder, "--task", "g2_3", "--json", cwd=tmp_path).stdout)
    assert smaller["graph"]["path_length"] == 3 and len(smaller["token_accuracy"]) == 3
    assert "this run's model reads at most" in refused("eval", run_folder, "--task", "g5_5", cwd=tmp_path)
    assert "knows only 50 labels" in refused("eval", run_folder, "--task", "g20_5", cwd=tmp_path)
    assert "choose one of g2_3" in refused("eval", run_folder, "--task", "g2", cwd=tmp_path)
    assert "there is no file" in refused("eval", run_folder, "--file", "no.txt", cwd=tmp_path)
    assert "test.txt, line 1" in refused("eval", run_folder, "--task", "g2_3", "--file", "test.txt", cwd=tmp_path)


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


@pytest.mark.parametrize("section", ["model", "objective", "data"])
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


def test_checkpoint_of_another_run_or_schema(copied: Path, tmp_path: Path) -> None:
    path = copied / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"nextfail": {"schema": 1, "identity": "another"}}, path)
    assert "belongs to another run" in refused("eval", copied, cwd=tmp_path)
    torch.save(checkpoint | {"nextfail": {"schema": 99, "identity": "another"}}, path)
    assert "has schema 99" in refused("eval", copied, cwd=tmp_path)
    path.unlink()
    assert "there is no checkpoint" in refused("eval", copied, cwd=tmp_path)


def test_data_never_writes_over_a_file(tmp_path: Path) -> None:
    arguments = ("--task", "g2_5", "--n", 20, "--seed", 1, "--out", "a.txt")
    call("data", *arguments, cwd=tmp_path)
    before = (tmp_path / "a.txt").read_text()
    assert "exists already" in refused("data", *arguments, cwd=tmp_path)
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
