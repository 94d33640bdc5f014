"""The exceptions of the package: bad input, and a requested stop."""

__all__ = ["InputError", "Interrupted"]


class InputError(ValueError):
    """Bad input: the message says in one line what was required, what was received, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(Exception):  # noqa: N818 - a requested stop, not an error
    """A search stopped on request; its outcomes are written and it can be resumed. The message is the run folder."""
