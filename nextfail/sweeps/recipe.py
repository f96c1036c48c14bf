"""Recipes: settings for a comparison, selected by the properties of a run rather than by option names.

A recipe is one file of conf/recipe; an experiment names the recipe it was tried with. Hydra cannot select settings by
a number, such as the path length, so recipes are merged after Hydra has composed everything else. Precedence, lowest
first: defaults, recipe, experiment, debug, command line.
"""

import copy
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nextfail import source
from nextfail.config import RECIPE, shown
from nextfail.errors import UserError
from nextfail.runs.identity import leaves
from nextfail.sweeps.options import option

FITTED = ("task", "model", "objective")
"""Sections that select settings; a recipe does not change the options of these groups."""


def applied(cfg: DictConfig, hydra: Any) -> tuple[DictConfig, list[str]]:
    """A composed configuration with the settings of its recipe.

    Args:
        cfg: composed configuration without the `hydra` section.
        hydra: the `hydra` section, with the chosen options and the overrides.

    Returns:
        The configuration, and messages to print before the run: that the recipe was not made for it, which names in the
        recipe may be misspelt, and which settings were left out.

    Raises:
        UserError: the recipe is malformed.
    """
    if not (node := cfg.get("recipe")):
        return cfg, []
    name = f"recipe={hydra.runtime.choices.get('recipe')}"
    if not isinstance(node, DictConfig):
        raise UserError(f"{name}: {shown(node)} is not a section of {', '.join(RECIPE)}")
    recipe: dict[str, Any] = OmegaConf.to_container(node)  # type: ignore[assignment]
    require_whole(name, recipe)
    cfg, run = copy.deepcopy(cfg), facts(cfg)
    said = [*misspelt(recipe)]
    if not fits(recipe["made_for"], run):
        made_for, given = described(recipe["made_for"]), described(_of_it(run, recipe))
        said.append(f"was made for {made_for}; this run has {given}")
    kept, chosen = set(set_elsewhere(hydra)), chosen_elsewhere(hydra)
    for entry in recipe["settings"]:
        if fits(entry.get("for", {}), run):
            said += _merge(cfg, entry["set"], kept, chosen)
    return cfg, [f"{name} {text}" for text in said]


