"""What one job of nextfail-train does, in this process or a worker. Torch is imported only if there is work to do."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from nextfail import stop
from nextfail.errors import RunCut, UserError, guarded
from nextfail.runs.files import read_json
from nextfail.runs.folder import RunFolder, State
from nextfail.runs.identity import SECTIONS, identity
from nextfail.runs.lock import Lock
from nextfail.runs.naming import one_line, run_folder
from nextfail.runs.slurm import this_job
from nextfail.runs.status import note

_TRAINER = {"accelerator", "threads", "precision", "max_steps", "val_every", "stop_at", "gradient_clip"}

SUBMITTED = "SUBMITIT_EXECUTOR"
"""Environment variable that is there in the jobs that we sent, and not in a session that happens to be a job."""

OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


def run(cfg: DictConfig) -> float:
    """Claim the run folder, train unless it is done, and return the exact match on the test set.

    A single run exits on a user's mistake. In a sweep it is raised, since a launcher sees exceptions, and an exit
    would take its worker along.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        result, _ = claim_and_train(cfg)
    else:
        result, folder = guarded("nextfail-train", lambda: claim_and_train(cfg))
        print(f"{one_line(result)}\n{os.path.relpath(folder.path)}")
    return float(result["exact_match"]["value"])


def claim_and_train(cfg: DictConfig) -> tuple[dict[str, Any], RunFolder]:
    """The result of the run, new or found, and its folder.

    Raises:
        UserError, RunCut: see nextfail.errors.
    """
    hydra = HydraConfig.get()
    config = resolve(cfg, Path(hydra.runtime.cwd))
    folder = RunFolder(Path(hydra.runtime.output_dir))
    extra = {
        "files": {key: value for key, value in config["data"].items() if key.endswith("_file")},
        "source": config["model"].get("source"),
        "name": config["name"],
        "choices": {key: value for key, value in hydra.runtime.choices.items() if not key.startswith("hydra/")},
        "overrides": list(hydra.overrides.task),
    }
    with folder.locked() as lock:
        if folder.claim(identity(config), extra, _on_existing(config, folder)) is not State.DONE:
            with _recorded(folder, lock):
                if stop.requested is not None:
                    raise RunCut("not begun; the same command goes on from here")
                if hydra.runtime.cwd not in sys.path:
                    sys.path.append(hydra.runtime.cwd)  # a user's own modules, as `python -m` finds them
                from nextfail.training.run import train  # takes seconds, which a finished run should not cost

                return train(config, folder, lock), folder
    result = folder.result()
    assert result is not None
    return result, folder


def _on_existing(config: dict[str, Any], folder: RunFolder) -> str:
    """What to do with a folder that exists; a job that was requeued goes on with what is its own."""
    status = read_json(folder.status_json)
    if SUBMITTED in os.environ and isinstance(status, dict) and (job := status.get("job")) and job == this_job():
        return "resume"
    return str(config["on_existing"])


@contextmanager
def _recorded(folder: RunFolder, lock: Lock) -> Iterator[None]:
    """Write into the run's folder how it ended, if it did so before its result."""
    try:
        yield
    except (RunCut, KeyboardInterrupt, SystemExit) as error:
        if not lock.lost:
            with suppress(UserError):  # a full disk
                note(folder, "cut", error=None)
        if isinstance(error, RunCut):
            raise
        raise RunCut("cut; the same command goes on from the last checkpoint") from error
    except Exception as error:
        with suppress(UserError, OSError):  # a full disk may be what brought us here
            note(folder, "failed", error=str(error).splitlines()[0] if str(error) else type(error).__name__)
            folder.error_txt.write_text(traceback.format_exc(), encoding="utf-8")
        raise


def resolve(cfg: DictConfig, where: Path) -> dict[str, Any]:
    """The composed configuration as plain values, checked as far as is possible without torch.

    Data files and a model's folder are made absolute, from the folder `where` the command was given.

    Raises:
        UserError: something is missing or of the wrong kind.
    """
    try:
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value: give one, as in {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    for section in SECTIONS[:-1]:
        if not isinstance(config[section], dict):
            raise UserError(f"{section} is empty: choose an option, as in {section}=NAME")
    config["logger"], config["callbacks"] = config["logger"] or {}, config["callbacks"] or {}
    for key, value in config["data"].items():
        if key.endswith("_file") and value is not None:
            config["data"][key] = str(where / str(value))
    if (source := config["model"].get("source")) and (where / str(source)).is_dir():
        config["model"]["source"] = str(where / str(source))  # else it is a name on the hub
    _require_whole(config, "seed", 0)
    trainer = config["trainer"]
    if unknown := sorted(set(trainer) - _TRAINER):
        raise UserError(f"unknown key trainer.{unknown[0]}: known are {', '.join(sorted(_TRAINER))}")
    clip = trainer["gradient_clip"]
    if clip is not None and not (isinstance(clip, int | float) and clip > 0):
        raise UserError(f"trainer.gradient_clip={clip!r} is not a norm: needs a number above 0, or null")
    for key in ("max_steps", "val_every", "threads"):
        _require_whole(trainer, key, 1, "trainer.")
    stop_at = trainer["stop_at"]
    if stop_at is not None and not (isinstance(stop_at, int | float) and 0 < stop_at <= 1):
        raise UserError(f"trainer.stop_at={stop_at!r} is not an accuracy: needs a number above 0 and up to 1, or null")
    if trainer["val_every"] > trainer["max_steps"]:
        raise UserError(
            f"trainer.val_every={trainer['val_every']} is more than trainer.max_steps={trainer['max_steps']}: "
            "there would be neither a validation nor a checkpoint"
        )
    return config


def _require_whole(section: dict[str, Any], key: str, least: int, prefix: str = "") -> None:
    value = section[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{prefix}{key}={value!r} is not a whole number of at least {least}")
