"""Run-time type checks of dataclass fields, for values read from files."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import wraps
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from oracle.errors import InputError
from oracle.utils.text import nearest_hint

__all__ = ["UnknownSettingError", "check_list", "check_names", "check_types", "named_settings"]

Kind = TypeVar("Kind", bound=type)

_SINGLE = "must be a list of texts, not the single text {!r:.80}: write [{!r:.80}]"

PLAIN: dict[Any, Any] = {int: Integral, float: Real}


class UnknownSettingError(InputError, TypeError):
    """A setting that does not exist, or that was not given by name."""


def named_settings(kind: Kind) -> Kind:
    """Decorator of keyword-only dataclasses of settings: a misspelt name is an error of one line with the nearest.

    Raises:
        UnknownSettingError: on construction.
    """
    known = [field.name for field in fields(kind) if field.init]
    construct: Callable[..., None] = getattr(kind, "__init__")  # noqa: B009 - mypy refuses the attribute

    @wraps(construct)
    def checked(self: Any, *unnamed: Any, **settings: Any) -> None:
        name = kind.__name__
        if unnamed:
            raise UnknownSettingError(
                f"{name} takes settings by name, as in {name}({known[0]}=...), not {unnamed[0]!r:.80} without one"
            )
        for setting in settings:
            if setting not in known:
                raise UnknownSettingError(
                    f"{name} has no setting {setting!r}{nearest_hint(setting, known)}; settings: {', '.join(known)}"
                )
        construct(self, **settings)

    setattr(kind, "__init__", checked)  # noqa: B010 - mypy refuses the assignment
    return kind


def check_names(option: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Checks a choice among names, each at most once.

    Raises:
        InputError: for an unknown name, with the nearest, or one that is there twice.
    """
    given = list(given)
    for name in given:
        if name not in known:
            raise InputError(f"{option} must be among {', '.join(known)}, not '{name}'{nearest_hint(name, known)}")
        if given.count(name) > 1:
            raise InputError(f"{option} must name each once, not '{name}' twice; omit one")


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
    """Makes sure that a list is not a single value; the characters of a text would be taken for its items.

    None, which stands for a default, passes.

    Raises:
        InputError: if it is.
    """
    if isinstance(value, str):
        raise InputError(f"{what} {_SINGLE.format(value, value)}")
    if value is not None and not isinstance(value, Iterable):
        shown = " ".join(repr(value).split())
        raise InputError(f"{what} must be a list, not the single {shown:.80}: write [{shown:.80}]")


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