def require_whole(name: str, recipe: Mapping[str, Any]) -> None:
    """Reject a malformed recipe.

    Raises:
        UserError: names the key and what is expected.
    """
    for key in recipe:
        if key not in RECIPE:
            raise UserError(f"{name}: unknown key {key}: a recipe has {', '.join(RECIPE)}")
    for key in ("made_for", "settings"):
        if key not in recipe:
            raise UserError(f"{name} has no {key}: {RECIPE[key].meaning}")
    conditions = [("made_for", recipe["made_for"])]
    if not isinstance(recipe["settings"], list):
        raise UserError(f"{name}: settings={shown(recipe['settings'])} is not a list of entries with `for` and `set`")
    for place, entry in enumerate(recipe["settings"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("set"), dict) or entry.keys() - {"for", "set"}:
            raise UserError(f"{name}: settings[{place}] is not an entry with `set`, and perhaps `for`, alone")
        conditions.append((f"settings[{place}].for", entry.get("for", {})))
    for key, condition in conditions:
        if not isinstance(condition, dict) or condition.keys() - {*FITTED}:
            raise UserError(f"{name}: {key}={shown(condition)} is not a section of {', '.join(FITTED)}")
        if not all(isinstance(each, dict) for each in _tasks(condition)):
            raise UserError(f"{name}: {key}.task={shown(condition['task'])} is not a section of the task's settings")


def _tasks(condition: Mapping[str, Any]) -> list[Any]:
    """The sections of a condition on the task."""
    tasks = condition.get("task", {})
    return tasks if isinstance(tasks, list) else [tasks]


def misspelt(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Names in conditions that nextfail does not have, and that are nearly those of something it has."""
    for condition in [recipe["made_for"], *(entry.get("for", {}) for entry in recipe["settings"])]:
        named = {"task": [key for each in _tasks(condition) for key in each]}
        named |= {key: value if isinstance(value := condition.get(key, []), list) else [value] for key in FITTED[1:]}
        for section, names in named.items():
            known = set(_names(section))
            for each in {*map(str, names)} - known:
                if near := difflib.get_close_matches(each, known, n=1, cutoff=0.8):
                    yield f"has the {section} {each}, which nextfail does not have: did you mean {near[0]}?"


def _names(section: str) -> Iterator[str]:
    """Settings of tasks, or names of models and objectives."""
    for name, made in source.own().items():
        if made.path.startswith(f"nextfail.{section}s."):
            yield from made.parameters or () if section == "task" else [name]


def facts(cfg: DictConfig) -> dict[str, Any]:
    """Properties of a run: the settings of its task, and the names of its model and objective."""
    found: dict[str, Any] = {"task": OmegaConf.to_container(cfg.task, resolve=True) if cfg.get("task") else {}}
    for section in ("model", "objective"):
        target = str(OmegaConf.select(cfg, f"{section}._target_"))
        made = source.find(target)
        found[section] = (made and made.name) or target.rpartition(".")[2]
    return found


def fits(condition: Any, run: Any) -> bool:
    """Whether a run meets a condition: every key of a section, any entry of a list."""
    if isinstance(condition, list):
        return any(fits(each, run) for each in condition)
    if isinstance(condition, Mapping):
        known = run if isinstance(run, Mapping) else {}
        return all(key in known and fits(value, known[key]) for key, value in condition.items())
    return bool(condition == run)


def described(condition: Any) -> str:
    """A condition as text: `task degree=2 path_length=3 or 4, model transformer`."""
    if isinstance(condition, list):
        return " or ".join(described(each) for each in condition)
    if not isinstance(condition, Mapping):
        return str(condition)
    if condition.keys() <= {*FITTED}:
        return ", ".join(f"{key} {described(value)}" for key, value in condition.items())
    return " ".join(f"{key}={described(value)}" for key, value in condition.items())


def _of_it(run: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of a run that its recipe's `made_for` mentions."""
    asked = recipe["made_for"]
    numbers = {key for each in _tasks(asked) for key in each}
    task = {key: value for key, value in run["task"].items() if key in numbers}
    name = str(run["task"].get("_target_")).rpartition(".")[2]
    return {key: (task or name) if key == "task" else run[key] for key in asked}


def _merge(cfg: DictConfig, settings: Mapping[str, Any], kept: set[str], chosen: set[str]) -> Iterator[str]:
    for section, values in settings.items():
        target = values.get("_target_") if isinstance(values, Mapping) else None
        if section in chosen and target not in (None, OmegaConf.select(cfg, f"{section}._target_")):
            continue  # these belong to an option that was not chosen
        made = source.find(str(target or OmegaConf.select(cfg, f"{section}._target_")))
        for key, value in leaves(values, section):
            if any(key == each or key.startswith(f"{each}.") for each in kept):
                continue
            name = key.partition(".")[2]
            if made and made.parameters is not None and name not in made.parameters and not name.startswith("_"):
                yield f"sets {key}, which is left out, since {made.name or target} has no such setting"
                continue
            OmegaConf.update(cfg, key, value, force_add=True)


def set_elsewhere(hydra: Any) -> Iterator[str]:
    """Keys that the experiment, debug or the user sets, all of which take precedence over the recipe."""
    choices = hydra.runtime.choices
    for group in ("experiment", "debug"):
        for content in _contents(hydra, group):
            yield from (key for key, _ in leaves({k: v for k, v in content.items() if k not in ("defaults", "hydra")}))
    for text in hydra.overrides.task:
        key = text.lstrip("+~").partition("=")[0]
        if key == "model/size":
            yield "size"
        elif key not in choices:
            yield key


def chosen_elsewhere(hydra: Any) -> set[str]:
    """Sections whose option the experiment, debug or the user chooses."""
    typed = {text.lstrip("+~").partition("=")[0] for text in hydra.overrides.task}
    entries = [each for group in ("experiment", "debug") for content in _contents(hydra, group)
               for each in content.get("defaults", []) if isinstance(each, dict)]  # fmt: skip
    named = {key.removeprefix("override ").strip("/ ") for each in entries for key in each}
    return (typed & {*hydra.runtime.choices}) | named


def _contents(hydra: Any, group: str) -> Iterator[dict[str, Any]]:
    """Content of the chosen option of a group, and of the options of that group in its defaults."""
    waiting = [str(chosen)] if (chosen := hydra.runtime.choices.get(group)) else []
    while waiting:
        content = option(hydra, group, waiting.pop().removeprefix(f"/{group}/"))
        waiting += [each for each in content.get("defaults", []) if isinstance(each, str) and each != "_self_"]
        yield content
