"""Files of costs, as `oracle profile --out` writes them."""

import json
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from oracle.costs.costs import MEASURES, Costs, Measure
from oracle.errors import InputError
from oracle.store.files import write_json

__all__ = ["costs_of_file", "read_costs", "write_costs"]

SCHEMA = 1
"""Version of the file's format; moves when a meaning does."""

SUFFIXES: dict[str, Measure] = {"flops": "FLOPs/token", "ms": "ms/token"}
"""What may stand behind a file's name to choose one of its costs."""


def write_costs(path: Path, costs: Seq[Costs], **more: Any) -> None:
    """Writes costs as JSON, whole or not at all, with whatever else the file is to say.

    Args:
        path: the file.
        costs: at most one for each unit of measure.
        more: further entries; readers of costs pass over them.

    Raises:
        InputError: if nothing can be written there.
    """
    try:
        write_json(path, {"schema": SCHEMA, "costs": [each.to_dict() for each in costs], **more})
    except OSError as error:
        raise InputError(f"cannot write costs to '{path}' ({error.strerror}); give another file") from error


def read_costs(path: Path, unit_of_measure: Measure | None = None) -> Costs:
    """The costs in one unit of measure out of a file of `write_costs`.

    Args:
        path: the file.
        unit_of_measure: which; by default ms/token where the file has it, for the others can be counted at any time.

    Raises:
        InputError: if there is no such file, it is none of these, or it lacks the unit of measure.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read costs from '{path}' ({error}); give a file of 'oracle profile --out'") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("costs"), list):
        raise InputError(f"'{path}' is no file of costs of schema {SCHEMA}; write one with 'oracle profile --out FILE'")
    found = [entry for entry in content["costs"] if isinstance(entry, dict)]
    named = {str(entry.get("unit_of_measure")): entry for entry in found}
    wanted = unit_of_measure or next((name for name in reversed(MEASURES) if name in named), MEASURES[-1])
    if wanted not in named:
        raise InputError(f"'{path}' has costs in {', '.join(sorted(named)) or 'nothing'}, not in {wanted}")
    return Costs.from_dict(named[wanted])


def costs_of_file(name: str) -> Costs:
    """The costs that `FILE`, `FILE:flops` or `FILE:ms` names; see `read_costs` for `FILE` alone.

    Raises:
        InputError: as `read_costs` does.
    """
    file, colon, suffix = name.rpartition(":")
    return read_costs(Path(file), SUFFIXES[suffix]) if colon and suffix in SUFFIXES else read_costs(Path(name))
