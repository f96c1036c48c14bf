"""What the commands share: tasks by name, and how arguments are read."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from nextfail import __version__
from nextfail.errors import UserError
from nextfail.paths import CONF
from nextfail.terminal import mend_pipes


def named_task(name: str, sets: Sequence[str], whole: bool) -> dict[str, Any]:
    """Settings of an option of the group `task`, such as g2_5.

    Args:
        sets: KEY=VALUE, which win over the option's own.
        whole: with all defaults; else only what the option itself and `sets` say, as where a trained run has the rest.

    Raises:
        UserError: there is no such option, or a KEY=VALUE is none.
    """
    known = sorted((path.stem for path in (CONF / "task").glob("*.yaml")), key=lambda stem: (len(stem), stem))
    if name not in known:
        raise UserError(f"unknown task {name!r}: choose one of {', '.join(known)}")
    from omegaconf import OmegaConf  # a tenth of a second, which not every command needs
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    def option(name: str) -> dict[str, Any]:
        return {str(key): value for key, value in OmegaConf.load(CONF / "task" / f"{name}.yaml").items()}

    content = option(name)
    base = next((each for each in content.pop("defaults", []) if each != "_self_"), None)
    if whole:
        content = (option(str(base)) if base else {}) | content
    elif base is None:
        content = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UserError(f"--set {text}: give KEY=VALUE")
        try:
            content[key] = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"]  # type: ignore
        except (OmegaConfBaseException, YAMLError) as error:
            raise UserError(f"--set {text}: {' '.join(str(error).split())}") from error
    return content


def parser_of(name: str, doc: str | None) -> argparse.ArgumentParser:
    """An argument parser of a plain command, with --version and the examples of its docstring.

    Args:
        name: of the command.
        doc: docstring of its module: `name: what it does`, then examples.
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
    """What --version prints."""
    return f"nextfail {__version__}"


def is_group(name: str) -> bool:
    """Whether a configuration group has this name, such as model/size."""
    named = re.fullmatch(r"[\w/]*\w", name) and not name.startswith("/")
    return bool(named) and any((CONF / name).glob("*.yaml"))


def options(group: str) -> list[str]:
    """Names of the options of a group that nextfail brings along."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
