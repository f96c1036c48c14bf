"""Objects built from a configuration."""

import logging
from dataclasses import is_dataclass
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from nextfail.errors import UserError
from nextfail.models.backbone import Backbone
from nextfail.objectives import Objective
from nextfail.tasks.base import Task
from nextfail.tasks.data import TaskData
from nextfail.training.module import TaskModule

log = logging.getLogger(__name__)


def make(section: str, spec: dict[str, Any], **more: Any) -> Any:
    """Instantiate a section of the configuration by its `_target_`, with `more` arguments that are set in code.

    Raises:
        UserError: the target is missing, cannot be imported, or rejects its arguments.
    """
    if not spec or "_target_" not in spec:
        raise UserError(f"{section} has no _target_: choose an option of the group, as in {section}=NAME")
    try:
        # Hydra only does the lookup: it would turn dataclass arguments into configurations
        factory = instantiate({**spec, "_partial_": True}, _convert_="all")
        return factory if spec.get("_partial_") else factory(**more)
    except (InstantiationException, TypeError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"{section} cannot be built from {spec['_target_']}: {error.__cause__ or error}") from error


def make_task(config: dict[str, Any]) -> Task:
    """The task of a composed configuration.

    Raises:
        UserError: as for `make`; or its sizes are invalid.
    """
    return whole_task(make("task", config["task"]))


def make_module(config: dict[str, Any], task: Task) -> TaskModule:
    """The LightningModule of a composed configuration.

    Raises:
        UserError: as for `make`; or the model lacks a capability that the objective requires.
    """
    objective = require("objective", make("objective", config["objective"]), Objective)
    backbone = require("model", make("model", config["model"], **fit(task, objective)), Backbone)
    optimizer, scheduler = make("optimizer", config["optimizer"]), make("scheduler", config["scheduler"])
    trainer = config.get("trainer", {})
    adds = trainer.get("options", {}).get("accumulate_grad_batches", 1) > 1  # a CUDA graph would overwrite gradients
    graphs = trainer.get("cuda_graphs", False)
    if graphs and adds:
        log.info("trainer.cuda_graphs is not used with trainer.options.accumulate_grad_batches")
    return TaskModule(task, backbone, objective, optimizer, scheduler, config["seed"], graphs and not adds)


def make_data(config: dict[str, Any], task: Task) -> TaskData:
    """The LightningDataModule of a composed configuration."""
    made = make("data", config["data"], task=task, run_seed=config["seed"])
    data: TaskData = require("data", made, TaskData)
    return data


def require(section: str, made: Any, kind: type) -> Any:
    """Return `made` if it is an instance of `kind`.

    Raises:
        UserError: it is not.
    """
    if not isinstance(made, kind):
        raise UserError(f"{section} is a {type(made).__name__}: needs a {kind.__module__}.{kind.__name__}")
    return made


def whole_task(made: Any) -> Task:
    """Return `made` if it is a task whose settings are its dataclass fields.

    Raises:
        UserError: it is not.
    """
    task: Task = require("task", made, Task)
    if not is_dataclass(task):
        raise UserError(f"task is a {type(task).__name__}, which is not a dataclass: its settings are its fields")
    return task


def fit(task: Task, objective: Any) -> dict[str, int]:
    """Backbone sizes that this task and objective need."""
    return {"vocab_size": task.vocab.size + objective.extra_tokens, "max_length": objective.max_length(task)}
