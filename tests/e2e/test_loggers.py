"""Loggers get every setting and the run's name, and one run stays one run when it is resumed; all of it offline."""

import json
import os
import re
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, call, command, refused, until, wait_for
from inside import compose, train_here
from omegaconf import OmegaConf

from nextfail.runs.folder import RunFolder
from nextfail.sweeps.resolve import resolve
from nextfail.training.trainer import make_logger

ROOT = Path(__file__).parents[2]
KEPT = """
from lightning.pytorch.loggers.csv_logs import CSVLogger

class Kept(CSVLogger):
    def __init__(self, id, name):
        super().__init__("/nowhere", name)
        self.id, self.given = id, {}

    def log_hyperparams(self, params):
        self.given |= params
"""


def test_every_logger_gets_flat_settings_and_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept_logger.py").write_text(KEPT)
    monkeypatch.syspath_prepend(tmp_path)
    short = ("debug=default", "model.depth=1", "model.width=8", "trainer.max_steps=1", "callbacks=none")
    train_here(tmp_path / "a run", *short)
    cfg = compose(*short)
    OmegaConf.set_struct(cfg, False)
    config, _ = resolve(cfg, tmp_path, cfg.pop("hydra"))
    spec: dict[str, Any] = {"_target_": "kept_logger.Kept", "id": "x{id}", "name": "of {run}"}
    logger = make_logger("mine", spec, config, RunFolder(tmp_path / "a run"))
    assert logger.name == "of a run" and logger.given["run"] == "a run"
    assert logger.given["trainer.max_steps"] == 1 and logger.given["task.degree"] == 2 and logger.given["seed"] == 0
    assert logger.given["objective._target_"].endswith("TeacherForcing") and logger.given["optimizer.betas"]
    assert not any(isinstance(value, dict) for value in logger.given.values())


def cut_and_resumed(tmp_path: Path, logger: str, env: dict[str, str]) -> Path:
    """A run that was stopped after its second validation and asked for again."""
    run = (*TINY, f"logger={logger}", "name=w", "seed=3", "trainer.max_steps=400", "callbacks=none")
    process = subprocess.Popen(command("train", *run), cwd=tmp_path, env=os.environ | env, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    until(lambda: list(tmp_path.glob("runs/w/*/metrics.csv")))
    (metrics,) = tmp_path.glob("runs/w/*/metrics.csv")
    wait_for(metrics, "\n20,validation")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 130
    call("train", *run, cwd=tmp_path, env=env)
    return metrics.parent


@pytest.mark.slow
def test_wandb_gets_the_configuration_and_goes_on_with_its_run(tmp_path: Path) -> None:
    folder = cut_and_resumed(tmp_path, "wandb", {"WANDB_MODE": "offline", "WANDB_SILENT": "true"})
    began = json.loads((folder / "run.json").read_text())["began"]
    files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{began['id']}.wandb"] * 2  # one run in two parts
    for file in files:
        content = file.read_bytes()
        assert folder.name.encode() in content  # its name
        assert b"teacher_forcing.TeacherForcing" in content and b"optimizer.weight_decay" in content


def rows(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "mlflow.db") as base:
        return base.execute(query).fetchall()


@pytest.mark.slow
def test_mlflow_goes_on_with_its_run(tmp_path: Path) -> None:
    folder = cut_and_resumed(tmp_path, "mlflow", {})
    base = folder.parent
    assert rows(base, "select name, status from runs") == [(folder.name, "FINISHED")]
    assert rows(base, "select value from params where key = 'optimizer.weight_decay'") == [("0.1",)]
    assert rows(base, "select value from params where key = 'run'") == [(folder.name,)]
    steps = [
        step for (step,) in rows(base, "select step from metrics where key = 'validation/exact_match' order by step")
    ]
    assert {*steps} == {*range(10, 401, 10)} and steps[-1] == 400
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["nonsense", "sqlite:////no/such/folder/x.db"])
def test_a_store_that_cannot_be_used_is_one_message(uri: str, tmp_path: Path) -> None:
    told = refused("train", *TINY, "logger=mlflow", f"logger.mlflow.tracking_uri={uri}", cwd=tmp_path)
    assert f"logger.mlflow.tracking_uri={uri} cannot be used: " in told


@pytest.mark.slow
def test_a_sweep_shares_one_store(tmp_path: Path) -> None:
    three = ("seed=0,1,2", "trainer.max_steps=2", "hydra.launcher.n_jobs=3")
    told = call("train", "-m", *TINY, "logger=mlflow", "name=w", *three, cwd=tmp_path).stderr
    assert "3 runs: 3 done now" in told and "mlflow" not in told
    base = tmp_path / "runs/w"
    assert len(rows(base, "select name from runs")) == 3
    assert [name for (name,) in rows(base, "select name from experiments")].count("w") == 1


@pytest.mark.slow
def test_the_sweep_file_of_the_docs_makes_a_command(tmp_path: Path) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    (text,) = re.findall(r"```yaml\n(program:.*?)```", (ROOT / "docs/loggers.md").read_text(), re.DOTALL)
    sweep: Any = OmegaConf.to_container(OmegaConf.create(text))
    assert sweep["program"] == "nextfail-train" and sweep["metric"]["name"] == "validation/exact_match"
    drawn = {"objective": {"value": "reverse"}, "optimizer.lr": {"value": 0.00123}}
    assert drawn.keys() == sweep["parameters"].keys()
    filled = create_sweep_command_args({"args": drawn})["args_no_hyphens"]
    asked = [each for part in sweep["command"][2:] for each in (filled if part == "${args_no_hyphens}" else [part])]
    assert asked[:2] == ["logger=wandb", "name=wandb_sweep"] and len(asked) == 4
    env = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "fromagent"}
    small = ("model.depth=1", "model.width=16", "trainer.max_steps=2", "data=debug")
    call("train", *asked, *small, cwd=tmp_path, env=env)
    (folder,) = (path.parent for path in tmp_path.glob("runs/wandb_sweep/*/result.json"))
    assert json.loads((folder / "run.json").read_text())["optimizer"]["lr"] == 0.00123
    assert list((folder / "wandb").glob("offline-run-*/run-fromagent.wandb"))
