"""Plan a sweep: compose each job once and look it up on disk, before anything is started."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from nextfail.errors import UserError
from nextfail.runs.folder import RunFolder, State
from nextfail.runs.identity import Identity
from nextfail.sweeps import records
from nextfail.sweeps.compose import Composer
from nextfail.sweeps.effect import require_in_sweep
from nextfail.sweeps.job import wanted
from nextfail.sweeps.known import Known, Shorter
from nextfail.sweeps.resolve import checked, own_part
from nextfail.terminal import say


@dataclass(eq=False)
class Job:
    """One run of a sweep, and its state.

    Args:
        name: name of its folder, below that of the sweep.
        config: composed configuration, including the `hydra` section.
        state: todo; before (done before this command), done, failed, cut; elsewhere (another process or job has it);
            sent (submitted to SLURM, and not waited for); refused (not started because of a user error).
        reason: why it is not done.
    """

    number: int
    name: str
    folder: RunFolder
    overrides: list[str]
    config: DictConfig
    state: str = "todo"
    reason: str = ""

    def move(self, name: str) -> None:
        """Use another folder of the sweep, in which the same run was started under other overrides."""
        self.name, self.folder = name, RunFolder(self.folder.path.with_name(name))
        with read_write(self.config.hydra):
            self.config.hydra.sweep.subdir = name

    def refuse(self, reason: str) -> None:
        """Mark this run as one that cannot start."""
        self.state, self.reason = "refused", reason


def plan(context: HydraContext, master: DictConfig, batch: Sequence[Sequence[str]], first: int) -> list[Job]:
    """Compose every job of a batch and find those that are done, under whatever overrides.

    Args:
        context: Hydra's context, with its configuration loader.
        master: the composed configuration of the command.
        batch: overrides of each job.
        first: number of the first job.

    Returns:
        One job per entry of the batch; the same job for entries that are the same run in the same sweep folder.

    Raises:
        ConfigCompositionException, OmegaConfBaseException: Hydra cannot compose the overrides.
    """
    composer = Composer(context, master)
    composed = [(list(overrides), _compose(composer, overrides)) for overrides in batch]
    require_in_sweep(master, composed)
    jobs = [_job(config, overrides, number) for number, (overrides, config) in enumerate(composed, first)]
    planner = _Planner()
    for place, job in enumerate(jobs):
        try:
            jobs[place] = planner.settle(job)
        except UserError as error:
            job.refuse(str(error))
    _remember(jobs)
    planner.tell()
    return jobs


class _Planner:
    """Settles one job after another, given the earlier ones and the runs on disk."""

    def __init__(self) -> None:
        self.by_folder: dict[Path, Job] = {}
        self.by_run: dict[tuple[Path, str], Job] = {}
        self.known = cache(Known)
        self.shorter: list[Shorter] = []
        self.said: dict[str, None] = {}

    def settle(self, job: Job) -> Job:
        """Find out whether a job is done, and in which folder; returns an earlier job if it is the same run.

        Raises:
            UserError: the job cannot start.
        """
        hydra = job.config.hydra
        config, said = checked(own_part(job.config), hydra)
        identity, on_existing = Identity.of(config), str(job.config.on_existing)
        place = job.folder.path.parent, identity.hash
        if place in self.by_run:
            return self.by_run[place]
        state = job.folder.state(identity, on_existing)
        known = self.known(job.folder.path.parent)
        if state is State.NEW and (same := wanted(known, identity, on_existing)):
            job.move(same.path.name)
            state = job.folder.state(identity, on_existing)
        if (other := self.by_folder.setdefault(job.folder.path, job)) is not job:
            raise UserError(f"{job.name} is the folder of another run of this sweep, too: {' '.join(other.overrides)}")
        if state is State.DONE:
            job.state = "before"
        elif state is State.NEW and (shorter := known.shorter(identity)):
            self.shorter.append(shorter)
        self.said |= dict.fromkeys(said)
        self.by_run[place] = job
        return job

    def tell(self) -> None:
        """Print each message that concerns many runs once."""
        for continued in (True, False):
            alike = [each for each in self.shorter if (each.obstacle is None) == continued]
            if alike:
                more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
                self.said[f"{alike[0]}{more}"] = None
        for text in self.said:
            say(text, error=True)


def _compose(composer: Composer, overrides: Sequence[str]) -> DictConfig:
    try:
        return composer.compose(overrides)
    except (ValueError, AssertionError, TypeError, AttributeError) as error:  # such as a null group
        raise UserError(f"{' '.join(overrides)}: {error}") from error


def _job(config: DictConfig, overrides: list[str], number: int) -> Job:
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.id, config.hydra.job.num = str(number), number
        config.hydra.sweep.dir = str(Path(str(config.hydra.sweep.dir)).absolute())
    HydraConfig.instance().set_config(config)
    name = str(config.hydra.sweep.subdir)
    return Job(number, name, RunFolder(Path(config.hydra.sweep.dir) / name), overrides, config)


def _remember(jobs: list[Job]) -> None:
    """Record in each sweep's folder which runs were requested."""
    by_sweep: dict[Path, dict[str, list[str]]] = {}
    for job in jobs:
        by_sweep.setdefault(Path(job.config.hydra.sweep.dir), {})[job.name] = job.overrides
    for folder, runs in by_sweep.items():
        try:
            records.remember(folder, runs)
        except OSError as error:
            raise UserError(f"cannot write into {folder}: {error.strerror}") from error
