"""What Hydra would pass over in silence, because it stands where it takes no effect, is refused."""

from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.nextfail_plugins.launchers import (
    LocalLauncher,
    NextfailLauncher,
    SlurmLauncher,
    SlurmTestLauncher,
)
from nextfail.config import LAUNCHERS
from nextfail.errors import UserError
from nextfail.paths import CONF
from nextfail.sweeps.compose import Composer
from nextfail.sweeps.effect import require_in_run, require_in_sweep

Made = tuple[HydraContext, DictConfig]


def shell() -> Any:
    return GlobalHydra.instance().hydra


def single(*overrides: str) -> Any:
    """Hydra's part of the configuration of one run."""
    return shell().compose_config("train", [*overrides], run_mode=RunMode.RUN, with_log_configuration=False).hydra


def sweep(made: Made, typed: list[str], *jobs: str) -> None:
    master = shell().compose_config("train", typed, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
    HydraConfig.instance().set_config(master)
    composer = Composer(made[0], master)
    require_in_sweep(master, [(job.split(), composer.compose(job.split())) for job in jobs])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra/launcher=slurm_test", "hydra/launcher=slurm_test takes effect only in a sweep: add -m"),
        ("hydra.launcher.n_jobs=2", "hydra.launcher.n_jobs=2 takes effect only in a sweep"),
        ("hydra/sweeper=optuna", "hydra/sweeper=optuna takes effect only in a sweep"),
        ("hydra.sweep.dir=x", "hydra.sweep.dir=x takes effect only in a sweep"),
        ("experiment=demo", "would ignore the values to sweep over, objective=reverse,teacher_forcing,teacherless"),
        ("experiment=search", "hydra/sweeper=optuna takes effect only in a sweep"),
    ],
)
def test_in_a_single_run(made: Made, override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        require_in_run(single(override))
    assert message in str(error.value)


def test_a_single_run_of_an_experiment_with_its_axes_chosen(made: Made) -> None:
    require_in_run(single("experiment=demo", "objective=reverse", "hydra.run.dir=x", "hydra.verbose=true"))
    require_in_run(single())


def test_an_experiment_for_each_run_is_refused_with_the_commands_to_run_instead(made: Made) -> None:
    typed = ["experiment=demo,demo_teacherless", "seed=0", "model=transformer,mamba", "name='a b'"]
    with pytest.raises(UserError) as error:
        sweep(made, typed, "experiment=demo seed=0 model=mamba", "experiment=demo_teacherless seed=0 model=mamba")
    first, *commands = str(error.value).splitlines()
    assert first.startswith("experiment=demo seed=0 model=mamba changes hydra.sweeper, which cannot differ between")
    assert [line.strip() for line in commands] == [
        f"nextfail-train -m experiment={experiment} seed=0 model={model} 'name='\"'\"'a b'\"'\"''"
        for experiment in ("demo", "demo_teacherless") for model in ("transformer", "mamba")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("jobs", "key"),
    [
        (["hydra.launcher.n_jobs=1", "hydra.launcher.n_jobs=2"], "hydra.launcher"),
        (["hydra/launcher=slurm_test"], "hydra.launcher"),
        (["hydra.sweeper.max_batch_size=3"], "hydra.sweeper"),
        (["+hydra.callbacks.mine._target_=x.Y"], "hydra.callbacks"),
        (["hydra.searchpath=[file:///]"], "hydra.searchpath"),
    ],
)
def test_parts_that_are_read_once(made: Made, jobs: list[str], key: str) -> None:
    with pytest.raises(UserError, match=f"changes {key}, which cannot differ"):
        sweep(made, [], "seed=0", *jobs)


def test_a_launcher_that_depends_on_what_is_swept_over(made: Made) -> None:
    typed = ["hydra/launcher=slurm"]
    with pytest.raises(UserError, match=r"trainer.threads=4 makes hydra.launcher.cpus_per_task=4, and the other runs"):
        sweep(made, typed, "trainer.threads=1", "trainer.threads=4")
    sweep(made, [*typed, "hydra.launcher.cpus_per_task=4"], "trainer.threads=1", "trainer.threads=4")
    sweep(made, typed, "name=a", "name=b")  # only the job's name


def test_a_folder_for_a_single_run_is_refused_in_a_sweep(made: Made) -> None:
    with pytest.raises(UserError, match=r"hydra.run.dir=x takes effect only in a single run"):
        sweep(made, ["hydra.run.dir=x"], "seed=0")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+hydra.nonsense=3", "unknown key hydra.nonsense: "),
        ("+hydra.lancher.n_jobs=3", "unknown key hydra.lancher: did you mean hydra.launcher"),
        ("+hydra.job.nam=x", "unknown key hydra.job.nam: did you mean hydra.job.name"),
        ("+hydra.sweep.dirr=x", "unknown key hydra.sweep.dirr: did you mean hydra.sweep.dir"),
    ],
)
def test_keys_that_nothing_reads(made: Made, override: str, message: str) -> None:
    for check in (lambda: require_in_run(single(override)), lambda: sweep(made, [override], "seed=0")):
        with pytest.raises(UserError) as error:
            check()
        assert message in str(error.value)


@pytest.mark.parametrize("launcher", [LocalLauncher, SlurmLauncher, SlurmTestLauncher])
def test_settings_of_a_launcher_are_those_of_its_file(launcher: type[NextfailLauncher]) -> None:
    name = {LocalLauncher: "local", SlurmLauncher: "slurm", SlurmTestLauncher: "slurm_test"}[launcher]
    written = OmegaConf.load(CONF / "hydra/launcher" / f"{name}.yaml")
    assert {"_target_", *LAUNCHERS[launcher.name]} == set(written)
    with pytest.raises(UserError, match=r"unknown key hydra\.launcher\.foldr: "):
        launcher(foldr="x").launch([], 0)


def test_what_does_differ_between_runs(made: Made, tmp_path: Path) -> None:
    sweep(made, [], "seed=0", "hydra.verbose=true", "+hydra.job.env_set.A=b", "hydra.output_subdir=x", "name=y")
