"""Shared by the commands: tasks by name, and argument parsing."""

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any

from nextfail import __version__
from nextfail.errors import UserError
from nextfail.paths import CONF
from nextfail.terminal import mend_pipes


def named_task(name: str, sets: Sequence[str], whole: bool) -> dict[str, Any]:
    """Settings of an option of the config group `task`, such as g2_5.

    Args:
        sets: KEY=VALUE pairs, which override the option's own.
        whole: whether to include the base option's settings; else only those that differ from it, and `sets`.

    Raises:
        UserError: there is no such option, or an entry of `sets` is not KEY=VALUE.
    """
    known = sorted((path.stem for path in (CONF / "task").glob("*.yaml")), key=lambda stem: (len(stem), stem))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.75)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}"
        raise UserError(f"unknown task {name!r}: {hint}")
    from omegaconf import OmegaConf  # takes 0.1 s; not every command needs it
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    from nextfail import source
    from nextfail.sweeps.check import unknown

    content: dict[str, Any] = {}
    option: str | None = name
    while option is not None:  # up to the option that the others are based on
        here = {str(key): value for key, value in OmegaConf.load(CONF / "task" / f"{option}.yaml").items()}
        option = next((str(each) for each in here.pop("defaults", []) if each != "_self_"), None)
        if whole or option is not None:
            content = here | content
    for text in sets:
        key, equals, value = text.removeprefix("task.").partition("=")
        if not (key and equals):
            raise UserError(f"--set {text}: give KEY=VALUE")
        try:
            content[key] = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"]  # type: ignore
        except (OmegaConfBaseException, YAMLError) as error:
            raise UserError(f"--set {text}: {' '.join(str(error).split())}") from error
    if whole and (made := source.find(str(content.get("_target_")))) and made.parameters is not None:
        for key in content.keys() - made.parameters.keys() - {"_target_"}:
            raise unknown(f"task.{key}", [f"task.{each}" for each in made.parameters])
    return content


def parser_of(name: str, doc: str | None) -> argparse.ArgumentParser:
    """An argument parser for a plain command, with --version and the examples of its docstring.

    Args:
        name: name of the command.
        doc: docstring of its module: `name: what it does.`, then examples.
    """
    mend_pipes()
    what, _, examples = (doc or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog=name,
        description=what.partition(": ")[2],
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version())
    return parser


def version() -> str:
    """The output of --version."""
    return f"nextfail {__version__}"


def is_group(name: str) -> bool:
    """Whether a config group of this name exists, such as model/size."""
    named = re.fullmatch(r"[\w/]*\w", name) and not name.startswith("/")
    return bool(named) and any((CONF / name).glob("*.yaml"))


def options(group: str) -> list[str]:
    """Names of nextfail's own options of a config group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
