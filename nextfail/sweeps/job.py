"""One job of nextfail-train, in this process or a worker. Torch is imported only if there is something to train."""

import logging
import os
import secrets
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, read_write

from nextfail import __version__, stop
from nextfail.errors import RunCut, UserError, guarded
from nextfail.files import Inside
from nextfail.runs import records
from nextfail.runs.folder import LOG, RunFolder, State
from nextfail.runs.identity import Identity
from nextfail.runs.lock import Lock
from nextfail.runs.naming import one_line, run_folder
from nextfail.runs.provenance import git_commit
from nextfail.runs.slurm import this_job
from nextfail.runs.status import note
from nextfail.sweeps.clean import FailedRun
from nextfail.sweeps.effect import require_in_run
from nextfail.sweeps.known import Known, Shorter
from nextfail.sweeps.resolve import checked, choices, resolve
from nextfail.terminal import say

log = logging.getLogger(__name__)

SUBMITTED = "SUBMITIT_EXECUTOR"
"""Environment variable set in jobs that nextfail submitted, but not in an interactive session inside a job."""

folders: list[Path] = []
"""Folders of this command's runs that were trained or found in this process."""

absent: list[Path] = []
"""The folder of a single run and those above it, innermost first, as far as they did not exist before the command."""

begun = False
"""Whether this process has started a run or a sweep, so that an error may be nextfail's own."""


def run(cfg: DictConfig) -> float:
    """Claim the run folder, train unless the run is done, and return the exact match on the test set.

    A single run exits on a UserError. In a sweep it is raised, since a launcher handles exceptions, whereas an exit
    would end its worker.
    """
    global begun
    begun = True
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        result, _ = claim_and_train(cfg)
    else:
        result, folder = guarded("nextfail-train", lambda: _single(cfg))
        folders.append(folder.path)
        say(f"{one_line(result)}\n{os.path.relpath(folder.path, HydraConfig.get().runtime.cwd)}")
    return float(result["exact_match"]["value"])


def _single(cfg: DictConfig) -> tuple[dict[str, Any], RunFolder]:
    """As `claim_and_train`, for a command of one run.

    A run that is refused before its first checkpoint leaves no folder: some values are found to be wrong only when the
    task, the model or the trainer is made, and data files are read after Hydra has made its log.
    """
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    try:
        return claim_and_train(cfg)
    except UserError:
        if folder.path in absent and not folder.checkpoints.exists():
            with suppress(UserError, OSError):  # something else is in there
                _leave_nothing(folder)
        raise


def _leave_nothing(folder: RunFolder) -> None:
    """Remove the folder of a run that was refused, and those above it that the command made."""
    if folder.run_json.exists():
        FailedRun(folder.path, "refused").remove()
    else:
        with folder.locked():
            folder.files.remove(LOG)
        folder.path.rmdir()
    for path in absent[1:]:
        path.rmdir()


def claim_and_train(cfg: DictConfig) -> tuple[dict[str, Any], RunFolder]:
    """The result of the run, newly trained or found on disk, and its folder.

    Raises:
        UserError, RunCut: see nextfail.errors.
    """
    hydra = HydraConfig.get()
    config, said = checked(cfg, hydra)
    identity = Identity.of(config)
    folder = RunFolder(Path(hydra.runtime.output_dir))
    known = Known(folder.path.parent)
    if hydra.mode == RunMode.RUN:  # a sweep has already checked all its runs
        require_in_run(hydra)
        for text in said:
            log.warning(text)
        folder = _known(folder, known, identity, str(config["on_existing"]), hydra)
        config, _ = resolve(cfg, Path(hydra.runtime.cwd), hydra)  # loggers may refer to the output folder
    shorter = _to_continue(folder, known, identity, config, hydra)
    with folder.locked() as lock:
        if folder.claim(identity, _extra(config, hydra, shorter), _on_existing(config, folder)) is not State.DONE:
            with _recorded(folder, lock):
                if stop.requested is not None:
                    raise RunCut("not started; the same command resumes from here")
                from nextfail.training.run import train  # takes seconds; not needed for a finished run

                return train(config, folder, lock, shorter.run if shorter else None), folder
    result = folder.result()
    assert result is not None
    if hydra.mode == RunMode.RUN:  # a sweep says so itself
        say("done before, not trained again (on_existing=restart trains it again)", error=True)
    return result, folder


