"""Objects from a run folder, possibly someone else's: only known classes are loaded unless it is trusted."""

import logging
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from nextfail.errors import UserError
from nextfail.models.backbone import Backbone
from nextfail.objectives import Objective
from nextfail.runs.folder import BEST, LAST, RunFolder
from nextfail.runs.identity import file_digest, model_digest
from nextfail.runs.records import ODD
from nextfail.source import digest, own
from nextfail.tasks.base import Task
from nextfail.tasks.data import TaskData
from nextfail.text import line
from nextfail.training.build import fit, make, whole_task
from nextfail.training.checkpoints import read_checkpoint
from nextfail.training.module import TaskModule

log = logging.getLogger(__name__)

COPIES = 256  # maximum copies of the weights in a checkpoint: optimizers keep two or three, LBFGS a hundred
MOST_HALVED = 4  # allows for half-precision weights, and for shared weights that are counted twice
REST = 64 * 2**20  # bytes of everything else in a checkpoint

LOADABLE = (Task, Backbone, Objective, TaskData)
"""Base classes of what an untrusted run folder may name: nextfail's own classes, by public name."""


def own_class(name: str) -> Any:
    """A loadable class by public name, or None if there is none; imports only nextfail's own modules."""
    if (found := own().get(name)) is None:
        return None
    module, _, attribute = found.path.rpartition(".")
    made = getattr(import_module(module), attribute)
    return made if isinstance(made, type) and issubclass(made, LOADABLE) else None


def load(folder: RunFolder, checkpoint: str = "last", trust: bool = False) -> tuple[TaskModule, Path, int]:
    """The module of a run folder with the weights of a checkpoint, the checkpoint's path and its step.

    Args:
        checkpoint: "last", "best" or a path.
        trust: as for `remake_module`.

    Raises:
        UserError: as for `remake_module`; or the checkpoint does not belong to this run, or its size does not match the
            model.
    """
    run = folder.run()
    path = {"last": folder.checkpoints / LAST, "best": folder.checkpoints / BEST}.get(checkpoint, Path(checkpoint))
    if "choices" not in run:
        raise UserError(f"{folder.run_json} {ODD}: it has no choices")
    if not trust and run.get("source") is None and path.is_file():  # pretrained models are as large as their files
        _require_size(folder, path, run["hash"])
    state = read_checkpoint(path, run["hash"])
    module = remake_module(folder, trust)
    try:
        module.load_state_dict(state["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} does not have the weights of this run's model: {str(error).splitlines()[0]}"
        ) from error
    return module, path, state["global_step"]


def _require_size(folder: RunFolder, path: Path, run_hash: str) -> None:
    """Refuse a checkpoint whose size does not match the model in run.json, before allocating memory for either.

    Raises:
        UserError: it is too large or too small.
    """
    held, needed = path.stat().st_size, 0

    def add(owner: Any, name: str, parameter: torch.Tensor | None) -> None:
        nonlocal needed
        needed += 0 if parameter is None else parameter.numel() * parameter.element_size()
        if needed > MOST_HALVED * held:  # immediately: building the rest may take hours
            if held <= REST:
                read_checkpoint(path, run_hash)  # it may raise a better error
            raise UserError(
                f"{path} has {held:,} bytes, and is not a checkpoint of a model of {needed:,} bytes and more"
            )

    hook = register_module_parameter_registration_hook(add)
    try:
        with torch.device("meta"):
            remake_module(folder)
    finally:
        hook.remove()
    if held > COPIES * needed + REST:
        raise UserError(f"{path} has {held:,} bytes, and is not a checkpoint of a model of {needed:,} bytes")


def remake_module(folder: RunFolder, trust: bool = False) -> TaskModule:
    """The module of a run folder, without its weights, from run.json alone.

    Args:
        trust: whether to import and call classes in run.json that are not nextfail's own.

    Raises:
        UserError: the folder names such classes and is not trusted, or it is not a run folder.
    """
    run = folder.run()
    task = remake_task(folder, trust)
    objective = _remake(folder, "objective", {}, trust)
    source = run.get("source")  # the identity has its digest; this is its name
    if source is not None and not trust and not Path(str(source)).is_dir():
        raise UserError(f"{folder.path} began with the model {source}, and there is no such folder: it would be asked "
                        "for on the hub. Give --trust if you trust this folder")  # fmt: skip
    if source is not None and model_digest(source) != run["model"].get("source"):
        raise UserError(f"{source} is not the model that this run began with: it has moved, or its content has changed")
    backbone = _remake(folder, "model", {} if source is None else {"source": source}, trust, **fit(task, objective))
    return TaskModule(task, backbone, objective)


def remake_task(folder: RunFolder, trust: bool = False) -> Task:
    """The task of a run folder; as for `remake_module`."""
    return whole_task(_remake(folder, "task", {}, trust))


def remake_data(folder: RunFolder, task: Task, trust: bool = False) -> TaskData:
    """The data of a run folder; as for `remake_module`.

    Raises:
        UserError: as there; or a data file has changed since the run began.
    """
    run = folder.run()
    files = run.get("files", {})  # as for the model above
    for key, name in files.items():
        require_unchanged(run, key, name)
    data: TaskData = _remake(folder, "data", files, trust, task=task, run_seed=run["seed"])
    return data


def require_unchanged(run: dict[str, Any], key: str, name: str | None) -> None:
    """Raise UserError if a data file's content has changed since the run began."""
    if file_digest(name) != run["data"].get(key):
        raise UserError(f"{name} is no longer the {key} of this run: its content has changed")


def _remake(folder: RunFolder, section: str, changed: dict[str, Any], trust: bool, **more: Any) -> Any:
    identity = folder.identity()
    spec = {**identity.settings[section], **changed}
    target, what = str(spec.get("_target_", "")), identity.classes.get(section, {})
    made = own_class(str(what["name"])) if "revision" in what else None
    inner = [each["name"] for key, each in identity.classes.items() if key.startswith(f"{section}.")]
    if not trust and (made is None or inner):
        raise UserError(f"{folder.path} has {section} {(inner or [target])[0]!r}, which is not nextfail's own. "
                        "Loading it would run its code: give --trust if you trust this folder")  # fmt: skip
    if made is not None and made.revision != what["revision"]:
        _warn(f"{folder.path} was trained with revision {what['revision']} of {made.public_name}, which computes "
              f"something other than the current revision {made.revision}")  # fmt: skip
    if made is None and digest(target) != what.get("sha256"):
        _warn(f"{folder.path} was trained with another version of {target}")
    if made is None or inner:
        return make(section, spec, **more)
    try:
        return made(**{key: value for key, value in spec.items() if not key.startswith("_")}, **more)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise UserError(f"{folder.path}: {section} cannot be built from {target}: {error}") from error


@cache
def _warn(text: str) -> None:
    """Warn once, however often a class of the folder is loaded."""
    log.warning("%s", line(text))
