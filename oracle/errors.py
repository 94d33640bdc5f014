"""The error that a user can cause, and the end that a user can ask for."""

__all__ = ["InputError", "Interrupted"]


class InputError(ValueError):
    """Bad input: the message says what was required, what came, and what to do, in one line.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(Exception):  # noqa: N818 - no error: it was asked for
    """A search stopped because it was asked to; everything it found is written, and it can be resumed.

    Its message is the run folder.
    """
