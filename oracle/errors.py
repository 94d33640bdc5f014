"""The one error a user can cause."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input: the message says what was required, what came, and what to do, in one line.

    The command line prints it without a traceback and exits with code 2.
    """
