"""What nextfail prints: through streams that outlive their readers, and with nothing in it that drives a terminal."""

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
"""Errors of a stream that nobody reads any more: a pipe, as with `| head -1`, or the terminal of a closed session."""


class Unbroken:
    """A text stream that falls silent when nobody reads it any more, rather than ending the command.

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
        os.dup2(nowhere, self._stream.fileno())  # also for what is buffered still, and for child processes
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mend_pipes() -> None:
    """Let this process outlive the readers of what it prints."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115, as long as the process
        if not isinstance(stream, Unbroken):
            setattr(sys, name, cast(TextIO, Unbroken(stream)))
    sys.excepthook = _show_exception


class Formatter(logging.Formatter):
    """Log records with nothing in them that drives a terminal; named in conf/hydra/job_logging."""

    def format(self, record: logging.LogRecord) -> str:
        return terminal(super().format(record))


def _show_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    say("".join(traceback.format_exception(kind, error, trace)).rstrip(), error=True)


def say(text: object, error: bool = False) -> None:
    """Print text on stdout or stderr."""
    print(terminal(text), file=sys.stderr if error else sys.stdout, flush=True)


def console(error: bool = False, width: int | None = None) -> "Console":
    """A console of rich on stdout or stderr that prints text as it is: no markup, no control characters.

    Args:
        width: where it is no terminal.
    """
    from rich.console import (  # a tenth of a second, which a mistake need not cost
        Console,
        ConsoleOptions,
        RenderableType,
    )
    from rich.segment import Segment

    class Plain(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Any:
            for part in super().render(renderable, options):
                yield part if part.control else Segment(terminal(part.text), part.style)

    real = (sys.stderr if error else sys.stdout).isatty()  # FORCE_COLOR, as notebooks set it, makes no terminal
    made = Plain(stderr=error, markup=False, highlight=False, force_terminal=real)
    if width is not None and not made.is_terminal:
        made.width = width
    return made
