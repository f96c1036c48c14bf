"""Graceful stopping: a signal sets a flag, which training checks between steps."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]

requested: int | None = None
"""The signal that asked this process to stop; None if there was none."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)  # HUP: session closed; USR2: time limit


def listen() -> dict[int, Any]:
    """Record Ctrl-C, SIGTERM, SIGHUP and SIGUSR2 in `requested` instead of exiting; a second Ctrl-C interrupts at once.

    Returns:
        The previous handlers, for `unlisten`; empty outside the main thread, where Python allows no handlers.
    """
    return handle(_SIGNALS, _note)


def handle(numbers: Iterable[int], handler: Handler) -> dict[int, Any]:
    """Set a handler for signals; returns the previous ones. SIGHUP stays ignored if it is, as under nohup."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    ignored = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else []
    before = {number: signal.signal(number, handler) for number in numbers if number not in ignored}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, before)  # blocked if this process was started in `blocked`
    return before


@contextmanager
def blocked(*numbers: signal.Signals) -> Iterator[None]:
    """Context in which signals wait; to processes that are started in it, they wait until these call `listen`.

    Args:
        numbers: by default those of a terminal: Ctrl-C, and SIGHUP from a closed session.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers or (signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unlisten(before: dict[int, Any]) -> None:
    """Restore the handlers that `listen` or `handle` returned."""
    for number, handler in before.items():
        signal.signal(number, handler)


def _note(number: int, frame: FrameType | None) -> None:
    global requested
    if requested is not None and number == signal.SIGINT:
        raise KeyboardInterrupt
    requested = number
