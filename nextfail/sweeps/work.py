"""Run one job in its own process, locally or on a cluster."""

from pathlib import Path
from typing import Any

from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig

from nextfail import stop
from nextfail.runs.folder import RunFolder
from nextfail.sweeps import job
from nextfail.sweeps.private import error_of, restore


def perform(context: HydraContext, config: DictConfig, singletons: dict[Any, Any]) -> float:
    """Run one job of a sweep as Hydra does, with output folder, logging and callbacks.

    Returns:
        Exact match on the test set.

    Raises:
        Exception: whatever the job raised.
    """
    stop.listen()
    setup_globals()
    restore(singletons)
    RunFolder(Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)).require_ours()  # before Hydra logs there
    done = run_job(
        task_function=job.run,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=context,
    )
    if (error := error_of(done)) is not None:
        raise error
    return float(done.return_value)