def _known(folder: RunFolder, known: Known, identity: Identity, on_existing: str, hydra: Any) -> RunFolder:
    """The folder below runs/NAME that already has this run, under whatever overrides; else the given one.

    A folder set with hydra.run.dir is used as it is.
    """
    usual = Path(hydra.runtime.cwd) / folder.path.parent / run_folder(hydra.overrides.task)
    if _was_named(hydra) or folder.path != usual or folder.state(identity, on_existing) is not State.NEW:
        return folder
    if same := wanted(known, identity, on_existing):
        _move_log(folder.path, same.path)
        if hydra.job.chdir:
            os.chdir(same.path)
        with read_write(hydra):
            hydra.runtime.output_dir = str(same.path)
        return same
    if shorter := known.shorter(identity):
        log.warning("%s", shorter)
    return folder


def _to_continue(
    folder: RunFolder, known: Known, identity: Identity, config: dict[str, Any], hydra: Any
) -> Shorter | None:
    """The same run with a smaller budget, which this one continues; None if hydra.run.dir was set."""
    if config["on_existing"] == "restart" or _was_named(hydra) or folder.result() is not None:
        return None
    shorter = known.shorter(identity)
    return shorter if shorter and shorter.obstacle is None else None


def _was_named(hydra: Any) -> bool:
    return any(text.lstrip("+").startswith("hydra.run.dir=") for text in hydra.overrides.hydra)


def wanted(known: Known, identity: Identity, on_existing: str) -> RunFolder | None:
    """The folder in which the run was started under another name, if it is to be resumed there.

    Raises:
        UserError: there is such a folder, and on_existing=fail.
    """
    same = None if on_existing == "restart" else known.same(identity)
    if same and on_existing == "fail":
        raise UserError(f"{same.path} is this run already, and on_existing=fail: choose another name=..., or resume")
    return same


def _move_log(old: Path, new: Path) -> None:
    """Redirect Hydra's log to another folder, and remove the old log and folder if they are empty."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == old:
            handler.close()  # it reopens its file at the next record
            file = Path(handler.baseFilename)
            if file.exists() and not file.stat().st_size:
                Inside(old).remove(file.name)
            handler.baseFilename = str(new / file.name)
    with suppress(OSError):
        old.rmdir()


def _extra(config: dict[str, Any], hydra: Any, shorter: Shorter | None) -> dict[str, Any]:
    """Content of run.json other than the identity."""
    return {
        "files": {key: value for key, value in config["data"].items() if key.endswith("_file")},
        "source": source if isinstance(source := config["model"].get("source"), str) else None,
        "name": config["name"],
        "choices": {key: value for key, value in choices(hydra, config).items() if not key.startswith("hydra/")},
        "overrides": list(hydra.overrides.task),
        **({"continues": {"hash": shorter.run.run()["hash"], "max_steps": shorter.steps}} if shorter else {}),
        "began": {"id": secrets.token_hex(4), "version": __version__, "commit": git_commit()},
    }


def _on_existing(config: dict[str, Any], folder: RunFolder) -> str:
    """What to do with an existing folder; a requeued job always resumes its own run."""
    status = records.lenient(folder.status_json, records.Status) or {}
    if SUBMITTED in os.environ and (job := status.get("job")) and job == this_job():
        return "resume"
    return str(config["on_existing"])


@contextmanager
def _recorded(folder: RunFolder, lock: Lock) -> Iterator[None]:
    """Record in the run folder how the run ended, if it ended before its result was written."""
    try:
        yield
    except (RunCut, KeyboardInterrupt, SystemExit) as error:
        if not lock.lost:
            with suppress(UserError):  # a full disk
                note(folder, "cut", error=None)
        if isinstance(error, RunCut):
            raise
        raise RunCut("cut; the same command resumes from the last checkpoint") from error
    except Exception as error:
        with suppress(UserError, OSError):  # a full disk may be the cause
            note(folder, "failed", error=str(error).strip() or type(error).__name__)
            folder.files.write(folder.error_txt.name, traceback.format_exc())
        raise
