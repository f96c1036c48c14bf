"""A pretrained model through the commands: loaded, tokenised, trained, generated, evaluated; and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from commands import call, refused, result
from tiny import make_model, make_tokenizer

pytestmark = pytest.mark.paper

SHORT = ("debug=default", "trainer.max_steps=4", "trainer.val_every=2", "model=gpt2", "optimizer.lr=1e-3")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment on one graph with one seed, and the folder in which it was called."""
    cwd = tmp_path_factory.mktemp("pretrained")
    make_model(cwd / "gpt2")
    asked = ("experiment=pitfalls/pretrained", "task=g2_5", "seed=0", "model.source=gpt2")
    call("train", *asked, *SHORT, "hydra.sweep.dir=runs", cwd=cwd)
    return cwd


def run_of(cwd: Path, objective: str) -> Path:
    (found,) = (cwd / "runs").glob(f"*objective={objective}*")
    return found


def test_every_objective_is_trained_and_evaluated_again(sweep: Path) -> None:
    for objective in ("teacher_forcing", "reverse", "teacherless"):
        run = run_of(sweep, objective)
        done = result(run)
        assert (done["model"], done["objective"], done["steps"]) == ("gpt2", objective, 4)
        said = json.loads(call("eval", run, "--json", cwd=sweep).stdout)
        assert said["exact_match"] == done["exact_match"] and said["outcome"] == done["outcome"]
    page = sweep / "report" / "index.html"
    call("report", "runs", "--out", "report", cwd=sweep)
    assert "G(2,5)" in page.read_text() and "gpt2" in page.read_text()


def test_run_knows_its_model_by_content_and_not_by_place(sweep: Path) -> None:
    identity = json.loads((run_of(sweep, "reverse") / "run.json").read_text())
    assert set(identity["model"]["source"]) == {"sha256"}
    shutil.copytree(sweep / "gpt2", sweep / "elsewhere" / "copy")
    asked = ("experiment=pitfalls/pretrained", "task=g2_5", "seed=0", "model.source=elsewhere/copy")
    again = call("train", *asked, *SHORT, "hydra.sweep.dir=runs", cwd=sweep)
    assert "3 runs: 3 done before" in again.stderr


def test_model_that_changed_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path / "gpt2")
    asked = (*SHORT, "model.source=gpt2", "hydra.run.dir=run")
    call("train", *asked, cwd=tmp_path)
    make_tokenizer(tmp_path / "gpt2", numbers=61)
    assert "is not the model that this run began with" in refused("eval", "run", cwd=tmp_path)
    assert "model.source" in refused("train", *asked, cwd=tmp_path)


def test_tokenizer_without_a_token_for_each_node_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    make_model(tmp_path / "gpt2", numbers=20)
    said = refused("train", *SHORT, "model.source=gpt2", "hydra.run.dir=run", cwd=tmp_path)
    assert "does not have one token for each of 20, 21, 22, 23, 24" in said
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_source_has_to_be_named(tmp_path: Path) -> None:
    assert "model.source has no value: give one" in refused("train", *SHORT, cwd=tmp_path)
