"""Validation of a composed configuration before torch is imported: keys, types, numbers."""

import difflib
import math
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from nextfail import source
from nextfail.config import OPTIONS, OWNED, SIZE, TOP, TRAINER, shown
from nextfail.errors import UserError
from nextfail.runs.identity import PRECISIONS, SECTIONS, leaves
from nextfail.sweeps.options import own

GIVEN = {
    "model": {"vocab_size", "max_length"},
    "data": {"task", "run_seed"},
    "optimizer": {"module"},
    "scheduler": {"optimizer", "max_steps"},
}
"""Arguments that the code passes, so that no configuration may set them."""

SECTION_KEYS = {"trainer": TRAINER, "size": SIZE}
"""Sections whose keys are not the arguments of a class."""

TOP_LEVEL = (*SECTIONS, "callbacks", "logger", "vars", *TOP, *SECTION_KEYS)
HYDRA = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
NEEDED = ("name", "on_existing", "trainer", *SECTIONS)

INSTEAD = {
    "devices": "a run uses one device. To use several, run several at once: nextfail-train -m seed=0,1,2,3 (with "
    "hydra.launcher.per_gpu, or on a cluster)",
    "graph": "the graph is a task now: choose task=NAME, or set task.KEY",
    "strategy": "a run uses one device, so there is no strategy to choose",
    "max_epochs": "training is measured in steps: set trainer.max_steps",
    "max_time": "training is measured in steps: set trainer.max_steps",
    "limit_train_batches": "training is measured in steps: set trainer.max_steps",
    "batch_size": "set data.batch_size",
    "epochs": "training is measured in steps: set trainer.max_steps",
}
"""Keys known from other programs without a similarly named counterpart here, and what to do instead."""

Spec = tuple[str, dict[str, Any], dict[str, source.Parameter] | None]
"""Key and settings of an object to instantiate, and the parameters a configuration may set; None if unknown."""


def check(config: dict[str, Any]) -> None:
    """Reject a configuration that cannot run, before anything is imported or written; normalize `trainer` in place.

    Raises:
        UserError: names the key, its value, and what is expected.
    """
    for key in NEEDED:
        if config.get(key) is None:
            raise UserError(f"{key} has no value: give one, as in {key}={'NAME' if key != 'seed' else 0}")
    for section in ("trainer", *SECTIONS[:-1]):
        if not isinstance(config[section], dict) or not config[section]:
            raise UserError(f"{section} is empty: choose an option, as in {section}=NAME")
    for section in ("callbacks", "logger", "vars", "size"):
        config[section] = config.get(section) or {}
        if not isinstance(config[section], dict):
            raise UserError(f"{section}={config[section]!r} is not a group of settings")
    for section in ("callbacks", "logger"):
        for name, spec in config[section].items():
            if spec is not None and not isinstance(spec, dict):
                raise UserError(f"{section}.{name}={shown(spec)} is not a group of settings with a _target_")
    require_name(config["name"])
    for key, value in leaves({section: config[section] for section in (*SECTIONS, "trainer")}):
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"{key}={number} is not a finite number")
    check_keys(config)
    for key, known in TOP.items():
        _refuse(known.type.refusal(key, config[key]))
    _check_trainer(config["trainer"])
    for key, value in config["size"].items():
        _refuse(SIZE[key].type.refusal(f"size.{key}", value))


def require_name(name: Any) -> None:
    """Reject a run name whose folder would not be below runs/.

    Raises:
        UserError: the name is absolute, contains `..`, is empty or is not a string.
    """
    if not isinstance(name, str) or not name.strip("./ ") or name.startswith("/") or ".." in name.split("/"):
        raise UserError(f"name={shown(name)} is not the name of a folder below runs/")


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise UserError(reason)


def _check_trainer(trainer: dict[str, Any]) -> None:
    for key in TRAINER:
        if key not in trainer:
            raise UserError(f"trainer.{key} is missing: give a value, as in +trainer.{key}=...")
    trainer["precision"] = PRECISIONS.get(str(trainer["precision"]), trainer["precision"])
    if trainer["precision"] == "16-mixed":
        raise UserError(
            "trainer.precision=16-mixed is not supported, since it would scale gradients: choose bf16-mixed"
        )
    for key, known in TRAINER.items():
        _refuse(known.type.refusal(f"trainer.{key}", trainer[key]))
    _check_options(trainer)
    trainer["val_every"] = min(trainer["val_every"], trainer["max_steps"])  # validate at least once, at the end
    if trainer["precision"] == "16-true" and trainer["accelerator"] == "cpu":
        raise UserError("trainer.precision=16-true needs a GPU: choose 32-true or bf16-mixed on a CPU")


def _check_options(trainer: dict[str, Any]) -> None:
    """Check the options of Lightning's Trainer, and drop those that are null."""
    options = trainer.get("options") or {}
    if not isinstance(options, dict):
        raise UserError(f"trainer.options={shown(options)} is not a group of settings")
    for key, value in options.items():
        if key in OWNED:
            raise UserError(f"trainer.options.{key} is decided by nextfail: {OWNED[key]}")
        if key not in OPTIONS:
            raise unknown(f"trainer.options.{key}", [f"trainer.options.{each}" for each in OPTIONS])
        _refuse(OPTIONS[key].type.refusal(f"trainer.options.{key}", value))
    trainer["options"] = {key: value for key, value in options.items() if value is not None}


