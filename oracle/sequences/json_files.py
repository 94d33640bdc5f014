"""Records from JSON lines and JSON documents."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from oracle.errors import InputError
from oracle.sequences.records import Decisions, Record
from oracle.utils.text import nearest_hint

__all__ = ["IsRecord", "read_json", "read_jsonl"]

IsRecord = Callable[[Mapping[str, object]], bool]
"""Whether an object has the columns of a sequence itself, so that it does not merely contain records."""

_LISTED = 8


def read_jsonl(path: Path, text: str) -> Iterator[Record]:
    """The records of a file with one JSON object per line; blank lines are skipped.

    Raises:
        InputError: if a line is not one JSON object.
    """
    seen = False
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path} line {number}"
            try:
                yield Record(where=where, fields=_object_of(where, line))
            except InputError as error:
                if not seen and _is_document(line, text):
                    raise InputError(f"{error}; the file is one JSON document: read it with --format json") from None
                raise
            seen = True


def _object_of(where: str, line: str) -> dict[str, object]:
    try:
        fields = _parse(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} must be one JSON object: {_reason(error)}: correct the line") from None
    if not isinstance(fields, dict):
        raise InputError(f"{where} must be one JSON object, not {type(fields).__name__}: write one object per line")
    return fields


def _is_document(line: str, text: str) -> bool:
    """Whether text that begins with this line is one JSON document."""
    if line.strip()[:1] not in ("[", "{"):
        return False
    try:
        _parse(text)
    except (ValueError, RecursionError):
        return False
    return True


def read_json(
    path: Path, text: str, records: str | None, is_record: IsRecord, decisions: Decisions
) -> Iterator[Record]:
    """The records of a JSON document: an array of objects, or the records under a key; or JSON lines.

    An object is a record if it has the columns of a sequence. Otherwise its records are the only list of objects in it,
    or its values if all of them are records (their keys are then ids).

    Args:
        path: for error messages.
        text: content of the file.
        records: see `Layout`.
        is_record: tells a record from an object around records.
        decisions: records which key was taken.

    Raises:
        InputError: if it is not JSON, or contains several lists of records and none is named.
    """
    try:
        document = _parse(text)
    except (ValueError, RecursionError) as error:
        if records is None and _are_lines(text):
            yield from read_jsonl(path, text)
            return
        if not text.strip():
            return
        line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{path}{line} must be JSON: {_reason(error)}: correct it, or write JSON lines") from None
    if records is not None:
        yield from _under(path, document, records, is_record)
    elif isinstance(document, dict) and not is_record(document):
        yield from _wrapped(path, document, is_record, decisions)
    else:
        yield from _items(str(path), document if isinstance(document, list) else [document])


def _are_lines(text: str) -> bool:
    """Whether several lines, and all that are not blank, begin an object."""
    lines = [line for line in text.split("\n") if line.strip()]
    return len(lines) > 1 and all(line.lstrip().startswith("{") for line in lines)


def _items(where: str, items: list[Any]) -> Iterator[Record]:
    for number, item in enumerate(items):
        place = f"{where} item {number}"
        if not isinstance(item, dict):
            raise InputError(
                f"{place} must be one JSON object, not {type(item).__name__}: write one object per record, or name "
                "the key of the records with --records"
            )
        yield Record(where=place, fields=item)


def _wrapped(path: Path, document: dict[str, Any], is_record: IsRecord, decisions: Decisions) -> Iterator[Record]:
    lists = {path_: items for path_, items in _lists(document) if items and all(isinstance(i, dict) for i in items)}
    if len(lists) == 1:
        [(key, items)] = lists.items()
        decisions.add(f"the records are those under the key {key!r} (--records decides)", rows=0)
        yield from _items(f"{path} {key}", items)
        return
    if lists:
        raise InputError(
            f"{path} has records under the keys {', '.join(list(lists)[:_LISTED])}: name one of them with --records"
        )
    values = list(document.values())
    if values and all(isinstance(value, dict) and is_record(value) for value in values):
        decisions.add("the records are the values of one object; their keys are the ids", rows=0)
        for key, value in document.items():
            yield Record(where=f"{path} {key!r}", fields={"id": key, **value})
        return
    if len(values) > 1 and all(isinstance(value, (dict, list)) for value in values):
        raise InputError(
            f"{path} must have one object per record, but seems to be written column by column ("
            f"{', '.join(list(document)[:_LISTED])}): write it with orient='records', or name the key of the records "
            "with --records"
        )
    yield Record(where=f"{path} item 0", fields=document)


def _lists(value: Any, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """The lists in nested objects, with their paths; lists are not searched for further ones."""
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, list):
            yield path, inner
        elif isinstance(inner, dict):
            yield from _lists(inner, f"{path}.")


def _under(path: Path, document: Any, records: str, is_record: IsRecord) -> Iterator[Record]:
    """The records at a path, a list or the values of an object; what is on the way hands its other fields down."""
    found = [(str(path), document, {})] if not isinstance(document, list) else _each(str(path), document, {})
    for key in records.split("."):
        inner: list[tuple[str, Any, dict[str, Any]]] = []
        known: set[str] = set()
        for where, value, above in found:
            if not isinstance(value, dict):
                continue
            known |= set(value)
            if key in value:
                rest = {name: one for name, one in value.items() if name != key}
                target, place = value[key], f"{where} {key}"
                inner += (
                    _each(place, target, {**above, **rest})
                    if isinstance(target, list)
                    else [(place, target, {**above, **rest})]
                )
        if not inner:
            raise InputError(
                f"{path} has no records under {records!r}: {key!r} is missing; available keys: "
                f"{', '.join(sorted(known)) or '(none)'}{nearest_hint(key, known)}; name another with --records"
            )
        found = inner
    for where, value, above in found:
        if not isinstance(value, dict):
            raise InputError(
                f"{where} must be one JSON object, not {type(value).__name__}: name the key of the records with "
                "--records"
            )
        inside = list(value.values())
        if not is_record(value) and inside and all(isinstance(one, dict) and is_record(one) for one in inside):
            for key_, one in value.items():
                yield Record(where=f"{where} {key_!r}", fields={**above, "id": key_, **one})
        else:
            yield Record(where=where, fields={**above, **value})


def _each(where: str, items: list[Any], above: dict[str, Any]) -> list[tuple[str, Any, dict[str, Any]]]:
    return [(f"{where} item {number}", item, above) for number, item in enumerate(items)]


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return fields


def _reason(error: ValueError | RecursionError) -> object:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
