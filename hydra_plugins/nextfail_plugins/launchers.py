"""Hydra's door to nextfail.launch. Hydra imports this at every start, so that all that is slow is imported later."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from nextfail.launch.sweep import Backend


class _Launcher(Launcher):
    """Plans a batch, runs what is not done, and never lets one run take the others along."""

    def __init__(self, **settings: Any) -> None:
        self.settings = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """The exact match of each run; NaN, and a line at the end of the command, for one that is not done."""
        from nextfail.launch.plan import plan
        from nextfail.launch.sweep import Sweep, finish, values

        setup_globals()
        backend = self.backend()
        jobs = plan(self.context, self.config, job_overrides, initial_job_idx)
        once = list(dict.fromkeys(jobs))
        try:
            Sweep(once, backend).run()
        finally:
            finish(once)
        return [JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=value)
                for job, value in zip(jobs, values(jobs), strict=True)]  # fmt: skip

    def backend(self) -> "Backend":
        """Where the jobs run."""
        raise NotImplementedError


class LocalLauncher(_Launcher):
    """Processes of this machine.

    Args:
        n_jobs: runs at once; -1 for one a core.
    """

    def backend(self) -> "Backend":
        from nextfail.errors import UserError
        from nextfail.launch.pool import Pool, cores

        size = self.settings.get("n_jobs", -1)
        if not isinstance(size, int) or isinstance(size, bool) or (size < 1 and size != -1):
            raise UserError(f"hydra.launcher.n_jobs={size!r} is not a number of runs at once: needs at least 1, or -1")
        return Pool(self.context, cores() if size == -1 else size)


class SlurmLauncher(_Launcher):
    """Jobs of SLURM, in arrays.

    Args:
        folder: for scripts, logs and pickles of the jobs.
        requeue, max_array, detach: see nextfail.launch.submit.Slurm.
        timeout_min, mem_gb, gpus, settings: see conf/hydra/launcher/slurm.yaml; the others are sbatch's own words.
    """

    def __init__(
        self, folder: str, requeue: int, max_array: int | None, detach: bool, timeout_min: int, mem_gb: float | None,
        gpus: int | None, extra: dict[str, Any], **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(**settings)
        self.folder, self.requeue, self.max_array, self.detach = folder, requeue, max_array, detach
        options: dict[str, Any] = {"requeue" if requeue else "no-requeue": True, **extra}
        self.settings |= {
            "time": timeout_min,
            "mem": mem_gb and f"{round(mem_gb * 1024)}M",
            "gpus_per_node": gpus or None,
            "additional_parameters": options,
        }

    def backend(self) -> "Backend":
        from nextfail.launch.submit import Slurm

        sbatch = {key: value for key, value in self.settings.items() if value is not None}
        return Slurm(self.context, Path(self.folder), sbatch, self.requeue, self.max_array, self.detach)


class SlurmTestLauncher(_Launcher):
    """The way of SlurmLauncher, as processes of this machine.

    Args:
        folder, requeue: as there.
        array_parallelism: runs at once.
        timeout_min, signal_delay_s, setup: as there.
    """

    def __init__(self, folder: str, requeue: int, array_parallelism: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.folder, self.requeue, self.size = folder, requeue, array_parallelism

    def backend(self) -> "Backend":
        from nextfail.launch.submit import Local

        return Local(self.context, Path(self.folder), self.settings, self.size, self.requeue)
