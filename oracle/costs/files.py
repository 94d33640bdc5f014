"""Files of costs, as `oracle profile --out` writes them."""

import json
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from oracle.costs.costs import MEASURES, Costs, Measure
from oracle.errors import InputError
from oracle.store.files import write_json
from oracle.utils.paths import nearest_path

__all__ = ["costs_of_file", "read_costs", "write_costs"]

SCHEMA = 1
"""Version of the file's format; changes when a meaning does."""

SUFFIXES: dict[str, Measure] = {"flops": "FLOPs/token", "ms": "ms/token"}
"""Suffixes of a file's name that choose one of its costs."""


def write_costs(path: Path, costs: Seq[Costs], **more: Any) -> None:
    """Writes costs (at most one per unit of measure) as JSON, atomically, with further entries that readers ignore.

    Raises:
        InputError: if the file cannot be written.
    """
    try:
        write_json(path, {"schema": SCHEMA, "costs": [each.to_dict() for each in costs], **more})
    except OSError as error:
        raise InputError(f"cannot write costs to '{path}' ({error.strerror}); give another file") from error


def read_costs(path: Path, unit_of_measure: Measure | None = None) -> Costs:
    """The costs in one unit of measure from a file of `write_costs`.

    By default ms/token if the file has it, as the others can be counted at any time.

    Raises:
        InputError: if the file is missing, is not a file of costs, or lacks the unit of measure.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read costs from '{path}' ({error}){nearest_path(path)}; give a file of 'oracle profile --out'"
        ) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("costs"), list):
        raise InputError(f"'{path}' has no costs of schema {SCHEMA}; write a file with 'oracle profile --out FILE'")
    found = [entry for entry in content["costs"] if isinstance(entry, dict)]
    named = {str(entry.get("unit_of_measure")): entry for entry in found}
    wanted = unit_of_measure or next((name for name in reversed(MEASURES) if name in named), MEASURES[-1])
    if wanted not in named:
        raise InputError(f"'{path}' has costs in {', '.join(sorted(named)) or 'nothing'}, not in {wanted}")
    return Costs.from_dict(named[wanted])


def costs_of_file(name: str) -> Costs:
    """The costs named by `FILE`, `FILE:flops` or `FILE:ms`; raises `InputError` like `read_costs`."""
    file, colon, suffix = name.rpartition(":")
    return read_costs(Path(file), SUFFIXES[suffix]) if colon and suffix in SUFFIXES else read_costs(Path(name))
