"""Asking this process to stop: a signal is noted, and whoever trains looks at the note between two steps."""

import signal
import threading
from types import FrameType
from typing import Any

requested: int | None = None
"""The signal by which this process was asked to stop, if it was."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # USR2: a time limit is near


def listen() -> dict[int, Any]:
    """Note Ctrl-C, SIGTERM and SIGUSR2 instead of dying from them; a second Ctrl-C interrupts at once.

    Returns:
        What was there before, for `unlisten`. Nothing is done outside the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, _note) for number in _SIGNALS}


def unlisten(before: dict[int, Any]) -> None:
    """Put back the handlers that `listen` found."""
    for number, handler in before.items():
        signal.signal(number, handler)


def _note(number: int, frame: FrameType | None) -> None:
    global requested
    if requested is not None and number == signal.SIGINT:
        raise KeyboardInterrupt
    requested = number
