"""Code of the user's own that may run in this process, by name.

Consent comes from the caller alone: no run, data set or task file can give it, and none stores it.
"""

import re

from oracle.errors import InputError

__all__ = ["allow", "allowed", "is_function_name", "require"]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

_ALLOWED: set[str] = set()


def allow(*names: str) -> None:
    """Allows code: a function by `module:function`, or the Python code of a folder by its path."""
    _ALLOWED.update(names)


def allowed() -> tuple[str, ...]:
    """Everything allowed so far, in order, to pass on to workers."""
    return tuple(sorted(_ALLOWED))


def is_function_name(name: str) -> bool:
    """Whether a name is that of a function of the user's own, `module:function`."""
    return _FUNCTION.fullmatch(name) is not None and ".py:" not in name


def require(name: str, what: str) -> None:
    """Makes sure that code is allowed.

    Args:
        name: as for `allow`.
        what: what would run, for the message.

    Raises:
        InputError: if it is not.
    """
    if name not in _ALLOWED:
        raise InputError(
            f"{what}, which runs only if it is allowed by name: review it, then add --trust-code '{name}' (in Python: "
            f"oracle.utils.consent.allow('{name}'))"
        )
