"""Checks of a composed configuration that need neither torch nor the disk: keys, types, numbers."""

import difflib
import math
from collections.abc import Iterable, Iterator
from typing import Any

from nextfail import source
from nextfail.errors import UserError
from nextfail.runs.identity import PRECISIONS, SECTIONS, leaves

GIVEN = {
    "model": {"vocab_size", "max_length"},
    "data": {"task", "run_seed"},
    "optimizer": {"module"},
    "scheduler": {"optimizer", "max_steps"},
}
"""Arguments that the code gives, and no configuration."""

TRAINER = ("accelerator", "threads", "precision", "max_steps", "val_every", "stop_at", "gradient_clip")
SIZES = {"size": ("depth", "width", "heads"), "scale": ("tasks", "models", "seeds")}
TOP = (*SECTIONS, "trainer", "callbacks", "logger", "name", "on_existing", "vars", *SIZES)
HYDRA = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
NEEDED = ("name", "on_existing", "trainer", *SECTIONS)

ACCELERATORS = ("cpu", "gpu", "cuda", "mps", "auto")
SUPPORTED = ("32-true", "bf16-mixed", "bf16-true", "16-true", "64-true")
MOST_THREADS = 1024

INSTEAD = {
    "devices": "a run uses one device. To use several, run several at once: nextfail-train -m seed=0,1,2,3 (with "
    "hydra.launcher.per_gpu, or on a cluster)",
    "graph": "the graph is a task now: choose task=NAME, or set task.KEY",
    "strategy": "a run uses one device, so there is no strategy to choose",
    "max_epochs": "training is measured in steps: set trainer.max_steps",
    "max_time": "training is measured in steps: set trainer.max_steps",
    "limit_val_batches": "set the size of the validation set: data.validation",
    "limit_train_batches": "training is measured in steps: set trainer.max_steps",
    "accumulate_grad_batches": "not supported: set data.batch_size",
    "batch_size": "set data.batch_size",
    "epochs": "training is measured in steps: set trainer.max_steps",
}
"""Keys of other programs that have no counterpart of a similar name here."""

WORDS = {
    "int": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "float": (lambda value: isinstance(value, int | float) and not isinstance(value, bool), "a number"),
    "str": (lambda value: isinstance(value, str), "text"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "None": (lambda value: value is None, "null"),
}


Spec = tuple[str, dict[str, Any], dict[str, source.Parameter] | None]
"""Key and settings of what becomes an object, and the parameters it takes from a configuration; None: not known."""


def check(config: dict[str, Any]) -> None:
    """Refuse what cannot be run, before anything is imported or written; `trainer` is brought into one spelling.

    Raises:
        UserError: names the key, its value, and what would be right.
    """
    for key in NEEDED:
        if config.get(key) is None:
            raise UserError(f"{key} has no value: give one, as in {key}={'NAME' if key != 'seed' else 0}")
    for section in ("trainer", *SECTIONS[:-1]):
        if not isinstance(config[section], dict) or not config[section]:
            raise UserError(f"{section} is empty: choose an option, as in {section}=NAME")
    for section in ("callbacks", "logger", "vars", *SIZES):
        config[section] = config.get(section) or {}
        if not isinstance(config[section], dict):
            raise UserError(f"{section}={config[section]!r} is not a group of settings")
    for section in ("callbacks", "logger"):
        for name, spec in config[section].items():
            if spec is not None and not isinstance(spec, dict):
                raise UserError(f"{section}.{name}={_shown(spec)} is not a group of settings with a _target_")
    require_name(config["name"])
    check_keys(config)
    for key, value in leaves({section: config[section] for section in (*SECTIONS, "trainer")}):
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"{key}={number} is not a finite number")
    whole(config, "seed", 0)
    _check_trainer(config["trainer"])
    if config["on_existing"] not in ("resume", "restart", "fail"):
        raise UserError(f"on_existing={config['on_existing']!r} is unknown: choose resume, restart or fail")


def require_name(name: Any) -> None:
    """Refuse a name whose folder would not be below runs/.

    Raises:
        UserError: it is absolute, leads upwards, or is no name.
    """
    if not isinstance(name, str) or not name.strip("./ ") or name.startswith("/") or ".." in name.split("/"):
        raise UserError(f"name={_shown(name)} is not the name of a folder below runs/")


def _check_trainer(trainer: dict[str, Any]) -> None:
    for key in TRAINER:
        if key not in trainer:
            raise UserError(f"trainer.{key} is missing: give a value, as in +trainer.{key}=...")
    for key in ("max_steps", "val_every"):
        whole(trainer, key, 1, "trainer.")
    whole(trainer, "threads", 1, "trainer.", MOST_THREADS)
    trainer["val_every"] = min(trainer["val_every"], trainer["max_steps"])  # at least one validation, at the end
    clip, stop_at = trainer["gradient_clip"], trainer["stop_at"]
    if clip is not None and not (_is(clip, "float") and clip > 0):
        raise UserError(f"trainer.gradient_clip={_shown(clip)} is not a norm: needs a number above 0, or null")
    if stop_at is not None and not (_is(stop_at, "float") and 0 < stop_at <= 1):
        raise UserError(
            f"trainer.stop_at={_shown(stop_at)} is not an accuracy: needs a number above 0 and up to 1, or null"
        )
    if trainer["accelerator"] not in ACCELERATORS:
        known = ", ".join(ACCELERATORS)
        raise UserError(f"trainer.accelerator={_shown(trainer['accelerator'])} is not supported: choose one of {known}")
    precision = PRECISIONS.get(str(trainer["precision"]), trainer["precision"])
    if precision not in SUPPORTED:
        why = ", since it would scale gradients" if precision == "16-mixed" else ""
        known = ", ".join(SUPPORTED)
        raise UserError(f"trainer.precision={_shown(trainer['precision'])} is not supported{why}: "
                        f"choose bf16-mixed, or one of {known}")  # fmt: skip
    if precision == "16-true" and trainer["accelerator"] == "cpu":
        raise UserError(f"trainer.precision={trainer['precision']} needs a GPU: choose 32-true or bf16-mixed on a CPU")
    trainer["precision"] = precision


