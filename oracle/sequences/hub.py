"""Records from data sets of the `datasets` library, by hub name or local folder."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oracle.errors import InputError
from oracle.sequences.labels import named_labels
from oracle.sequences.records import Decisions, Record
from oracle.utils.hub import quick_hub
from oracle.utils.text import nearest_hint

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["HubName", "looks_like_hub_name", "read_hub"]

_PREFIX = "hf://"
_LONGEST_NAME = 96  # of a repository on the hub
_SAVED = ("dataset_dict.json", "dataset_info.json")

_REMEDIES: dict[type[Exception], str] = {
    ConnectionError: "if it should be a file, no such file exists; else connect to the network or give a local file",
    FileNotFoundError: "give a folder with data files, or one written by save_to_disk",
    ValueError: "name a configuration it has, as name:config",
    Exception: "export it to JSONL or Parquet and give that file",
}
"""Exception raised while loading -> remedy; the first match applies."""


@dataclass(frozen=True, kw_only=True)
class HubName:
    """Name of a data set on the command line: `name`, `name:config` or `name:config:split`.

    Attributes:
        name: name on the Hugging Face hub (`squad`, `allenai/ai2_arc`), or a local folder.
        config: the configuration; None for the only one.
        split: the split; None for the only one.
    """

    name: str
    config: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """Parses `[hf://]name[:[config][:[split]]]`; `name::split` has no configuration.

        Raises:
            InputError: if there is no name, or more than three parts.
        """
        parts = text.removeprefix(_PREFIX).split(":")
        if not parts[0] or len(parts) > 3:
            raise InputError(f"a datasets name must be name, name:config or name:config:split, not {text!r}")
        name, config, split, *_ = [*parts, "", ""]
        return cls(name=name, config=config or None, split=split or None)


def looks_like_hub_name(text: str) -> bool:
    """Whether a text names a data set on the hub: `hf://...`, or a name without a file suffix."""
    if text.startswith(_PREFIX):
        return True
    match = re.fullmatch(r"(\w[\w.-]*(?:/\w[\w.-]*)?)(?::[\w.-]*){0,2}", text)
    return match is not None and len(match[1]) <= _LONGEST_NAME and not Path(match[1]).suffix


def read_hub(text: str, decisions: Decisions) -> Iterator[Record]:
    """The records of a data set that `datasets` can load, downloaded if necessary. Runs no code of the data set.

    Class labels are read by name.

    Args:
        text: `name`, `name:config` or `name:config:split`, with or without `hf://`; the name is a hub name, a folder
            written by `save_to_disk`, or a folder of data files.
        decisions: what was decided by rule.

    Raises:
        InputError: if it cannot be loaded, or has several splits and none is named.
    """
    wanted = HubName.parse(text)
    rows = _one_split(_load(wanted), wanted)
    rename = named_labels(rows.features.to_dict(), text, decisions)
    for number, fields in enumerate(rows.with_format(None)):
        yield Record(where=f"{text} row {number}", fields=rename(fields))


def _is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    try:
        return any((folder / name).is_file() for name in _SAVED)
    except OSError:  # path too long, or unreadable
        return False


def _load(wanted: HubName) -> "Dataset | DatasetDict":
    # Slow to import, and most data sets are files.
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    saved = _is_saved(Path(wanted.name))
    if saved and wanted.config:
        raise InputError(
            f"the saved data set {wanted.name} must be named without a configuration, not with {wanted.config!r}: "
            f"write {wanted.name}::SPLIT to name a split"
        )
    try:
        if saved:
            return datasets.load_from_disk(wanted.name)
        with quick_hub(wanted.name, "dataset"):
            return datasets.load_dataset(wanted.name, wanted.config, streaming=False)
    except (DatasetsError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, DatasetNotFoundError):
            remedy = "check the name, or log in with `hf auth login` if it is private or gated"
        else:
            remedy = next(text for kind, text in _REMEDIES.items() if isinstance(error, kind))
        # Generation errors are explained by their cause only.
        reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
        raise InputError(f"cannot load data set {wanted.name!r}: {reason}: {remedy}") from None


def _one_split(loaded: "Dataset | DatasetDict", wanted: HubName) -> "Dataset":
    import datasets

    if isinstance(loaded, datasets.Dataset):
        loaded = datasets.DatasetDict({str(loaded.split or "train"): loaded})
    splits = [str(name) for name in loaded]
    if wanted.split is None and len(splits) == 1:
        return loaded[splits[0]]
    if wanted.split in splits:
        return loaded[wanted.split]
    given = repr(wanted.split) if wanted.split else "none"
    example = f"{wanted.name}:{wanted.config or ''}:{splits[-1] if splits else 'SPLIT'}"
    raise InputError(
        f"data set {wanted.name!r} needs one of its splits {', '.join(splits)}, not {given}"
        f"{nearest_hint(wanted.split or '', splits)}: write {example}"
    )
