"""Run-time type checks of dataclass fields, for values read from files."""

from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from oracle.errors import InputError

__all__ = ["check_list", "check_types"]

_SINGLE = "must be a list of texts, not the single text {!r:.80}: write [{!r:.80}]"

PLAIN: dict[Any, Any] = {int: Integral, float: Real}


def check_types(value: Any) -> None:
    """Checks the fields of a dataclass (plain values, tuples of them, or None) against their annotations.

    Raises:
        InputError: names the first field of another type.
    """
    for name, kind in get_type_hints(type(value)).items():
        found = getattr(value, name)
        if isinstance(found, str) and _is_list(kind):
            raise InputError(f"the setting {name} {_SINGLE.format(found, found)}")
        if not _fits(found, kind):
            wanted = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
            raise InputError(f"the setting {name} must be of type {wanted}, not {found!r:.80}")


def check_list(value: object, what: str) -> None:
    """Makes sure that a list of texts is not a single text, whose characters would be taken for its items.

    Raises:
        InputError: if it is.
    """
    if isinstance(value, str):
        raise InputError(f"{what} {_SINGLE.format(value, value)}")


def _is_list(kind: Any) -> bool:
    """Whether an annotation allows lists and no single text."""
    inner = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return str not in inner and any(get_origin(one) is tuple for one in inner)


def _fits(value: object, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str)  # the owner checks the value, with a better message
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(one, inner[0]) for one in value)
    return isinstance(value, PLAIN.get(kind, kind)) and (kind is bool or not isinstance(value, bool))
