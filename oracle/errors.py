"""The exceptions of the package, and the door at which those of foreign code become one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["FOREIGN", "ForeignError", "InputError", "Interrupted", "WorkerError", "door", "reason_of"]

FOREIGN = (Exception, SystemExit)
"""What foreign code may raise; code shipped with a model may even try to end the process."""

LONGEST = 300
"""Characters of a foreign exception's message in one of our own."""


class InputError(ValueError):
    """Bad input: the message says in one line what was required, what was received, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class ForeignError(InputError):
    """A step that runs foreign code (a model, a tokenizer, a template) failed; `__cause__` is the original exception.

    Args:
        message: one line that names the step, the model and the remedy.
        log: file that already holds the traceback; None if there is none yet.
    """

    def __init__(self, message: str, *, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


class Interrupted(Exception):  # noqa: N818 - a requested stop, not an error
    """A search stopped on request; its outcomes are written and it can be resumed. The message is the run folder."""


@contextmanager
def door(step: str, remedy: str) -> Iterator[None]:
    """Context in which any exception of foreign code becomes a `ForeignError`.

    Args:
        step: what was attempted, with the name of the model, such as "loading the tokenizer of 'x'".
        remedy: what the user can do.

    Raises:
        ForeignError: `step` failed; with the original exception as its cause.
    """
    try:
        yield
    except (InputError, Interrupted):
        raise
    except FOREIGN as error:
        raise ForeignError(f"{step} failed ({reason_of(error)}); {remedy}") from error


class WorkerError(RuntimeError):
    """An exception in a worker process.

    Args:
        reason: the exception on one line, as from `reason_of`.
        trace: its traceback, which tracebacks of this error show too.
    """

    def __init__(self, reason: str, trace: str) -> None:
        super().__init__(f"a worker process failed ({reason})")
        self.reason = reason
        self.add_note(trace)


def reason_of(error: BaseException) -> str:
    """An exception on one line: its type, its message cut to `LONGEST` characters, and the line it names, if any."""
    if isinstance(error, WorkerError):
        return error.reason
    line = getattr(error, "lineno", None)
    text = " ".join(str(error).split()).rstrip(".")
    message = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return f"{type(error).__name__}: {message}{f', line {line}' if line else ''}".removesuffix(": ")
