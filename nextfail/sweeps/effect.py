"""Reject Hydra settings that would have no effect and that Hydra silently ignores."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from nextfail.errors import UserError
from nextfail.sweeps.check import unknown

OF_THE_SWEEP = ("launcher", "sweeper", "callbacks", "searchpath", "hydra_logging")
"""Parts of `hydra` that are read once, before the jobs of a sweep are composed."""

NAMES = ("job_name", "folder")
"""Launcher settings that may differ between jobs, since they only name things."""

IN_SWEEPS = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep")


def require_in_run(hydra: Any) -> None:
    """Reject settings that a single run would ignore.

    Args:
        hydra: the `hydra` section of the configuration.

    Raises:
        UserError: names the setting.
    """
    require_known(hydra)
    typed = [text for text in hydra.overrides.hydra if _begins(text, IN_SWEEPS)]
    groups = {"hydra/launcher": "local", "hydra/sweeper": "grid"}
    chosen = [f"{group}={hydra.runtime.choices[group]}" for group, usual in groups.items()
              if hydra.runtime.choices.get(group, usual) != usual]  # fmt: skip
    for text in typed or chosen:
        raise UserError(f"{text} takes effect only in a sweep: add -m, also for a single run")
    keys = {text.lstrip("+~").partition("=")[0] for text in hydra.overrides.task}
    if axes := [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items() if key not in keys]:
        raise UserError(f"a single run would ignore the values to sweep over, {' '.join(axes)}: add -m, or choose one")


def require_known(hydra: Any) -> None:
    """Reject keys that were added to the `hydra` section, since nothing reads them.

    Raises:
        UserError: names the key and the nearest valid one.
    """
    for key in _added(hydra, OmegaConf.structured(HydraConf), "hydra"):
        if key.replace(".", "/") in hydra.runtime.choices:
            continue  # a group, such as hydra/env
        known = [f"{key.rpartition('.')[0]}.{name}" for name in _at(OmegaConf.structured(HydraConf), key)]
        raise unknown(key, known)


def _added(node: Any, schema: Any, prefix: str) -> Iterator[str]:
    for name in node:
        if name not in schema.keys():  # noqa: SIM118, `in` is False for missing values
            yield f"{prefix}.{name}"
        elif is_dataclass(OmegaConf.get_type(schema, name)):
            yield from _added(node[name], schema[name], f"{prefix}.{name}")


def _at(schema: Any, key: str) -> Any:
    for part in key.split(".")[1:-1]:
        schema = schema[part]
    return schema


def require_in_sweep(master: DictConfig, jobs: Sequence[tuple[Sequence[str], DictConfig]]) -> None:
    """Reject settings that a sweep would ignore, or that differ between its jobs but are read only once.

    Args:
        master: the composed configuration of the command.
        jobs: overrides and composed configuration of each job.

    Raises:
        UserError: names the setting, and the commands to run instead if a group choice sets it.
    """
    require_known(master.hydra)
    for text in master.hydra.overrides.hydra:
        if _begins(str(text), ("hydra.run",)):
            raise UserError(f"{text} takes effect only in a single run: a sweep has hydra.sweep.dir=FOLDER")
    once = {part: _plain(master, part) for part in OF_THE_SWEEP}
    launcher = _resolved_launcher(master)
    for overrides, config in jobs:
        for part, value in once.items():
            if _plain(config, part) != value:
                raise UserError(f"{' '.join(overrides)} changes hydra.{part}, which cannot differ between the runs of "
                                f"one sweep. Run instead\n  {_instead(master)}")  # fmt: skip
        for key, value in _resolved_launcher(config).items():
            if key not in NAMES and value != launcher.get(key):
                raise UserError(f"{' '.join(overrides)} makes hydra.launcher.{key}={value}, and the other runs have "
                                f"{launcher.get(key)}: set hydra.launcher.{key} for the whole sweep")  # fmt: skip


def _instead(master: DictConfig) -> str:
    """One command per combination of swept group options."""
    typed = [*map(str, master.hydra.overrides.hydra), *map(str, master.hydra.overrides.task)]
    typed = [text for text in typed if not text.startswith("hydra.mode=")]  # added by Hydra for -m
    commands: list[list[str]] = [[]]
    for text in typed:
        parsed = OverridesParser.create().parse_override(text)
        key = parsed.get_key_element()
        group = parsed.is_sweep_override() and key in master.hydra.runtime.choices
        values = [f"{key}={value}" for value in parsed.sweep_string_iterator()] if group else [text]
        commands = [[*command, value] for command in commands for value in values]
    return "\n  ".join(shlex.join(["nextfail-train", "-m", *command]) for command in commands)


def _begins(text: str, keys: Sequence[str]) -> bool:
    key = text.lstrip("+~").partition("=")[0]
    return any(key == each or key.startswith(f"{each}.") for each in keys)


def _plain(config: DictConfig, part: str) -> Any:
    value = config.hydra.get(part)
    return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value


def _resolved_launcher(config: DictConfig) -> dict[str, Any]:
    return {str(key): config.hydra.launcher[key] for key in config.hydra.launcher}
