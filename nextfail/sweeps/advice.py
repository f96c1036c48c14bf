"""What a run gets that may surprise, and is said before it begins."""

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
    options = {file.stem: _settings(file) for folder in folders for file in folder.glob("task/*.yaml")}
    recipes = {file.stem for folder in folders for file in folder.glob(f"scale/pair/{scale}_{model}_*.yaml")}
    has_recipe = {task for task in options if f"{scale}_{model}_{task}" in recipes}
    fits = {task for task, settings in options.items() if settings and settings.items() <= config["task"].items()}
    if chosen in has_recipe and chosen not in fits:
        said.append(f"scale={scale} gives this run its settings for {chosen}, and the task has other sizes")
    if chosen not in fits & has_recipe:
        said += [f"scale={scale} has settings for {task} with {model}, which this run does not get: choose task={task}"
                 for task in sorted(fits & has_recipe)]  # fmt: skip
    return said


@cache
def _settings(file: Path) -> dict[str, Any]:
    """What an option sets by itself."""
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    entries = content.items() if isinstance(content, dict) else ()
    return {key: value for key, value in entries if key not in ("defaults", "_target_")}
