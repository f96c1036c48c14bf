"""Standard output and error that may go into a pipe whose reader has left, as with `| head -1`."""

import os
import sys
from pathlib import Path
from typing import Any, TextIO, cast


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
        except BrokenPipeError:
            self._silence()
            return len(text)

    def flush(self) -> None:
        """Flush what was written, or drop it."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._silence()

    def _silence(self) -> None:
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
