"""Asking this process to stop: a signal is noted, and whoever trains looks at the note between two steps."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]

requested: int | None = None
"""The signal by which this process was asked to stop, if it was."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)  # HUP: a session closed; USR2: a time limit


def listen() -> dict[int, Any]:
    """Note Ctrl-C, SIGTERM, SIGHUP and SIGUSR2 instead of dying from them; a second Ctrl-C interrupts at once.

    Returns:
        What was there before, for `unlisten`. Nothing is done outside the main thread, where Python allows no handlers.
    """
    return handle(_SIGNALS, _note)


def handle(numbers: Iterable[int], handler: Handler) -> dict[int, Any]:
    """Set a handler for signals; what was there before. SIGHUP stays ignored where it is, as under nohup."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    ignored = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else []
    return {number: signal.signal(number, handler) for number in numbers if number not in ignored}


@contextmanager
def ignored() -> Iterator[None]:
    """Start processes in this block that are deaf to signals of the terminal, Ctrl-C and a closed session."""
    before: dict[int, Any] = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)
    }
    try:
        yield
    finally:
        unlisten(before)


def unlisten(before: dict[int, Any]) -> None:
    """Put back the handlers that `listen` found."""
    for number, handler in before.items():
        signal.signal(number, handler)


def _note(number: int, frame: FrameType | None) -> None:
    global requested
    if requested is not None and number == signal.SIGINT:
        raise KeyboardInterrupt
    requested = number
