"""The configuration of a run: composed by Hydra, merged with its recipe, checked without torch."""

import copy
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from nextfail.errors import UserError
from nextfail.runs.identity import SECTIONS
from nextfail.runs.naming import run_folder
from nextfail.source import find
from nextfail.sweeps import recipe
from nextfail.sweeps.check import check
from nextfail.sweeps.devices import NEED_GPU
from nextfail.sweeps.options import option

OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
OmegaConf.register_new_resolver("gpus_for", lambda accelerator: 1 if accelerator in NEED_GPU else None, replace=True)


def checked(cfg: DictConfig, hydra: Any) -> tuple[dict[str, Any], list[str]]:
    """As `resolve`, and check that the configuration can run.

    Raises:
        UserError: it cannot.
    """
    find_classes_in(hydra.runtime.cwd)
    config, said = resolve(cfg, Path(hydra.runtime.cwd), hydra)
    choices(hydra, config)
    return config, said


def resolve(cfg: DictConfig, where: Path, hydra: Any) -> tuple[dict[str, Any], list[str]]:
    """The composed configuration with its recipe applied, as plain values, checked as far as possible without torch.

    Args:
        cfg: composed configuration without the `hydra` section.
        where: directory of the command; relative paths of data files and of a model's folder start here.
        hydra: the `hydra` section.

    Returns:
        The configuration, and messages to print before the run starts.

    Raises:
        UserError: a value is missing or invalid.
    """
    try:
        cfg, said = recipe.applied(cfg, hydra)
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value: give one, as in {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    config.pop("recipe", None)
    check(config)
    for key, value in config["data"].items():
        if key.endswith("_file") and value is not None:
            config["data"][key] = str(where / str(value))
    if (model := config["model"].get("source")) and (where / str(model)).is_dir():
        config["model"]["source"] = str(where / str(model))  # else a model name on the Hugging Face Hub
    return config, [*said, *advice(config)]


def choices(hydra: Any, config: dict[str, Any]) -> dict[str, str]:
    """The chosen option of each group; the class name instead, for a section whose class is not the option's.

    Raises:
        UserError: an override chooses several options of one section.
    """
    chosen = {str(group): str(option) for group, option in hydra.runtime.choices.items() if option is not None}
    for section in (*SECTIONS[:-1], "trainer"):
        target = config[section].get("_target_")
        if section in chosen and (
            target is None or option(hydra, section, chosen[section]).get("_target_") in (None, target)
        ):
            continue
        for text in hydra.overrides.task:
            key, _, value = text.partition("=")
            if key == section and value.startswith("["):
                raise UserError(f"{text} would mix several options: choose one, or run each with "
                                f"nextfail-train -m {section}={value.strip('[]')}")  # fmt: skip
        made = find(str(target))
        chosen[section] = (made and made.name) or str(target or section).rpartition(".")[2]
    return chosen


def advice(config: dict[str, Any]) -> list[str]:
    """Messages about a user's own callbacks."""
    return [f"callbacks.{name} is not part of a run's identity: with it or without it, this is the same run"
            for name, spec in config["callbacks"].items()
            if spec and not str(spec.get("_target_")).startswith("nextfail.")]  # fmt: skip


def own_part(config: DictConfig) -> DictConfig:
    """The configuration without the `hydra` section."""
    own = copy.copy(config)
    OmegaConf.set_struct(own, False)
    own.pop("hydra")
    return own


def find_classes_in(folder: str) -> None:
    """Make a user's own modules in a folder importable, as with `python -m`."""
    if folder not in sys.path:
        sys.path.append(folder)