def check_keys(config: dict[str, Any]) -> None:
    """Refuse keys that nothing would read, and values that a class does not take, in every section.

    Raises:
        UserError: names the key, and the nearest right one.
    """
    specs = list(_specs(config))
    for key in _unknown(config, specs):
        raise unknown(key, sorted(_known(specs)))
    for key, spec, parameters in specs:
        if parameters is not None:
            _check_spec(key, spec, parameters)


def _unknown(config: dict[str, Any], specs: list[Spec]) -> Iterator[str]:
    for key, value in config.items():
        if key not in TOP:
            yield next(iter(leaves(value, key)), (key, value))[0]
    for section, allowed in {"trainer": TRAINER, **SIZES}.items():
        yield from (f"{section}.{key}" for key in config[section] if key not in allowed)
    for key, spec, parameters in specs:
        if parameters is not None:
            yield from (f"{key}.{name}" for name in spec if name not in parameters and name not in HYDRA)


def _check_spec(key: str, spec: dict[str, Any], parameters: dict[str, source.Parameter]) -> None:
    for name, value in spec.items():
        if name in HYDRA:
            continue
        types = parameters[name].types
        if types and not any(_is(value, kind) for kind in types):
            words = " or ".join(WORDS[kind][1] for kind in WORDS if kind in types)
            raise UserError(f"{key}.{name}={_shown(value)} is not {words}")
    if "_args_" not in spec and not (spec.get("_partial_") and key not in GIVEN):
        for name, parameter in parameters.items():
            if parameter.default is source.REQUIRED and name not in spec:
                raise UserError(f"{key}.{name} is missing: give a value, as in +{key}.{name}=...")


GLOBAL = "# @package _global_"
"""The first line of a file that changes sections other than its own."""


def unknown(key: str, known: Iterable[str]) -> UserError:
    """That a key is unknown, with the nearest right ones or what to do instead."""
    leaf = key.rpartition(".")[2]
    if leaf in INSTEAD and key not in known:
        return UserError(f"unknown key {key}: {INSTEAD[leaf]}")
    known = list(known)
    same = [each for each in known if each.rpartition(".")[2] == leaf]
    near = same or difflib.get_close_matches(key, known, n=2, cutoff=0.7)
    if not near:
        leafs = {each.rpartition(".")[2]: each for each in known}
        near = [leafs[each] for each in difflib.get_close_matches(leaf, leafs, n=2, cutoff=0.7)]
    hint = (
        f"did you mean {' or '.join(near[:3])}?"
        if near
        else f"nextfail-train --cfg {'hydra' if key.startswith('hydra.') else 'job'} lists all keys"
    )
    group = key.partition(".")[0]
    if group in ("experiment", "debug", "scale"):  # none of which has keys of its own
        hint += f" If it stands in a file of the group {group}, that lacks the first line `{GLOBAL}`"
    return UserError(f"unknown key {key}: {hint}")


def _known(specs: list[Spec]) -> Iterator[str]:
    yield from ("name", "on_existing", "seed", "vars")
    for section, keys in {"trainer": TRAINER, **SIZES}.items():
        yield from (f"{section}.{key}" for key in keys)
    for key, spec, parameters in specs:
        yield from (f"{key}.{name}" for name in (spec if parameters is None else parameters) if name not in HYDRA)


def _specs(config: dict[str, Any]) -> Iterator[Spec]:
    """Every section that becomes an object."""
    sections = {section: config[section] for section in SECTIONS[:-1]}
    for group in ("callbacks", "logger"):
        sections |= {f"{group}.{name}": spec for name, spec in config[group].items() if isinstance(spec, dict)}
    for key, spec in sections.items():
        if not isinstance(spec.get("_target_"), str):
            raise UserError(f"{key} has no _target_: choose an option of the group, as in {key}=NAME")
        made = source.find(spec["_target_"])
        parameters = made.parameters if made else None
        if parameters is not None:
            given = set(GIVEN.get(key, ()))
            if key == "optimizer":
                given |= {next(iter(parameters), "")}  # whatever its first is called
            parameters = {name: parameter for name, parameter in parameters.items() if name not in given}
        yield key, spec, parameters


def whole(section: dict[str, Any], key: str, least: int, prefix: str = "", most: int | None = None) -> None:
    """Refuse what is not a whole number within bounds."""
    value = section.get(key)
    if not _is(value, "int") or value < least or (most is not None and value > most):  # type: ignore[operator]
        upto = f" of at least {least}" if most is None else f" from {least} to {most}"
        raise UserError(f"{prefix}{key}={_shown(value)} is not a whole number{upto}")


def _is(value: Any, kind: str) -> bool:
    return bool(WORDS[kind][0](value))


def _shown(value: Any) -> str:
    """As a user would write it, text in quotes."""
    return str(value).lower().replace("none", "null") if value is None or isinstance(value, bool) else repr(value)
