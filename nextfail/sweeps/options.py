"""The files of configuration options, as Hydra finds them."""

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


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


@cache
def _content(file: Path) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    return content if isinstance(content, dict) else {}
