"""The names of a search's settings in presets and files of settings: those of the command line's options.

Settings are *flat* here: those of a part of `SearchConfig` are named PART_FIELD, such as `columns_prompt`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from oracle.config import SearchConfig
from oracle.errors import InputError, reason_of
from oracle.metrics import TASK_METRIC
from oracle.tasks.options import OWN, task_names
from oracle.utils.option_names import OPTIONS
from oracle.utils.paths import nearest_path
from oracle.utils.text import nearest_hint

__all__ = [
    "PARTS",
    "assembled",
    "entries",
    "flat_defaults",
    "flat_settings",
    "given_part",
    "read_yaml",
    "unescaped",
]

PARTS = ("columns", "layout", "task_options")
"""Settings of `SearchConfig` that are dataclasses."""

ESCAPED = ("stop", "target_delimiter", "columns_template")
"""Flat names of texts in which \\n and \\t stand for a line feed and a tab."""


class _Loader(yaml.SafeLoader):
    """Loader of plain values that refuses a key given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    pairs = [(loader.construct_object(key, deep=True), key.start_mark.line + 1) for key, _ in node.value]
    seen: dict[Any, int] = {}
    for key, line in pairs:
        if key in seen:
            raise InputError(f"key '{key}' stands in lines {seen[key]} and {line}: keep one of them")
        seen[key] = line
    return {
        key: loader.construct_object(value, deep=True) for (key, _), (_, value) in zip(pairs, node.value, strict=True)
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML (or JSON) file, of plain values.

    Raises:
        InputError: if the file cannot be read, is no mapping of texts, or has a key twice.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from None
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f"cannot read '{path}': {reason_of(error)}{nearest_path(path)}: give a YAML file of settings"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InputError(f"'{path}' must hold settings as 'key: value', not {type(found).__name__}: correct the file")
    return found


def entries(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Key as written, option or flat name, and value; the fields of parts one by one."""
    for key, value in values.items():
        name = key.replace("_", "-")
        if key in PARTS and isinstance(value, Mapping):
            for field, one in value.items():
                yield f"{key}: {field}", f"{key}_{field}", one
        else:
            yield key, OPTIONS.get(name, name.replace("-", "_")), value


def flat_settings(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Settings of a search by flat name; a single value where a list is wanted is a list of one.

    Args:
        values: by option (`reference-column`), by name of the setting, or by part (`columns: {references: ...}`).
        source: where they are from, for error messages.

    Raises:
        InputError: names the first unknown key and the nearest known one.
    """
    known = flat_defaults()
    found: dict[str, Any] = {}
    for key, name, value in entries(values):
        if name not in known:
            options = [*(one.replace("_", "-") for one in known if not one.startswith(PARTS)), *OPTIONS]
            raise InputError(f"{source}: unknown key '{key}'{nearest_hint(key.replace('_', '-'), options)}")
        if isinstance(known[name], tuple):
            value = tuple(value) if isinstance(value, list | tuple) else (value,)
        found[name] = unescaped(name, value)
    return found


def flat_defaults() -> dict[str, Any]:
    """Default of every setting by flat name."""
    config = SearchConfig()
    found = {field.name: getattr(config, field.name) for field in fields(config)}
    for part in PARTS:
        own = found.pop(part)
        found |= {f"{part}_{field.name}": getattr(own, field.name) for field in fields(own)}
    return found


def unescaped(name: str, value: Any) -> Any:
    """A setting with line feeds and tabs where \\n and \\t are written, if it is a text in which that is usual."""
    if name not in ESCAPED:
        return value
    if isinstance(value, list | tuple):
        return tuple(unescaped(name, one) for one in value)
    return value.replace("\\n", "\n").replace("\\t", "\t") if isinstance(value, str) else value


def assembled(flat: Mapping[str, Any], base: SearchConfig) -> dict[str, Any]:
    """Arguments for `replace(base, ...)`: the flat settings, those of parts merged with the base's.

    With data that are tasks, the criterion, the stop texts and the length of outputs are the tasks' unless given.
    """
    flat = dict(flat)
    given = {field.name: flat[field.name] for field in fields(base) if field.name in flat}
    if task_names(str(given.get("data", ""))):
        # What is not given is up to the tasks.
        given.setdefault("criterion", TASK_METRIC)
        flat["task_options_own"] = tuple(name for name in OWN if name not in given)
    for part in PARTS:
        own = getattr(base, part)
        if (changed := given_part(flat, part, own)) != own:
            given[part] = changed
    return given


def given_part(flat: Mapping[str, Any], part: str, own: Any) -> Any:
    """A part of a `SearchConfig` with those of the flat settings that are its."""
    given = {field.name: flat[f"{part}_{field.name}"] for field in fields(own) if f"{part}_{field.name}" in flat}
    return replace(own, **given)
