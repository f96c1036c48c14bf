"""Every experiment composes, and each of its runs takes two steps."""

import itertools
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from nextfail.cli import job
from nextfail.cli.common import CONF
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import identity
from nextfail.training.run import train

EXPERIMENTS = sorted(
    str(p.relative_to(CONF / "experiment").with_suffix("")) for p in (CONF / "experiment").rglob("*.yaml")
)
SHORT = ["trainer.max_steps=2", "trainer.val_every=1", "data.validation=8", "data.test=8", "data.batch_size=4"]


def compose(*overrides: str) -> Any:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=[*overrides], return_hydra_config=True)


def runs_of(experiment: str) -> list[list[str]]:
    """The overrides of every run that an experiment names."""
    params = compose(f"experiment={experiment}").hydra.sweeper.params or {}
    axes = [[f"{key}={value}" for value in str(values).split(",")] for key, values in params.items()]
    return [list(run) for run in itertools.product(*axes)]


@pytest.mark.parametrize(
    ("experiment", "axes"), [(name, run) for name in EXPERIMENTS for run in runs_of(name)], ids=str
)
def test_two_steps(experiment: str, axes: list[str], tmp_path: Path) -> None:
    cfg = compose(f"experiment={experiment}", *axes, *SHORT, "callbacks=none")
    HydraConfig.instance().set_config(cfg)
    choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    del cfg["hydra"]
    config = job.resolve(cfg, tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.claim(identity(config), {"choices": choices}, "resume")
    assert train(config, folder)["steps"] == 2


@pytest.mark.parametrize("option", sorted(f"{p.parent.relative_to(CONF)}={p.stem}" for p in CONF.glob("*/*.yaml")))
def test_every_option_composes(option: str) -> None:
    needed = ["data.train_file=a", "data.test_file=b"] if option == "data=files" else []
    cfg = compose(option, *needed)
    assert cfg.hydra.runtime.choices[option.partition("=")[0]] == option.partition("=")[2]
    assert (CONF / f"{option.replace('=', '/')}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("launcher", ["local", "slurm", "slurm_test"])
def test_every_launcher_composes(launcher: str) -> None:
    assert compose(f"hydra/launcher={launcher}").hydra.launcher._target_.startswith("hydra_plugins.")
