"""Lists written out as text: in JSON, in Python (as pandas writes them to CSV), and as numpy prints arrays."""

import ast
import json
import re
import warnings

__all__ = ["almost_list", "as_list", "is_python_object", "json_kind"]

_LONGEST = 1_000_000  # characters of a cell that are parsed as Python
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ARRAY = re.compile(rf"\[\s*(?:{_STRING}(?:\s+{_STRING})+|{_NUMBER}(?:\s+{_NUMBER})+)\s*\]", re.DOTALL)
_ITEM = re.compile(rf"{_STRING}|{_NUMBER}", re.DOTALL)
_ONE_STRING = re.compile(rf"[uU]?{_STRING}", re.DOTALL)
_WRAPPED = re.compile(r"array\((\[.*\])(?:,\s*dtype=[\w<>']+)?\)", re.DOTALL)
_QUOTED_ENDS = re.compile(r"""[\[(]\s*["'].*["'],?\s*[\])]""", re.DOTALL)


def as_list(text: str) -> tuple[list[object], str] | None:
    """The list that a text holds, and the name of its notation (`JSON`, `Python` or `numpy`); None if it holds none.

    Tuples and sets count only if all of their items are strings: `(1, 2)` is an ordinary answer.
    """
    text = text.strip()
    if text.startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            pass
        else:
            return (found, "JSON") if isinstance(found, list) else None
    elif not text.startswith(("(", "{", "array(")):
        return None
    if len(text) > _LONGEST:
        return None
    wrapped = _WRAPPED.fullmatch(text)
    inner = wrapped[1] if wrapped else text
    # Python joins adjacent string literals: ['Rome' 'Roma'] must not become ['RomeRoma'].
    if _ARRAY.fullmatch(inner):
        return [ast.literal_eval(item) for item in _ITEM.findall(inner[1:-1])], "numpy"
    items = _python_items(inner)
    return None if items is None else (items, "numpy" if wrapped else "Python")


def is_python_object(text: str) -> bool:
    """Whether a text is a dict in Python's notation, arrays of numpy included, that is not JSON."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")) or len(text) > _LONGEST:
        return False
    node = _expression(text)
    return isinstance(node, ast.Dict) and len(node.keys) > 0 and json_kind(text) is None


def _expression(text: str) -> ast.expr | None:
    """A text as an expression of Python, which is not evaluated; None if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escape sequences in texts that may not be Python at all
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _python_items(text: str) -> list[object] | None:
    node = _expression(text)
    if not isinstance(node, ast.List | ast.Tuple | ast.Set):
        return None
    items: list[object] = []
    for element in node.elts:
        try:
            item = ast.literal_eval(element)
        except (ValueError, TypeError, MemoryError, RecursionError):
            return None
        if isinstance(item, bytes | complex | set):
            return None
        joined = isinstance(item, str) and not _ONE_STRING.fullmatch(ast.get_source_segment(text, element) or "")
        if joined or (not isinstance(node, ast.List) and not isinstance(item, str)):
            return None
        items.append(item)
    return items


def almost_list(text: str) -> bool:
    """Whether a text begins and ends like a list of quoted texts, without being one in a notation known here."""
    return _QUOTED_ENDS.fullmatch(text.strip()) is not None and as_list(text) is None


def json_kind(text: str) -> str | None:
    """`object`, `list` or `text` if a text is such a JSON value, else None."""
    if not text.lstrip().startswith(("{", "[", '"')):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        return "object"
    return "list" if isinstance(value, list) else "text"
