"""Hydra's door to nextfail.sweeps. Hydra imports this at every start, so that all that is slow is imported later."""

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
    """Plans a batch, runs what is not done, and never lets one run take the others along."""

    known: tuple[str, ...] = ()
    """Settings that there are; conf/hydra/launcher/ explains them."""

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Validation exact match of each run; NaN, and a line at the end of the command, for one that is not done."""
        from nextfail.errors import UserError
        from nextfail.sweeps import job
        from nextfail.sweeps.check import unknown
        from nextfail.sweeps.plan import plan
        from nextfail.sweeps.private import completed
        from nextfail.sweeps.sweep import Sweep, finish, values

        setup_globals()
        job.begun = True
        for key in self.settings:
            if key not in self.known:
                raise unknown(f"hydra.launcher.{key}", [f"hydra.launcher.{each}" for each in self.known])
        for key in self.known:
            if key not in self.settings:
                raise UserError(f"hydra.launcher.{key} is missing: give a value, as in +hydra.launcher.{key}=...")
        backend = self.backend()
        jobs = plan(self.context, self.config, job_overrides, initial_job_idx)
        once = list(dict.fromkeys(jobs))
        try:
            Sweep(once, backend).run()
        finally:
            finish(once)
        return [completed(job.overrides, value) for job, value in zip(jobs, values(jobs), strict=True)]

    def backend(self) -> "Backend":
        """Where the jobs run."""
        raise NotImplementedError

    def whole(self, key: str, least: int) -> int:
        """A setting that has to be a whole number.

        Raises:
            UserError: it is something else.
        """
        value: Any = self.settings[key]
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
        self.require(key, fits, f"a whole number of at least {least}")
        return value

    def require(self, key: str, fits: bool, right: str) -> None:
        """Refuse a setting that does not fit, saying what would be right.

        Raises:
            UserError: it does not fit.
        """
        from nextfail.errors import UserError

        if not fits:
            raise UserError(f"hydra.launcher.{key}={self.settings[key]!r} is not {right}")


class LocalLauncher(NextfailLauncher):
    """Processes of this machine.

    Args:
        n_jobs: runs at once; -1 for one a core, or `per_gpu` a GPU.
        per_gpu: runs at once on one GPU, where runs use any.
    """

    known = ("n_jobs", "per_gpu")

    def backend(self) -> "Backend":
        from nextfail.sweeps.pool import Pool

        most = None if self.settings["n_jobs"] == -1 else self.whole("n_jobs", 1)
        return Pool(self.context, most, self.whole("per_gpu", 1))


class SlurmLauncher(NextfailLauncher):
    """Jobs of SLURM, in arrays; conf/hydra/launcher/slurm.yaml explains the settings."""

    known = ("partition", "account", "qos", "constraint", "timeout_min", "cpus_per_task", "mem_gb", "gpus", "setup",
             "array_parallelism", "max_array", "signal_delay_s", "requeue", "detach", "job_name", "extra",
             "folder")  # fmt: skip

    def backend(self) -> "Backend":
        submit = _submit()

        own = ("folder", "requeue", "max_array", "detach", "timeout_min", "mem_gb", "gpus", "extra")
        settings, requeue = self.settings, self.whole("requeue", 0)
        self.require("detach", isinstance(settings["detach"], bool), "true or false")
        self.require("extra", isinstance(settings["extra"], dict), "a map such as {mail-type: END}")
        memory = settings["mem_gb"]
        self.require("mem_gb", memory is None or (isinstance(memory, int | float) and memory > 0), "a number above 0")
        sbatch = {
            **{key: value for key, value in settings.items() if key not in own and value is not None},
            "time": self.whole("timeout_min", 1),
            "additional_parameters": {"requeue" if requeue else "no-requeue": True, **settings["extra"]},
            "array_parallelism": self.whole("array_parallelism", 1),
        }
        if memory is not None:
            sbatch["mem"] = f"{round(memory * 1024)}M"
        if settings["gpus"] is not None:
            sbatch["gpus_per_node"] = self.whole("gpus", 1)
        most = None if settings["max_array"] is None else self.whole("max_array", 1)
        return submit.Slurm(self.context, Path(settings["folder"]), sbatch, requeue, most, settings["detach"])


class SlurmTestLauncher(NextfailLauncher):
    """The way of SlurmLauncher, as processes of this machine; see conf/hydra/launcher/slurm_test.yaml."""

    known = ("array_parallelism", "timeout_min", "signal_delay_s", "requeue", "folder")

    def backend(self) -> "Backend":
        submit = _submit()

        parameters = {key: self.settings[key] for key in ("timeout_min", "signal_delay_s")}
        size, requeue = self.whole("array_parallelism", 1), self.whole("requeue", 0)
        return submit.Local(self.context, Path(self.settings["folder"]), parameters, size, requeue)


def _submit() -> Any:
    """The module that needs submitit.

    Raises:
        UserError: it is not installed.
    """
    from nextfail.errors import UserError

    try:
        from nextfail.sweeps import submit
    except ModuleNotFoundError as error:
        raise UserError(f"this launcher needs {error.name}: pip install 'nextfail[slurm]'") from error
    return submit
