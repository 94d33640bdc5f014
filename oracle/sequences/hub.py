"""Records from data sets of the `datasets` library, by hub name or local folder."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oracle.errors import ForeignError, InputError, reason_of
from oracle.sequences.floats import shortest_floats
from oracle.sequences.labels import named_labels
from oracle.sequences.records import Decisions, Record
from oracle.utils.hub import quick_hub
from oracle.utils.text import nearest_hint

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["HubName", "is_folder", "local_name", "looks_like_hub_name", "read_hub"]

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
    """Name of a data set on the command line: `name`, `name:config` or `name:config:split`; `name@revision` for one.

    Attributes:
        name: name on the Hugging Face hub (`squad`, `allenai/ai2_arc`), or a local folder.
        config: the configuration; None for the only one.
        split: the split; None for the only one.
        revision: branch, tag or commit on the hub, such as `refs/convert/parquet`; None for the main one.
    """

    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """Parses `[hf://]name[@revision][:[config][:[split]]]`; `name::split` has no configuration.

        Raises:
            InputError: if there is no name, or more than three parts.
        """
        parts = text.removeprefix(_PREFIX).split(":")
        if not parts[0] or len(parts) > 3:
            raise InputError(f"a datasets name must be name, name:config or name:config:split, not {text!r}")
        name, config, split, *_ = [*parts, "", ""]
        revision = ""
        if not is_folder(name):
            name, _, revision = name.partition("@")
        return cls(name=name, config=config or None, split=split or None, revision=revision or None)


def is_folder(name: str) -> bool:
    """Whether a name is that of a local folder."""
    try:
        return name != "" and Path(name).is_dir()
    except OSError:  # path too long
        return False


def looks_like_hub_name(text: str) -> bool:
    """Whether a text names a data set on the hub: `hf://...`, or a name without a file suffix."""
    if text.startswith(_PREFIX):
        return True
    match = re.fullmatch(r"(\w[\w.-]*(?:/\w[\w.-]*)?)(?:@[\w./-]+)?(?::[\w.-]*){0,2}", text)
    return match is not None and len(match[1]) <= _LONGEST_NAME and not Path(match[1]).suffix


def read_hub(text: str, decisions: Decisions, near: str = "") -> Iterator[Record]:
    """The records of a data set that `datasets` can load, downloaded if necessary. Runs no code of the data set.

    Class labels are read by name.

    Args:
        text: `name`, `name:config` or `name:config:split`, with or without `hf://`; the name is a hub name, a folder
            written by `save_to_disk`, or a folder of data files.
        decisions: what was decided by rule.
        near: a hint at bundled data of a similar name, for the message.

    Raises:
        InputError: if it cannot be loaded, or has several splits and none is named.
    """
    wanted = HubName.parse(text)
    rows = _one_split(_load(wanted, near), wanted)
    rename = named_labels(rows.features.to_dict(), text, decisions)
    shortest = shortest_floats(rows.features.arrow_schema)
    for number, fields in enumerate(rows.with_format(None)):
        yield Record(where=f"{text} row {number}", fields=rename(shortest(fields)))


def local_name(folder: str, wanted: HubName) -> str:
    """The name under which a local copy of a data set is read: the folder with configuration and split, as it has them.

    Raises:
        InputError: if it cannot be read.
    """
    split = wanted.split or ""
    if _is_saved(Path(folder)) or not wanted.config:
        return f"{folder}::{split}"
    import datasets

    try:
        with _quiet():
            has = datasets.get_dataset_config_names(folder)
    except Exception as error:  # the library raises nothing narrower
        raise InputError(
            f"cannot load data set {folder!r}: {reason_of(error)}: give a folder with its files"
        ) from error
    return f"{folder}:{wanted.config if wanted.config in has else ''}:{split}"


def _is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    try:
        return any((folder / name).is_file() for name in _SAVED)
    except OSError:  # path too long, or unreadable
        return False


def _foreign_folder(folder: Path) -> str | None:
    """What a folder holds other than data, if the library would take its files for data; None for anything else."""
    try:
        if (folder / "manifest.json").is_file() and (folder / "evaluations").is_dir():
            return "the folder of a run ('oracle search --from' starts from a run)"
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return "the folder of a model (--model)"
    except OSError:  # path too long, or unreadable
        pass
    return None


def _load(wanted: HubName, near: str) -> "Dataset | DatasetDict":
    # Slow to import, and most data sets are files.
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    if foreign := _foreign_folder(Path(wanted.name)):
        raise InputError(f"data are required, but {wanted.name!r} is {foreign}; give a data file or a folder of them")
    saved = _is_saved(Path(wanted.name))
    if saved and wanted.config:
        raise InputError(
            f"the saved data set {wanted.name} must be named without a configuration, not with {wanted.config!r}: "
            f"write {wanted.name}::SPLIT to name a split"
        )
    try:
        if saved:
            return datasets.load_from_disk(wanted.name)
        with quick_hub(wanted.name, "dataset"), _quiet():
            at = {"revision": wanted.revision} if wanted.revision else {}
            return datasets.load_dataset(wanted.name, wanted.config, streaming=False, **at)
    except Exception as error:
        if isinstance(error, ConnectionError) and looks_like_hub_name(wanted.name):
            remedy = _offline(wanted)
        elif isinstance(error, DatasetNotFoundError):
            remedy = "check the name, or log in with `hf auth login` if it is private or gated"
        else:
            remedy = next(text for kind, text in _REMEDIES.items() if isinstance(error, kind))
        if near and not is_folder(wanted.name):
            reason, remedy = type(error).__name__, "give that, or a name of the hub, which needs the network"
            raise InputError(f"cannot load data set {wanted.name!r} ({reason}){near}: {remedy}") from error
        # Generation errors are explained by their cause only.
        kind = InputError if isinstance(error, (DatasetsError, OSError, RuntimeError, ValueError)) else ForeignError
        raise kind(f"cannot load data set {wanted.name!r}: {reason_of(error.__cause__ or error)}: {remedy}") from error


def _offline(wanted: HubName) -> str:
    """What to do about a data set of the hub without a network: the files, and where to put them."""
    import datasets

    rest = f":{wanted.config or ''}:{wanted.split or 'SPLIT'}"
    revision = f" --revision {wanted.revision}" if wanted.revision else ""
    cached = f"{wanted.name.replace('/', '___')}"
    return (
        f"if it should be a file, no such file exists; else connect to the network, or fetch it on another machine "
        f"with 'hf download {wanted.name} --repo-type dataset{revision} --local-dir FOLDER', copy FOLDER here and give "
        f"--data FOLDER{rest} (of a preset: --data preset:NAME:FOLDER); or copy the folder {cached} of that machine's "
        f"datasets cache into {datasets.config.HF_DATASETS_CACHE}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the library prints while it reads files: its errors are raised as well."""
    import datasets

    level, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


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
