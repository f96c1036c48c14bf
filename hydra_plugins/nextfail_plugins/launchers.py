"""Hydra launchers on top of nextfail.sweeps. Hydra imports this at every start, so slow imports are deferred."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from nextfail.sweeps.sweep import Backend


class NextfailLauncher(Launcher):
    """Plans a batch and runs what is not done; a failed run does not affect the others."""

    name: str
    """Name of its settings in nextfail.config.LAUNCHERS."""

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch; returns validation exact match per run, NaN for unfinished runs, which `sweep.report` lists."""
        from nextfail.sweeps import job
        from nextfail.sweeps.plan import plan
        from nextfail.sweeps.private import completed
        from nextfail.sweeps.sweep import Sweep, finish, values

        setup_globals()
        job.begun = True
        self._check()
        backend = self.backend()
        jobs = plan(self.context, self.config, job_overrides, initial_job_idx)
        once = list(dict.fromkeys(jobs))
        try:
            Sweep(once, backend).run()
        finally:
            finish(once)
        return [completed(job.overrides, value) for job, value in zip(jobs, values(jobs), strict=True)]

    def backend(self) -> "Backend":
        """Create the backend that runs the jobs."""
        raise NotImplementedError

    def _check(self) -> None:
        """Reject unknown, missing or invalid settings.

        Raises:
            UserError: names the setting and what is expected.
        """
        from nextfail.config import LAUNCHERS
        from nextfail.errors import UserError
        from nextfail.sweeps.check import unknown

        known = LAUNCHERS[self.name]
        for key in self.settings:
            if key not in known:
                raise unknown(f"hydra.launcher.{key}", [f"hydra.launcher.{each}" for each in known])
        for key, what in known.items():
            if key not in self.settings:
                raise UserError(f"hydra.launcher.{key} is missing: give a value, as in +hydra.launcher.{key}=...")
            if refusal := what.type.refusal(f"hydra.launcher.{key}", self.settings[key]):
                raise UserError(refusal)


class LocalLauncher(NextfailLauncher):
    """Runs jobs as local processes."""

    name = "local"

    def backend(self) -> "Backend":
        from nextfail.sweeps.pool import Pool

        most = None if self.settings["n_jobs"] == -1 else self.settings["n_jobs"]
        return Pool(self.context, most, self.settings["per_gpu"])


class SlurmLauncher(NextfailLauncher):
    """Runs jobs as SLURM job arrays."""

    name = "slurm"

    def backend(self) -> "Backend":
        submit = _submit()

        own = ("folder", "requeue", "max_array", "detach", "timeout_min", "mem_gb", "gpus", "extra")
        settings, requeue, memory = self.settings, self.settings["requeue"], self.settings["mem_gb"]
        sbatch = {
            **{key: value for key, value in settings.items() if key not in own and value is not None},
            "time": settings["timeout_min"],
            "additional_parameters": {"requeue" if requeue else "no-requeue": True, **settings["extra"]},
            "array_parallelism": settings["array_parallelism"],
        }
        if memory is not None:
            sbatch["mem"] = f"{round(memory * 1024)}M"
        if settings["gpus"] is not None:
            sbatch["gpus_per_node"] = settings["gpus"]
        folder, most = Path(settings["folder"]), settings["max_array"]
        return submit.Slurm(self.context, folder, sbatch, requeue, most, settings["detach"])


class SlurmTestLauncher(NextfailLauncher):
    """The code path of SlurmLauncher with local processes; see conf/hydra/launcher/slurm_test.yaml."""

    name = "slurm_test"

    def backend(self) -> "Backend":
        submit = _submit()

        parameters = {key: self.settings[key] for key in ("timeout_min", "signal_delay_s")}
        size, requeue = self.settings["array_parallelism"], self.settings["requeue"]
        return submit.Local(self.context, Path(self.settings["folder"]), parameters, size, requeue)


def _submit() -> Any:
    """Import nextfail.sweeps.submit, which needs submitit.

    Raises:
        UserError: submitit is not installed.
    """
    from nextfail.errors import UserError

    try:
        from nextfail.sweeps import submit
    except ModuleNotFoundError as error:
        raise UserError(f"this launcher needs {error.name}: pip install 'nextfail[slurm]'") from error
    return submit