def check_keys(config: dict[str, Any]) -> None:
    """Reject unknown keys, and values that a class does not accept, in every section.

    Raises:
        UserError: names the key and the nearest valid one.
    """
    specs = list(_specs(config))
    for key in _unknown(config, specs):
        raise unknown(key, sorted(_known(specs)))
    for key, spec, parameters in specs:
        if parameters is not None:
            _check_spec(key, spec, parameters)


def _unknown(config: dict[str, Any], specs: list[Spec]) -> Iterator[str]:
    for key, value in config.items():
        if key not in TOP_LEVEL:
            yield next(iter(leaves(value, key)), (key, value))[0]
    for section, allowed in SECTION_KEYS.items():
        yield from (f"{section}.{key}" for key in config[section] if key not in (*allowed, "options"))
    for key, spec, parameters in specs:
        if parameters is not None:
            yield from (f"{key}.{name}" for name in spec if name not in parameters and name not in HYDRA)


def _check_spec(key: str, spec: dict[str, Any], parameters: dict[str, source.Parameter]) -> None:
    for name, value in spec.items():
        if name in HYDRA:
            continue
        _refuse(parameters[name].type.refusal(f"{key}.{name}", value))
    if "_args_" not in spec and not (spec.get("_partial_") and key not in GIVEN):
        for name, parameter in parameters.items():
            if parameter.default is source.REQUIRED and name not in spec:
                raise UserError(f"{key}.{name} is missing: give a value, as in +{key}.{name}=...")


GLOBAL = "# @package _global_"
"""First line of a config file that sets keys outside its own section."""

GLOBAL_GROUPS = ("experiment", "recipe", "debug")
"""Config groups whose files need that line."""


def unknown(key: str, known: Iterable[str]) -> UserError:
    """The error for an unknown key, with the nearest valid keys or what to do instead."""
    leaf = key.rpartition(".")[2]
    if leaf in INSTEAD and key not in known:
        return UserError(f"unknown key {key}: {INSTEAD[leaf]}")
    known = list(known)
    same = [each for each in known if each.rpartition(".")[2] == leaf]
    beside = [each for each in known if each.rpartition(".")[0] == key.rpartition(".")[0]]
    longer = [each for each in beside if len(leaf) > 2 and each.rpartition(".")[2].startswith(leaf)]
    near = (
        same
        or longer
        or _alike(leaf, beside)
        or difflib.get_close_matches(key, known, n=2, cutoff=0.7)
        or _alike(leaf, known)
    )
    group = key.partition(".")[0]
    hints = [f"did you mean {' or '.join(near[:3])}?"] if near else []
    if not same and (others := _options_with(key)):
        hints.append(f"{' or '.join(f'{group}={each}' for each in others)} has it")
    listing = f"nextfail-train --cfg {'hydra' if key.startswith('hydra.') else 'job'} lists all keys"
    hint = " ".join(hints) or listing
    if group in GLOBAL_GROUPS:
        hint += f" If it stands in a file of the group {group}, that lacks the first line `{GLOBAL}`"
    return UserError(f"unknown key {key}: {hint}")


def _options_with(key: str) -> list[str]:
    """Options of the key's group whose class has this key, such as multi_token for objective.k."""
    group, _, leaf = key.partition(".")
    if group not in SECTIONS or leaf in GIVEN.get(group, ()):
        return []
    made = {name: source.find(str(content.get("_target_"))) for name, content in own(group).items()}
    return [name for name, found in made.items() if found and leaf in (found.parameters or ())]


def _alike(leaf: str, known: Iterable[str]) -> list[str]:
    """Known keys whose last part is similar to `leaf`."""
    leafs = {each.rpartition(".")[2]: each for each in known}
    return [leafs[each] for each in difflib.get_close_matches(leaf, leafs, n=2, cutoff=0.7)]


def _known(specs: list[Spec]) -> Iterator[str]:
    yield from ("name", "on_existing", "seed", "vars")
    for section, keys in SECTION_KEYS.items():
        yield from (f"{section}.{key}" for key in keys)
    yield from (f"trainer.options.{key}" for key in OPTIONS)
    for key, spec, parameters in specs:
        yield from (f"{key}.{name}" for name in (spec if parameters is None else parameters) if name not in HYDRA)


def _specs(config: dict[str, Any]) -> Iterator[Spec]:
    """Every section that is instantiated."""
    sections = {section: config[section] for section in SECTIONS[:-1]}
    for group in ("callbacks", "logger"):
        sections |= {f"{group}.{name}": spec for name, spec in config[group].items() if isinstance(spec, dict)}
    for key, spec in sections.items():
        if not isinstance(spec.get("_target_"), str):
            raise UserError(f"{key} has no _target_: choose an option of the group, as in {key}=NAME")
        made = source.find(spec["_target_"])
        package = spec["_target_"].partition(".")[0]
        if made is None and not (package and find_spec(package)):
            raise UserError(f"{key}._target_={spec['_target_']}: there is no module {package}, here or installed: "
                            f"run the command in the folder of {package}.py, or install it")  # fmt: skip
        parameters = made.parameters if made else None
        if parameters is not None:
            given = set(GIVEN.get(key, ()))
            if key == "optimizer":
                given |= {next(iter(parameters), "")}  # its first parameter, whatever the name
            parameters = {name: parameter for name, parameter in parameters.items() if name not in given}
        yield key, spec, parameters
