"""Every experiment composes, and each of its runs takes two steps."""

import itertools
import re
from pathlib import Path

import pytest
from inside import compose, train_here
from omegaconf import OmegaConf
from tiny import make_model

from nextfail.paths import CONF

EXPERIMENTS = sorted(
    str(p.relative_to(CONF / "experiment").with_suffix("")) for p in (CONF / "experiment").rglob("*.yaml")
)
SHARED = {"clever_hans": "failure", "forced_vs_free": "failure", "cascade": "teacherless"}
"""Claims that ask for the runs of another."""

SHORT = ["trainer.max_steps=2", "trainer.val_every=1", "data.validation=8", "data.test=8", "data.batch_size=4"]


def runs_of(experiment: str, *overrides: str) -> list[list[str]]:
    """The overrides of every run that an experiment names."""
    params = compose(f"experiment={experiment}", *overrides).hydra.sweeper.params or {}
    axes = [[f"{key}={value}" for value in values_of(str(values))] for key, values in params.items()]
    return [list(run) for run in itertools.product(*axes)]


def different_runs(experiment: str, *overrides: str) -> list[list[str]]:
    """The same without runs that differ only by their seed."""
    return [run for run in runs_of(experiment, *overrides) if not {"seed=1", "seed=2"} & set(run)]


def values_of(axis: str) -> list[str]:
    """Every value of a list, and one of an interval."""
    interval = re.search(r"interval\(([^,]+),", axis)
    return [interval[1]] if interval else axis.split(",")


PUBLISHED = [name for name in EXPERIMENTS if name.startswith("leaderboard/") and name != "leaderboard/mamba"]
"""Remedies as they were published: large, and tried in test_paper."""

HERE = [name for name in EXPERIMENTS if Path(name).name not in SHARED and name not in PUBLISHED]


@pytest.mark.parametrize(
    ("experiment", "axes"), [(name, run) for name in HERE for run in different_runs(name)], ids=str
)
def test_two_steps(experiment: str, axes: list[str], tmp_path: Path) -> None:
    more = [f"model.source={make_model(tmp_path / 'model', longest=80)}"] if "model=gpt2" in axes else []
    assert train_here(tmp_path / "run", f"experiment={experiment}", *axes, *more, *SHORT)["steps"] == 2


@pytest.mark.parametrize("recipe", [(), ("recipe=paper",)])
@pytest.mark.parametrize(("claim", "other"), SHARED.items())
def test_shared_runs_are_the_same(claim: str, other: str, recipe: tuple[str, ...]) -> None:
    one, same = (compose(f"experiment=pitfalls/{name}", *recipe) for name in (claim, other))
    assert one.hydra.sweeper.params == same.hydra.sweeper.params
    kept = [OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]) for cfg in (one, same)]
    assert kept[0] == kept[1] and one.name.startswith("pitfalls")


@pytest.mark.parametrize("option", sorted(f"{p.parent.relative_to(CONF)}={p.stem}" for p in CONF.glob("*/*.yaml")))
def test_every_option_composes(option: str) -> None:
    needed = {"data=files": ["data.train_file=a", "data.test_file=b"], "model=gpt2": ["model.source=a"]}.get(option, [])
    cfg = compose(option, *needed)
    assert cfg.hydra.runtime.choices[option.partition("=")[0]] == option.partition("=")[2]
    assert (CONF / f"{option.replace('=', '/')}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("launcher", ["local", "slurm", "slurm_test"])
def test_every_launcher_composes(launcher: str) -> None:
    assert compose(f"hydra/launcher={launcher}").hydra.launcher._target_.startswith("hydra_plugins.")
