"""Exceptions that are reported to the user in one line, and how they are reported."""

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from nextfail.terminal import say

T = TypeVar("T")


class UserError(Exception):
    """A user error, in the configuration, a data file, a checkpoint or the environment.

    Its text is the full message that the user sees: it names the key or file, the value, and what is expected.
    Single runs and plain commands print it without a traceback and exit with code 2.
    """


class RunCut(Exception):
    """A run was interrupted before its end; its progress is saved, and the same command resumes it."""


def guarded(command: str, body: Callable[[], T]) -> T:
    """Run a command; a UserError becomes a message on stderr and exit code 2, unless NEXTFAIL_DEBUG is set."""
    try:
        done = body()
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk can still be reported
        return done
    except OSError as error:
        if error.errno != errno.ENOSPC or os.environ.get("NEXTFAIL_DEBUG"):
            raise
        leave(command, f"cannot write {error.filename or 'what was asked for'}: {error.strerror}", 2)
    except (UserError, RunCut) as error:
        if os.environ.get("NEXTFAIL_DEBUG"):
            raise
        leave(command, str(error), 2 if isinstance(error, UserError) else 130)
    except KeyboardInterrupt:
        sys.exit(130)


def leave(command: str, message: str, code: int) -> NoReturn:
    """Print a message on stderr and exit."""
    say(f"{command}: {message}", error=True)
    sys.exit(code)
