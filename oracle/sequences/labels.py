"""Class labels by name, where tables of `datasets` store their numbers."""

from collections.abc import Callable, Mapping
from typing import Any

from oracle.sequences.records import Decisions, LabelName

__all__ = ["named_labels"]

Fields = Mapping[str, object]


def named_labels(features: Any, source: str, decisions: Decisions) -> Callable[[Fields], Fields]:
    """A function that replaces the numbers of class labels in a row by `LabelName`s.

    Args:
        features: the features of a data set as the JSON values that `datasets` writes, such as
            `{"kind": {"names": ["geo", "math"], "_type": "ClassLabel"}}`; whatever is no class label is ignored.
        source: where the rows are from.
        decisions: records the columns with class labels.
    """
    changes = _changes(features)
    if changes is None:
        return lambda fields: fields
    columns = [name for name, feature in features.items() if _changes(feature)]
    decisions.add(f"class labels are read by name, not by number: {', '.join(columns)}", source, rows=0)
    return changes


def _changes(feature: Any) -> Callable[[Any], Any] | None:
    """A function that names the labels in a value of a feature; None if it has none."""
    if isinstance(feature, list):  # a list in the notation of datasets 2
        return _in_lists(_changes(feature[0])) if len(feature) == 1 else None
    if not isinstance(feature, dict):
        return None
    kind = feature.get("_type")
    if kind == "ClassLabel" and isinstance(names := feature.get("names"), list):
        return lambda value: _name(value, names)
    if isinstance(kind, str):
        inner = feature.get("feature")
        return _in_lists(_changes(inner)) if isinstance(inner, (dict, list)) else None
    inside = {key: change for key, one in feature.items() if (change := _changes(one))}
    return (lambda value: _in_fields(value, inside)) if inside else None


def _in_fields(value: Any, changes: Mapping[str, Callable[[Any], Any]]) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: changes[key](one) if key in changes else one for key, one in value.items()}


def _in_lists(change: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    """A change of each item; datasets 2 stores a list of structures as a structure of lists, which goes as a whole."""
    if change is None:
        return None
    return lambda value: [change(one) for one in value] if isinstance(value, list) else change(value)


def _name(value: Any, names: list[Any]) -> Any:
    """The name of a label; None for the number -1, which stands for none."""
    if isinstance(value, list):
        return [_name(one, names) for one in value]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return LabelName(str(names[value]), value) if 0 <= value < len(names) else None
