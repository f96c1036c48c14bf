"""What a sweep has to do: each job composed once, and looked up on the disk before anything is started."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from nextfail.errors import UserError
from nextfail.launch.compose import Composer
from nextfail.launch.job import resolve
from nextfail.runs import sweep
from nextfail.runs.files import read_json
from nextfail.runs.folder import RunFolder, State
from nextfail.runs.identity import digest, identity


@dataclass(eq=False)
class Job:
    """One run of a sweep, and how far it is.

    Args:
        name: of its folder, below that of the sweep.
        config: composed, with Hydra's own part.
        state: todo; before (done before this command), done, failed, cut; elsewhere (another process or job has it);
            sent (to SLURM, and not waited for); refused (never begun: a mistake in what was asked).
        reason: in words, where it is not done.
    """

    number: int
    name: str
    folder: RunFolder
    overrides: list[str]
    config: DictConfig
    state: str = "todo"
    reason: str = ""

    def move(self, name: str) -> None:
        """Use another folder of the sweep, in which the same run was begun under other overrides."""
        self.name, self.folder = name, RunFolder(self.folder.path.with_name(name))
        with read_write(self.config.hydra):
            self.config.hydra.sweep.subdir = name

    def refuse(self, reason: str) -> None:
        """Note that this run cannot be begun."""
        self.state, self.reason = "refused", reason


def plan(context: HydraContext, master: DictConfig, batch: Sequence[Sequence[str]], first: int) -> list[Job]:
    """Compose every job of a batch and see which are done, under whatever overrides that was.

    Args:
        context: Hydra's, with the configuration loader.
        master: the composed configuration of the command.
        batch: overrides of each job.
        first: number of the first job.

    Returns:
        A job for each; the same one where two are the same run in the same folder.

    Raises:
        ConfigCompositionException, OmegaConfBaseException: overrides that Hydra cannot compose.
    """
    composer = Composer(context, master)
    jobs = [_job(composer.compose(overrides), list(overrides), number) for number, overrides in enumerate(batch, first)]
    by_folder: dict[Path, tuple[str, Job]] = {}
    begun = cache(_begun)
    for place, job in enumerate(jobs):
        try:
            asked = identity(resolve(_own(job.config), Path(job.config.hydra.runtime.cwd)))
            mark, on_existing = digest(asked), str(job.config.on_existing)
            state = job.folder.state(asked, on_existing)
            anew = state is State.NEW and on_existing == "resume"
            old_name = begun(job.folder.path.parent).get(mark) if anew else None
            if old_name is not None:
                job.move(old_name)
                state = job.folder.state(asked, on_existing)
            same, twin = by_folder.setdefault(job.folder.path, (mark, job))
            if twin is not job and same == mark:
                jobs[place] = twin
            elif twin is not job:
                others = " ".join(twin.overrides)
                raise UserError(f"{job.name} is the folder of another run of this sweep, too: {others}")
            elif state is State.DONE:
                job.state = "before"
        except UserError as error:
            job.refuse(str(error))
    _remember(jobs)
    return jobs


def _job(config: DictConfig, overrides: list[str], number: int) -> Job:
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.id, config.hydra.job.num = str(number), number
        config.hydra.sweep.dir = str(Path(str(config.hydra.sweep.dir)).absolute())
    HydraConfig.instance().set_config(config)
    name = str(config.hydra.sweep.subdir)
    return Job(number, name, RunFolder(Path(config.hydra.sweep.dir) / name), overrides, config)


def _begun(folder: Path) -> dict[str, str]:
    """Names of the runs in a sweep's folder that have something to go on from, or a result, by their identity's hash.

    A sweep that gained an axis gives other names to runs that it had.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*/run.json")):
        run, record = RunFolder(path.parent), read_json(path)
        done = run.result() is not None
        if isinstance(record, dict) and (done or (run.checkpoints.exists() and record.get("hash") not in found)):
            found[str(record.get("hash"))] = path.parent.name
    return found


def _own(config: DictConfig) -> DictConfig:
    """The configuration without Hydra's part."""
    own = copy.copy(config)
    OmegaConf.set_struct(own, False)
    own.pop("hydra")
    return own


def _remember(jobs: list[Job]) -> None:
    """Write into each sweep's folder which runs it has."""
    by_sweep: dict[Path, dict[str, list[str]]] = {}
    for job in jobs:
        by_sweep.setdefault(Path(job.config.hydra.sweep.dir), {})[job.name] = job.overrides
    for folder, runs in by_sweep.items():
        try:
            sweep.remember(folder, runs)
        except OSError as error:
            raise UserError(f"cannot write into {folder}: {error.strerror}") from error
