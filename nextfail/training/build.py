"""Objects from configuration: freely for a run of one's own, from a closed table for somebody else's run folder."""

import logging
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from nextfail.errors import UserError
from nextfail.models.backbone import Backbone
from nextfail.objectives import Objective
from nextfail.runs.folder import RunFolder
from nextfail.runs.identity import file_digest, model_digest
from nextfail.source import digest, own
from nextfail.tasks.base import Task
from nextfail.tasks.data import TaskData
from nextfail.text import line
from nextfail.training.module import TaskModule

log = logging.getLogger(__name__)

LOADABLE = (Task, Backbone, Objective, TaskData)
"""What a run folder may name without being trusted: classes of nextfail's own of these kinds, by their public names."""


def own_class(name: str) -> Any:
    """One of them, or None if there is none of this name; only nextfail's own modules are imported for it."""
    if (found := own().get(name)) is None:
        return None
    module, _, attribute = found.path.rpartition(".")
    made = getattr(import_module(module), attribute)
    return made if isinstance(made, type) and issubclass(made, LOADABLE) else None


def make(section: str, spec: dict[str, Any], **more: Any) -> Any:
    """Instantiate a section of the configuration by its `_target_`, with `more` arguments that only code can give.

    Raises:
        UserError: the target is missing, cannot be imported, or refuses its arguments.
    """
    if not spec or "_target_" not in spec:
        raise UserError(f"{section} has no _target_: choose an option of the group, as in {section}=NAME")
    try:
        # only the lookup is Hydra's: it would turn arguments that are dataclasses into configurations
        factory = instantiate({**spec, "_partial_": True}, _convert_="all")
        return factory if spec.get("_partial_") else factory(**more)
    except (InstantiationException, TypeError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"{section} cannot be made from {spec['_target_']}: {error.__cause__ or error}") from error


def make_task(config: dict[str, Any]) -> Task:
    """The task of a composed configuration.

    Raises:
        UserError: as `make`; or its sizes do not fit.
    """
    return _whole_task(make("task", config["task"]))


def make_module(config: dict[str, Any], task: Task) -> TaskModule:
    """The LightningModule of a composed configuration.

    Raises:
        UserError: as `make`; or the objective needs what the model lacks.
    """
    objective = require("objective", make("objective", config["objective"]), Objective)
    backbone = require("model", make("model", config["model"], **_fit(task, objective)), Backbone)
    optimizer, scheduler = make("optimizer", config["optimizer"]), make("scheduler", config["scheduler"])
    return TaskModule(task, backbone, objective, optimizer, scheduler, config["seed"])


def make_data(config: dict[str, Any], task: Task) -> TaskData:
    """The LightningDataModule of a composed configuration."""
    made = make("data", config["data"], task=task, run_seed=config["seed"])
    data: TaskData = require("data", made, TaskData)
    return data


def require(section: str, made: Any, kind: type) -> Any:
    """What was made, if it is of a kind.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(made, kind):
        raise UserError(f"{section} is a {type(made).__name__}: needs a {kind.__module__}.{kind.__name__}")
    return made


def remake_module(folder: RunFolder, trust: bool = False) -> TaskModule:
    """The module of a run folder, weights not loaded, from its run.json alone.

    Args:
        trust: whether to import and call what run.json names beyond nextfail's own classes.

    Raises:
        UserError: the folder names something else and is not trusted, or is not a run folder.
    """
    run = folder.run()
    task = remake_task(folder, trust)
    objective = _remake(folder, "objective", {}, trust)
    source = run.get("source")  # identity has its digest, and this is its name
    if source is not None and not trust and not Path(str(source)).is_dir():
        raise UserError(f"{folder.path} began with the model {source}, and there is no such folder: it would be asked "
                        "for on the hub. Give --trust if you trust this folder")  # fmt: skip
    if source is not None and model_digest(source) != run["model"].get("source"):
        raise UserError(f"{source} is not the model that this run began with: it has moved, or its content has changed")
    backbone = _remake(folder, "model", {} if source is None else {"source": source}, trust, **_fit(task, objective))
    return TaskModule(task, backbone, objective)


def remake_task(folder: RunFolder, trust: bool = False) -> Task:
    """The task of a run folder; as `remake_module`."""
    return _whole_task(_remake(folder, "task", {}, trust))


def _whole_task(made: Any) -> Task:
    task: Task = require("task", made, Task)
    if not is_dataclass(task):
        raise UserError(f"task is a {type(task).__name__}, which is no dataclass: its settings are its fields")
    return task


def remake_data(folder: RunFolder, task: Task, trust: bool = False) -> TaskData:
    """The data of a run folder; as `remake_module`.

    Raises:
        UserError: as there; or a data file is not the one that the run began with.
    """
    run = folder.run()
    files = run.get("files", {})  # as the model above
    for key, name in files.items():
        require_unchanged(run, key, name)
    data: TaskData = _remake(folder, "data", files, trust, task=task, run_seed=run["seed"])
    return data


def require_unchanged(run: dict[str, Any], key: str, name: str | None) -> None:
    """Refuse a data file whose content is not that with which a run began."""
    if file_digest(name) != run["data"].get(key):
        raise UserError(f"{name} is not the {key} of this run any more: its content has changed")


def _fit(task: Task, objective: Any) -> dict[str, int]:
    """How large a backbone this task and objective need."""
    return {"vocab_size": task.vocab.size + objective.extra_tokens, "max_length": objective.max_length(task)}


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
        log.warning("%s was trained with revision %s of %s, which computes something else than the present revision %s",
                    line(folder.path), line(what["revision"]), made.public_name, made.revision)  # fmt: skip
    if made is None and digest(target) != what.get("sha256"):
        log.warning("%s was trained with another version of %s", line(folder.path), line(target))
    if made is None or inner:
        return make(section, spec, **more)
    try:
        return made(**{key: value for key, value in spec.items() if not key.startswith("_")}, **more)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder.path}: {section} cannot be made from {target}: {error}") from error
