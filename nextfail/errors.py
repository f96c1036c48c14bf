"""The exceptions that are told to a user in one line: a mistake, and a run that was cut."""


class UserError(Exception):
    """A mistake in what was asked: configuration, data file, checkpoint or environment.

    Its text is the whole message a user sees: it names the key or file, the value, and what would be right.
    Single runs and plain commands print it without a traceback and exit with code 2.
    """


class RunCut(Exception):
    """A run was asked to stop before its end; it is saved, and the same command goes on with it."""
