"""The sequences of a run from a data source named by the user."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

from oracle.errors import InputError
from oracle.sequences.columns import Columns, to_sequences
from oracle.sequences.files import READERS, read_aligned, read_file
from oracle.sequences.hub import looks_like_hub_name, read_hub
from oracle.sequences.records import Record
from oracle.types import Sequence
from oracle.utils.text import nearest_hint

__all__ = ["BUNDLED", "bundled_path", "load_sequences", "select"]

_DEFAULT_COLUMNS = Columns()


def load_sequences(
    data: str,
    *,
    columns: Columns = _DEFAULT_COLUMNS,
    reference_files: tuple[str, ...] = (),
    tasks: tuple[str, ...] = (),
    limit: int | None = None,
) -> list[Sequence]:
    """Sequences from a file, a `datasets` name, or the bundled set.

    Args:
        data: `instruct` (the bundled sequences); a JSONL, CSV, TSV, Parquet or text file, by its suffix; a folder that
            `datasets` can load; or a `datasets` name (`name`, `name:config`, `name:config:split`, prefixed with `hf://`
            if it has a dot or a file has the same name).
        columns: the columns that form a sequence.
        reference_files: for a text file with one prompt per line, files aligned with it line by line.
        tasks: names of the tasks to keep; empty for all.
        limit: maximum number of sequences, spread over the tasks (see `select`).

    Returns:
        One or more sequences with unique ids, in the order of the data.

    Raises:
        InputError: if the data cannot be found or read, lacks a column, or is empty.
    """
    sequences = to_sequences(_records(data, reference_files), columns)
    if not sequences:
        raise InputError(f"{data} must have at least one sequence, not none: give data with rows")
    return select(sequences, tasks, limit)


def select(sequences: Iterable[Sequence], tasks: tuple[str, ...] = (), limit: int | None = None) -> list[Sequence]:
    """The sequences of `tasks` (empty for all), at most `limit`, in their original order.

    The limit is filled round-robin: the first sequence of each task, then the second of each, and so on.

    Raises:
        InputError: if a task is unknown (lists the known ones), or the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}: omit it to take all sequences")
    sequences = list(sequences)
    known = list(dict.fromkeys(sequence.task for sequence in sequences))
    for task in tasks:
        if task not in known:
            names = ", ".join(repr(name) for name in known)
            raise InputError(f"unknown task {task!r}: the tasks are {names}{nearest_hint(task, known)}")
    kept = [sequence for sequence in sequences if not tasks or sequence.task in tasks]
    return kept if limit is None else _round_robin(kept, limit)


def _round_robin(sequences: list[Sequence], limit: int) -> list[Sequence]:
    positions: dict[str, list[int]] = {}
    for position, sequence in enumerate(sequences):
        positions.setdefault(sequence.task, []).append(position)
    turns = chain.from_iterable(zip_longest(*positions.values()))
    taken = islice((position for position in turns if position is not None), limit)
    return [sequences[position] for position in sorted(taken)]


def _records(data: str, reference_files: tuple[str, ...]) -> Iterator[Record]:
    if reference_files:
        return _aligned_records(data, reference_files)
    if data in BUNDLED:
        return read_file(bundled_path(data))
    if _is_file(data):
        return read_file(Path(data))
    if looks_like_hub_name(data) or _is_folder(data):
        return read_hub(data)
    raise _no_such_file(data)


def _is_file(data: str) -> bool:
    try:
        return Path(data).is_file()
    except OSError:  # path too long, or in an unreadable folder
        return False


def _is_folder(data: str) -> bool:
    """Whether a text names a folder, with or without the `:config:split` of a datasets name."""
    name = data.partition(":")[0]
    try:
        return name != "" and Path(name).is_dir()
    except OSError:
        return False


def _aligned_records(data: str, reference_files: tuple[str, ...]) -> Iterator[Record]:
    if data in BUNDLED or Path(data).suffix.lower() in READERS:
        raise InputError(
            f"reference files need a text file with one prompt per line, not {data}: name its reference column instead"
        )
    for file in (data, *reference_files):
        if not _is_file(file):
            raise _no_such_file(file)
    return read_aligned(Path(data), tuple(Path(file) for file in reference_files))


def _no_such_file(data: str) -> InputError:
    path = Path(data)
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:  # the folder does not exist either
        names = []
    return InputError(
        f"no such file {data!r}{nearest_hint(path.name, names)}; give a JSONL, CSV, Parquet or text file, "
        f"a datasets name, or {', '.join(repr(name) for name in BUNDLED)}"
    )


BUNDLED = ("instruct",)
"""Names of the bundled data sets."""

_PACKAGE = Path(__file__).resolve().parents[1]

# In a wheel; in a checkout.
_FOLDERS = (_PACKAGE / "_data", _PACKAGE.parent / "data")


def bundled_path(name: str = "instruct") -> Path:
    """Path of the JSONL file of a bundled data set.

    Raises:
        InputError: if the name is unknown, or the file is missing.
    """
    if name not in BUNDLED:
        raise InputError(f"unknown bundled data set {name!r}: available: {', '.join(BUNDLED)}")
    for folder in _FOLDERS:
        path = folder / f"{name}.jsonl"
        if path.is_file():
            return path
    places = " or ".join(str(folder) for folder in _FOLDERS)
    raise InputError(f"the bundled {name}.jsonl must be in {places}, but is missing: reinstall layer-oracle")
