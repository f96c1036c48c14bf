"""What a run gets that may surprise, and is said before it begins."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def advice(config: dict[str, Any], hydra: Any) -> list[str]:
    """What to say of callbacks of one's own; and where a scale has settings for a task by its name, and the run has
    that task by its numbers, or the other way round.

    Args:
        config: resolved configuration.
        hydra: Hydra's part of it.
    """
    choice = hydra.runtime.choices
    scale, model, chosen = (choice.get(group) for group in ("scale", "model", "task"))
    said = [f"callbacks.{name} is no part of what identifies a run: with it or without, it counts as the same"
            for name, spec in config["callbacks"].items()
            if spec and not str(spec.get("_target_")).startswith("nextfail.")]  # fmt: skip
    if not scale:
        return said
    folders = [Path(each.path) for each in hydra.runtime.config_sources if each.schema == "file"]
    made_for = {file.stem: _sizes_in(file) for folder in folders for file in folder.glob("task/*.yaml")}

    def has_recipe(task: str) -> bool:
        return any((folder / "scale/pair" / f"{scale}_{model}_{task}.yaml").exists() for folder in folders)

    asked = _sizes(config["task"])
    if made_for.get(str(chosen)) == asked:
        return said
    said += [f"scale={scale} has settings for {task} with {model}, which this run does not get: choose task={task}"
            for task, sizes in made_for.items() if sizes and sizes == asked and has_recipe(task)]  # fmt: skip
    if has_recipe(str(chosen)):
        said.append(f"scale={scale} gives this run its settings for {chosen}, and the task has other sizes")
    return said


@cache
def _sizes_in(file: Path) -> tuple[Any, ...]:
    return _sizes(OmegaConf.load(file))


def _sizes(task: Mapping[str, Any] | Any) -> tuple[Any, ...]:
    return tuple(task.get(size) for size in ("degree", "path_length"))
