"""Checks of the manifest and the summary of a run, which may come from anywhere: types, ranges, and their agreement.

Each failure is one line that names the file, the field, what was found and what is expected.
"""

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oracle.errors import InputError

__all__ = ["MAX_LAYERS", "check_manifest", "check_summary", "expect", "mismatch", "parse_json"]

MAX_JSON = 64 * 2**20
"""Maximum size of a manifest or summary, in bytes."""

MAX_LAYERS = 2**14
"""Maximum number of layers: allocations are stored as 16-bit integers, and a layer has two sublayers."""


@dataclass(frozen=True)
class Kind:
    """What a field may hold.

    Attributes:
        expected: in words.
        accepts: whether a JSON value is of that kind.
    """

    expected: str
    accepts: Callable[[Any], bool]

    def or_null(self) -> "Kind":
        """The same, or null."""
        return Kind(f"{self.expected}, or null", lambda value: value is None or self.accepts(value))

    def listed(self, count: int | None = None) -> "Kind":
        """A list of such values, of a given length if there is one."""
        many = "a list" if count is None else f"a list of {count}"
        return Kind(
            f"{many}, each {self.expected}",
            lambda value: (
                isinstance(value, list)
                and (count is None or len(value) == count)
                and all(self.accepts(each) for each in value)
            ),
        )

    def named(self) -> "Kind":
        """An object whose values are such."""
        return Kind(
            f"an object, each value {self.expected}",
            lambda value: isinstance(value, dict) and all(self.accepts(each) for each in value.values()),
        )


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _number(low: float | None = None) -> Kind:
    if low is None:
        return Kind("a finite number", _is_number)
    return Kind(f"a finite number of at least {low:g}", lambda value: _is_number(value) and value >= low)


def _whole(low: int, high: int = 2**63 - 1) -> Kind:
    limits = f"from {low} to {high}" if high < 2**63 - 1 else f"of at least {low}"
    return Kind(
        f"a whole number {limits}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
    )


