"""What the plain commands share: where the configuration lies, graphs by name, and how a mistake is told."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from nextfail.errors import RunCut, UserError

T = TypeVar("T")

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


def guarded(command: str, body: Callable[[], T]) -> T:
    """Run a command; a user's mistake is one message on stderr and exit code 2, unless NEXTFAIL_DEBUG is set."""
    try:
        return body()
    except (UserError, RunCut) as error:
        if os.environ.get("NEXTFAIL_DEBUG"):
            raise
        leave(command, str(error), 2 if isinstance(error, UserError) else 130)
    except KeyboardInterrupt:
        sys.exit(130)


def leave(command: str, message: str, code: int) -> NoReturn:
    """Say one thing on stderr and exit."""
    print(f"{command}: {message}", file=sys.stderr)
    sys.exit(code)
