"""nextfail from Python: the same runs as the commands make."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import TINY, assert_same, call

import nextfail
from nextfail.errors import UserError


def test_names_need_no_torch_until_they_are_used() -> None:
    code = "import sys, nextfail; nextfail.train, nextfail.load, nextfail.collect; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert {*nextfail.__all__} <= {*dir(nextfail)}
    assert issubclass(nextfail.PathStar, nextfail.Task) and nextfail.Objective and nextfail.Backbone
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nextfail.nothing


def test_a_run_is_trained_loaded_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = nextfail.train(*TINY, folder=tmp_path)
    assert isinstance(run, nextfail.Run) and run.folder.is_relative_to(tmp_path)
    assert "exact match" in capsys.readouterr().out
    assert run.result is not None and run.result["outcome"] == "undertrained"
    assert run.config["task"]["degree"] == 2 and str(run.task) == "G(2,5)"
    metrics = run.metrics()
    assert metrics["step"] == [10, 20, 30, 40] and len(metrics["exact_match"]) == 4
    assert len(run.metrics("train")["loss"]) == 4 and run.metrics("nothing") == {}

    again = nextfail.load(run.folder)
    problems = again.task.sample(3, torch.Generator().manual_seed(0))
    answers = again.answer(problems)
    assert answers.shape == problems.answers.shape and torch.equal(answers, run.answer(problems))
    assert not again.module.training
    assert again.data.test is not None and len(again.data.test.prompts) == 100

    measured = nextfail.evaluate(again)
    assert measured["exact_match"] == run.result["exact_match"]
    other = nextfail.evaluate(again, task={"path_length": 4})
    assert other["task"]["name"] == "G(2,4)" and other["exact_match"]["n"] == 100
    told = json.loads(call("eval", run.folder, "--json", cwd=tmp_path).stdout)
    assert {**told, "checkpoint": ""} == {**json.loads(json.dumps(measured)), "checkpoint": ""}
    (row,) = nextfail.collect(tmp_path / "runs")
    assert (row["task"], row["degree"], row["outcome"]) == ("G(2,5)", 2, "undertrained")


def test_training_again_finds_the_run_and_is_the_command(run_folder: Path, tmp_path: Path) -> None:
    run = nextfail.train(*TINY, "task=g2_4", "hydra.run.dir=here", folder=tmp_path)
    assert isinstance(run, nextfail.Run)
    assert_same(run_folder, run.folder)
    before = (run.folder / "result.json").read_bytes()
    assert nextfail.train(*TINY, "task=g2_4", "hydra.run.dir=here", folder=tmp_path) == run
    assert (run.folder / "result.json").read_bytes() == before


def test_a_sweep_gives_a_list(tmp_path: Path) -> None:
    runs = nextfail.train("-m", *TINY, "trainer.max_steps=10", "seed=0,1", folder=tmp_path)
    assert isinstance(runs, list) and [run.config["seed"] for run in runs] == [0, 1]


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key optimizer\.rate"):
        nextfail.train("+optimizer.rate=1", folder=tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        nextfail.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no run found"):
        nextfail.collect(tmp_path)
