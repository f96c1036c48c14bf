"""Generate docs/configuration.md from the schema, the classes and conf/: `python -m nextfail.reference`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nextfail import source
from nextfail.config import LAUNCHERS, OPTIONS, OPTUNA, RECIPE, SIZE, TOP, TRAINER, Key, shown
from nextfail.files import Inside
from nextfail.paths import CONF
from nextfail.syntax import locate

GROUPS = ("task", "data", "model", "objective", "optimizer", "scheduler")
CALLBACKS = {
    "progress": "nextfail.training.progress.Progress",
    "train_set": "nextfail.training.callbacks.TrainSet",
    "sampled": "nextfail.training.sampled.Sampled",
}
VARS = "your own, for other keys to refer to: `+vars.steps=500 'trainer.max_steps=${vars.steps}'`"
PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"

HEAD = """<!-- written by python -m nextfail.reference, which replaces it -->

# Every key of the configuration

`KEY=VALUE` on the command line, or the same in a file; `nextfail-train --cfg job` prints what a command gets. A key
that is not here, or a value of another type, is refused before torch is imported, with the nearest right one. A class
of your own brings its own keys: the arguments of its `__init__`.
"""


def page() -> str:
    """The content of docs/configuration.md."""
    parts = [HEAD, *_section("Top level", "", TOP), _row("vars.KEY", "any value", VARS)]
    parts += [*_section("`trainer`", "trainer.", TRAINER)]
    parts += [*_section("`trainer.options`: handed on to Lightning's Trainer", "trainer.options.", OPTIONS)]
    parts += [*_section("`size`", "size.", SIZE)]
    for group in GROUPS:
        parts.append(f"\n## `{group}`\n")
        made: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for file in sorted((CONF / group).glob("*.yaml")):
            content = _content(file)
            if target := _target(content, group):
                made.setdefault(target, []).append((file.stem, content))
        for target, options in made.items():
            parts += _options(group, target, options)
    parts.append("\n## `callbacks`\n")
    for name, target in CALLBACKS.items():
        parts += _callback(name, target)
    for name, keys in LAUNCHERS.items():
        parts += _section(f"`hydra/launcher={name}`", "hydra.launcher.", keys)
    parts += _section("`hydra/sweeper=optuna`", "hydra.sweeper.", OPTUNA)
    parts += _section("A file of the group `recipe`", "recipe.", RECIPE)
    return "\n".join(parts) + "\n"


def _content(file: Path) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(file))  # type: ignore[return-value]


def _target(content: dict[str, Any], group: str) -> str | None:
    """The class of an option, or of the base option in its defaults."""
    if target := content.get("_target_"):
        return str(target)
    for base in content.get("defaults", []):
        if isinstance(base, str) and (file := CONF / group / f"{base}.yaml").exists():
            return _target(_content(file), group)
    return None


def _section(title: str, prefix: str, keys: dict[str, Key]) -> Iterator[str]:
    yield f"\n## {title}\n\n| key | takes | meaning |\n|---|---|---|"
    for name, key in keys.items():
        yield _row(f"{prefix}{name}", key.type.words, key.meaning)


def _options(group: str, target: str, options: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    found = source.find(target)
    assert found is not None and found.parameters is not None, target
    names = ", ".join(f"`{group}={name}`" for name, _ in options)
    settable = {key for _, content in options for key in content} | {*found.defaults}
    meanings = _meanings(target)
    rows = [
        _row(f"{group}.{name}", parameter.type.words, meanings.get(name, ""), found.defaults)
        for name, parameter in found.parameters.items()
        if name in settable
    ]
    yield f"{names}: [{found.path.rpartition('.')[2]}](../{_file(found.path)})\n"
    if rows:
        yield "| key | takes | default | meaning |\n|---|---|---|---|"
        yield from rows
        yield ""


def _callback(name: str, target: str) -> Iterator[str]:
    found = source.find(target)
    assert found is not None and found.parameters is not None, target
    meanings = _meanings(target)
    yield f"`callbacks.{name}`: [{found.path.rpartition('.')[2]}](../{_file(found.path)})\n"
    yield "| key | takes | meaning |\n|---|---|---|"
    for key, parameter in found.parameters.items():
        yield _row(f"callbacks.{name}.{key}", parameter.type.words, meanings[key])
    yield ""


def _row(key: str, takes: str, meaning: str, defaults: dict[str, Any] | None = None) -> str:
    cells = [f"`{key}`", takes]
    if defaults is not None:
        name = key.rpartition(".")[2]
        cells.append(f"`{_written(defaults[name])}`" if name in defaults else "")
    return "| " + " | ".join([*cells, re.sub(r"\bNone\b", "null", meaning.rstrip("."))]) + " |"


def _written(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else value if isinstance(value, str) else shown(value)


def _file(path: str) -> str:
    return path.rpartition(".")[0].replace(".", "/") + ".py"


def _meanings(target: str) -> dict[str, str]:
    """Descriptions of arguments, from the `Args:` block of a class's docstring."""
    found = locate(target)
    text = ast.get_docstring(found.node) if found else None
    block = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text or "", re.MULTILINE)
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in (block[1] if block else "").splitlines():
        if entry := re.match(r"    (\w+(?:, \w+)*): (.*)", line):
            names = entry[1].split(", ")
            meanings |= dict.fromkeys(names, entry[2])
        elif line.strip():
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return meanings


if __name__ == "__main__":
    Inside(PAGE.parent).write(PAGE.name, page())
