"""What the commands share: where the configuration lies, graphs by name, and how arguments are read."""

import argparse
import re
from pathlib import Path

from nextfail import __version__
from nextfail.errors import UserError
from nextfail.terminal import mend_pipes

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The configuration folder: inside the package in a wheel, beside it in a checkout."""


def named_graph(name: str) -> dict[str, int]:
    """degree, path_length and num_nodes of an option of the group `graph`, such as g2_5.

    Raises:
        UserError: there is no such option.
    """
    known = sorted((path.stem for path in (CONF / "graph").glob("*.yaml")), key=lambda stem: (len(stem), stem))
    if name not in known:
        raise UserError(f"unknown graph {name!r}: choose one of {', '.join(known)}")
    from omegaconf import OmegaConf  # a tenth of a second, which not every command needs

    content = OmegaConf.to_container(OmegaConf.load(CONF / "graph" / f"{name}.yaml"))
    assert isinstance(content, dict)
    return {str(key): int(value) for key, value in content.items()}


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
