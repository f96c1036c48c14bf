"""Asking this process to stop: a signal is noted, and whoever trains looks at the note between two steps."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

requested: int | None = None
"""The signal by which this process was asked to stop, if it was."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen() -> dict[int, Any]:
    """Note Ctrl-C and SIGTERM instead of dying from them; a second Ctrl-C interrupts at once.

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


def with_parent() -> None:
    """Ask this process to stop when its parent dies, so that no worker of a killed sweep goes on alone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    if not any(thread.name == watch.__qualname__ for thread in threading.enumerate()):
        threading.Thread(target=watch, name=watch.__qualname__, daemon=True).start()


def _note(number: int, frame: FrameType | None) -> None:
    global requested
    if requested is not None and number == signal.SIGINT:
        raise KeyboardInterrupt
    requested = number
