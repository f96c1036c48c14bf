"""nextfail from Python: the same runs as the commands make."""

import json
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from commands import TINY, assert_same, call

import nextfail
from nextfail.api import Run
from nextfail.errors import UserError
from nextfail.models import Mamba
from nextfail.objectives import TeacherForcing
from nextfail.tasks import PathStar
from nextfail.training.module import TaskModule


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


def test_the_module_is_one_for_any_trainer(run_folder: Path) -> None:
    run = nextfail.load(run_folder)
    assert run.result is not None
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (measured,) = trainer.test(run.module, datamodule=run.data, verbose=False)
    assert measured["test/exact_match"] == pytest.approx(run.result["exact_match"]["value"])
    predicted = trainer.predict(run.module, run.data.test_dataloader())
    assert predicted is not None and run.data.test is not None
    assert torch.equal(torch.cat(predicted), run.answer(run.data.test))


def test_a_run_of_cudas_kernels_answers_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = PathStar(degree=2, path_length=3, num_nodes=10)
    objective = TeacherForcing()
    backbone = Mamba(1, 16, task.vocab.size, objective.max_length(task), d_state=4, scan="mamba_ssm")
    module = TaskModule(task, backbone, objective)
    monkeypatch.setattr("nextfail.training.load.load", lambda folder, trust: (module, None, None))
    assert Run(tmp_path).answer(task.sample(2, torch.Generator())).shape == (2, 3)


def test_an_answer_is_drawn(run_folder: Path) -> None:
    run = nextfail.load(run_folder)
    figure = run.draw(run.task.sample(2, torch.Generator().manual_seed(0)))
    titles = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text().startswith("from ")]
    assert len(titles) == 2 and all(title.endswith(("wrong", "right")) for title in titles)


def test_nothing_to_draw_is_said(run_folder: Path) -> None:
    run = nextfail.load(run_folder)
    with pytest.raises(UserError, match="there is nothing to draw"):
        run.draw(run.task.sample(1, torch.Generator().manual_seed(0)).rows(slice(0)))


def test_attention_and_hidden_states_are_those_of_the_pass(run_folder: Path) -> None:
    run = nextfail.load(run_folder)
    problems = run.task.sample(3, torch.Generator().manual_seed(0))
    seen = run.inspect(problems)
    answers, backbone = run.answer(problems), run.module.backbone
    assert torch.equal(seen.tokens, torch.cat([problems.prompts.long(), answers[:, :-1]], 1))
    assert seen.texts[0][-4] == "=" and torch.equal(seen.written, answers)
    depth, heads, length = 2, 4, seen.tokens.shape[1]
    assert [x.shape for x in seen.hidden] == [(3, length, 32)] * depth and len(seen.attention) == depth
    for layer, (x, weights) in enumerate(zip(seen.hidden, seen.attention, strict=True)):
        assert weights is not None and weights.shape == (3, heads, length, length)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, heads, length))
        assert weights.triu(1).abs().max() == 0, "nothing is read from the future"
        block = backbone.layers()[layer]
        value = block.mixer.query_key_value(block.norm(x)).chunk(3, -1)[2].unflatten(-1, (heads, -1))
        attended = block.mixer.project((weights @ value.transpose(1, 2)).transpose(1, 2).flatten(2))
        torch.testing.assert_close(attended, block.mixer(block.norm(x)))
    predicted = backbone.logits(backbone.norm(backbone.layers()[-1](seen.hidden[-1], last=answers.shape[1]))).argmax(-1)
    assert torch.equal(predicted, answers), "greedy answers are what the same pass predicts"


@pytest.mark.slow
@pytest.mark.parametrize("settings", [("model=mamba", "objective=teacherless"), ("objective=any_order",)])
def test_other_models_and_objectives_are_inspected(settings: tuple[str, ...], tmp_path: Path) -> None:
    run = nextfail.train(*TINY, "trainer.max_steps=10", "task=g2_3", *settings, folder=tmp_path)
    assert isinstance(run, nextfail.Run)
    seen = run.inspect(run.task.sample(2, torch.Generator().manual_seed(0)))
    assert len(seen.hidden) == 2
    if "model=mamba" in settings:
        assert seen.attention == [None, None] and seen.texts[0][-2:] == ["$", "$"]
    else:
        assert all(weights is not None and weights.triu(1).max() > 0 for weights in seen.attention)


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
