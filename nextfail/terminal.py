"""Terminal output, without control characters, on streams that survive a closed pipe."""

import errno
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from nextfail.text import terminal

if TYPE_CHECKING:
    from rich.console import Console

_GONE = (errno.EPIPE, errno.EIO)
"""Errors of a stream whose reader is gone: a closed pipe, as with `| head -1`, or a closed terminal session."""


class Unbroken:
    """A text stream that discards output once its reader is gone, instead of raising.

    Args:
        stream: sys.stdout or sys.stderr.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._silence(error)
            return len(text)

    def flush(self) -> None:
        """Flush what was written, or drop it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._silence(error)

    def _silence(self, error: OSError) -> None:
        if error.errno not in _GONE:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # also for buffered text and for child processes
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mend_pipes() -> None:
    """Make stdout and stderr survive closed pipes, and sanitize tracebacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115, open until the process ends
        if not isinstance(stream, Unbroken):
            setattr(sys, name, cast(TextIO, Unbroken(stream)))
    sys.excepthook = _show_exception


class Formatter(logging.Formatter):
    """Log formatter that escapes control characters; named in conf/hydra/job_logging."""

    def format(self, record: logging.LogRecord) -> str:
        return terminal(super().format(record))


def _show_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    say("".join(traceback.format_exception(kind, error, trace)).rstrip(), error=True)


def say(text: object, error: bool = False) -> None:
    """Print sanitized text on stdout or stderr."""
    print(terminal(text), file=sys.stderr if error else sys.stdout, flush=True)


def console(error: bool = False, width: int | None = None) -> "Console":
    """A rich console on stdout or stderr that prints text literally, without markup or control characters.

    Args:
        width: width if it is not a terminal.
    """
    from rich.console import (  # takes 0.1 s, which errors do not need
        Console,
        ConsoleOptions,
        RenderableType,
    )
    from rich.segment import Segment

    class Plain(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Any:
            for part in super().render(renderable, options):
                yield part if part.control else Segment(terminal(part.text), part.style)

    real = (sys.stderr if error else sys.stdout).isatty()  # FORCE_COLOR, as set in notebooks, is not a terminal
    made = Plain(stderr=error, markup=False, highlight=False, force_terminal=real)
    if width is not None and not made.is_terminal:
        made.width = width
    return made