def _one_of(*names: str) -> Kind:
    return Kind(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


TEXT = Kind("a text", lambda value: isinstance(value, str))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = _whole(0)
FRACTION = _number(0)
INTERVAL = _number().listed(2)
UNIT = _one_of("layer", "sublayer")

DECIDED = {"rule": TEXT, "rows": COUNT, "first": TEXT}

DECISION = Kind(
    "an object of rule (a text), rows (a whole number) and first (a text)",
    lambda value: (
        isinstance(value, dict) and all(name in value and kind.accepts(value[name]) for name, kind in DECIDED.items())
    ),
)
"""A rule that decided how data was read."""

REQUIRED: dict[str, Kind] = {
    "seed": COUNT,
    "config.criterion": TEXT,
    "config.tolerance": _number(0),
    "config.scope": _one_of("decode", "decode-last", "sequence"),
    "model.fingerprint": TEXT,
    "model.layers": _whole(1, MAX_LAYERS),
}
"""Entries of every manifest."""

OPTIONAL: dict[str, Kind] = {
    "config.unit": UNIT,
    "config.strategy": TEXT,
    "config.model": TEXT,
    "config.data": TEXT,
    "model": OBJECT,
    "model.id": TEXT,
    "model.dtype": TEXT,
    "data": OBJECT,
    "data.source": TEXT,
    "data.hash": TEXT,
    "data.sequences": COUNT,
    "data.decisions": DECISION.listed(),
    "data.skipped": COUNT.named(),
    "prompts": OBJECT,
    "prompts.hash": TEXT,
    "prompts.template": TEXT,
    "prompts.template_digest": TEXT.or_null(),
    "prompts.arguments": OBJECT,
    "generation": OBJECT,
    "generation.honoured": OBJECT,
    "generation.end_tokens": COUNT.listed(),
    "costs": OBJECT,
    "costs.units": _number(0).listed(),
    "costs.states": _number(0).listed(),
    "costs.overhead": _number(0),
    "costs.unit_of_measure": _one_of("FLOPs/token", "ms/token"),
    "versions": TEXT.named(),
    "commit": TEXT.or_null(),
    "machine": OBJECT,
    "rounding": OBJECT.or_null(),
    "continues": OBJECT,
    "continues.run": TEXT,
    "indexed": FLAG,
    "figures": FLAG,
}
"""Entries that runs of some versions or settings lack."""

DIFFERENCE: dict[str, Kind] = {
    "sequence": TEXT,
    "cost": _number(0),
    "remedy": TEXT,
}

LOCATED: dict[str, Kind] = {
    "recorded": COUNT.or_null(),
    "plain": COUNT.or_null(),
    "recorded_text": TEXT.or_null(),
    "plain_text": TEXT.or_null(),
    "near_tie": _number(0).or_null(),
    "rounding": _number(0),
    "lead": _number(0).or_null(),
}
"""Of a difference that has a position."""

SHOWN: dict[str, Kind] = {
    "sequences": COUNT,
    "allocations_per_sequence": FRACTION,
    "layers": _whole(1, 2 * MAX_LAYERS),
    "unit": UNIT,
    "cost": _one_of("layers", "sublayers", "FLOPs/token", "ms/token"),
    "criterion": TEXT,
    "full_quality": _number(),
    "per_sequence_fraction": FRACTION,
    "per_sequence_interval": INTERVAL.or_null(),
    "equal_quality_fraction": FRACTION,
    "equal_quality_interval": INTERVAL.or_null(),
    "null_per_sequence_fraction": FRACTION.or_null(),
    "null_equal_quality_fraction": FRACTION.or_null(),
    "null_zero_quality_share": FRACTION.or_null(),
    "zero_quality_sequences": COUNT,
    "certified": COUNT,
    "mean_gap": FRACTION.or_null(),
    "verified": COUNT,
    "verified_of": COUNT,
    "unverified": TEXT.listed(),
    "search_seconds": FRACTION,
    "seconds": FRACTION,
    "peak_memory_mib": _number(),
    "memory_above_model_mib": _number(),
}
"""Entries of a summary that are printed after a search."""

EXTRA: dict[str, Kind] = {
    "strategy": TEXT,
    "equal_quality_gap": FRACTION,
    "null_per_sequence_spread": FRACTION.or_null(),
    "null_equal_quality_spread": FRACTION.or_null(),
    "end_to_end_fraction": FRACTION.or_null(),
    "end_to_end_against_full": FRACTION.or_null(),
    "exact": FLAG,
    "vacuous_sequences": COUNT,
    "vacuous": COUNT.named(),
    "informative_sequences": COUNT,
    "informative": OBJECT.or_null(),
    "set_aside": TEXT.named(),
    "hidden_states": COUNT.named(),
    "differences": OBJECT.listed(),
    "rounding": OBJECT.or_null(),
}

AT_MOST = (
    ("verified", "verified_of"),
    ("zero_quality_sequences", "sequences"),
    ("certified", "sequences"),
    ("vacuous_sequences", "sequences"),
    ("informative_sequences", "sequences"),
)
"""Counts of a summary of which the first is part of the second."""


def parse_json(path: Path) -> Any:
    """The content of a JSON file of limited size.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not JSON, or too long.
    """
    with path.open("rb") as file:
        data = file.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise ValueError(f"it is longer than {MAX_JSON} bytes")
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def mismatch(path: Path, field: str, found: object, expected: str, remedy: str) -> InputError:
    """The error for a field of a file."""
    shown = " ".join(reprlib.repr(found).split())
    return InputError(f"'{path}' is damaged ({field}: found {shown}, expected {expected}); {remedy}")


def expect(condition: bool, path: Path, field: str, found: object, expected: object, remedy: str) -> None:
    """Raises `mismatch` unless the condition holds."""
    if not condition:
        raise mismatch(path, field, found, str(expected), remedy)


def check_manifest(manifest: Mapping[str, Any], path: Path, remedy: str) -> None:
    """Checks a manifest.

    Args:
        manifest: its content.
        path: its file, for messages.
        remedy: what to do, for messages.

    Raises:
        InputError: names the first entry that is missing or wrong.
    """
    _require_finite(manifest, path, "", remedy)
    for name, kind in (REQUIRED | OPTIONAL).items():
        section, _, last = name.rpartition(".")
        inner = manifest.get(section) if section else manifest
        if section and section in manifest and not isinstance(inner, dict) and (inner is not None or name in OPTIONAL):
            raise mismatch(path, section, inner, OBJECT.expected, remedy)
        if not isinstance(inner, dict) or last not in inner or (inner[last] is None and name in REQUIRED):
            if name in OPTIONAL:
                continue
            raise InputError(f"'{path}' is damaged (no {name}, expected {kind.expected}); {remedy}")
        expect(kind.accepts(inner[last]), path, name, inner[last], kind.expected, remedy)
    units = int(manifest["model"]["layers"]) * (2 if manifest["config"].get("unit") == "sublayer" else 1)
    if costs := manifest.get("costs"):
        for name in ("units", "overhead", "unit_of_measure"):
            if name not in costs:
                raise InputError(f"'{path}' is damaged (no costs.{name}); {remedy}")
        expect(len(costs["units"]) == units, path, "costs.units", len(costs["units"]), f"{units} costs", remedy)


def check_summary(summary: Any, path: Path, remedy: str, *, whole: bool) -> None:
    """Checks a summary, and that its counts agree with each other.

    Args:
        summary: its content.
        path: its file, for messages.
        remedy: what to do, for messages.
        whole: whether to require every entry that is printed after a search.

    Raises:
        InputError: names the first entry that is missing or wrong.
    """
    if not isinstance(summary, dict):
        raise mismatch(path, "the whole", summary, OBJECT.expected, remedy)
    _require_finite(summary, path, "", remedy)
    _check_entries(summary, SHOWN, path, "", remedy, required=whole)
    _check_entries(summary, EXTRA, path, "", remedy, required=False)
    for place, entry in enumerate(summary.get("differences", [])):
        where = f"differences[{place}]."
        _check_entries(entry, DIFFERENCE, path, where, remedy, required=True)
        if "position" in entry:
            _check_entries(entry, {"position": COUNT, **LOCATED}, path, where, remedy, required=True)
    for part, total in AT_MOST:
        if part in summary and total in summary:
            limit = f"at most {total}, {summary[total]}"
            expect(summary[part] <= summary[total], path, part, summary[part], limit, remedy)


def _require_finite(value: Any, path: Path, where: str, remedy: str) -> None:
    """Python reads NaN and infinities, which are not JSON."""
    if isinstance(value, float):
        expect(math.isfinite(value), path, where, value, "a finite number", remedy)
    elif isinstance(value, (dict, list)):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _require_finite(inner, path, f"{where}.{name}".removeprefix("."), remedy)


def _check_entries(
    values: Mapping[str, Any], kinds: Mapping[str, Kind], path: Path, prefix: str, remedy: str, *, required: bool
) -> None:
    for name, kind in kinds.items():
        if name in values:
            expect(kind.accepts(values[name]), path, f"{prefix}{name}", values[name], kind.expected, remedy)
        elif required:
            raise InputError(f"'{path}' is damaged (no {prefix}{name}, expected {kind.expected}); {remedy}")
