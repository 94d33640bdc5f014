"""The exceptions of the package: bad input, and a requested stop; and the doors to code of others."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ForeignError", "InputError", "Interrupted", "door", "reason_of"]

LONGEST = 300
"""Characters of a foreign exception's message in one of our own."""


class InputError(ValueError):
    """Bad input: the message says in one line what was required, what was received, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(Exception):  # noqa: N818 - a requested stop, not an error
    """A search stopped on request; its outcomes are written and it can be resumed. The message is the run folder."""


class ForeignError(InputError):
    """An unexpected exception in the code of others, such as a model's or a tokenizer's; its cause is the exception."""


@contextmanager
def door(step: str, remedy: str) -> Iterator[None]:
    """Context around a call of code that may raise anything: model code, tokenizers, templates, file formats.

    Args:
        step: what is done, with the name of the model or file, such as `loading the model 'x'`.
        remedy: what the user can do.

    Raises:
        ForeignError: for any other exception than `InputError`, in one line: the step, the exception, the remedy.
    """
    try:
        yield
    except (InputError, Interrupted):
        raise
    except Exception as error:
        raise ForeignError(f"{step} failed ({reason_of(error)}); {remedy}") from error


def reason_of(error: BaseException) -> str:
    """An exception on one line: its type, its message cut to `LONGEST` characters, and the line it names, if any."""
    line = getattr(error, "lineno", None)
    message = f"{' '.join(str(error).split()):.{LONGEST}}"
    return f"{type(error).__name__}: {message}{f', line {line}' if line else ''}".removesuffix(": ")
