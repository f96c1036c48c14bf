"""The files of configuration options, as Hydra finds them."""

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nextfail.paths import CONF


def option(hydra: Any, group: str, name: str) -> dict[str, Any]:
    """Content of the file of an option, by itself; empty if there is none.

    Args:
        hydra: the `hydra` section, with the folders that are searched.
        group: such as `model` or `experiment`.
        name: of the option.
    """
    for source in hydra.runtime.config_sources:
        file = Path(source.path) / group / f"{name}.yaml"
        if source.schema == "file" and file.exists():
            return _content(file)
    return {}


def own(group: str) -> dict[str, dict[str, Any]]:
    """Names and contents of nextfail's own options of a group."""
    return {file.stem: _content(file) for file in sorted((CONF / group).glob("*.yaml"))}


@cache
def _content(file: Path) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    return content if isinstance(content, dict) else {}
