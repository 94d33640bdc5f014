"""The sequences of a run from a data source named by the user."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from oracle.errors import InputError, reason_of
from oracle.metrics import Extraction, Metric
from oracle.sequences.check import usable
from oracle.sequences.columns import Columns
from oracle.sequences.conversion import to_sequences
from oracle.sequences.files import Source, format_of, read_aligned, read_file
from oracle.sequences.hub import is_folder, looks_like_hub_name, read_hub
from oracle.sequences.layout import Layout
from oracle.sequences.records import Decisions, Record
from oracle.types import Sequence
from oracle.utils.paths import nearest_path
from oracle.utils.plugins import READERS, load_plugin, plugins
from oracle.utils.text import nearest_hint
from oracle.utils.validation import check_list

__all__ = [
    "BUNDLED",
    "PRESETS",
    "LoadedData",
    "bundled_file",
    "bundled_path",
    "fact_lines",
    "load_sequences",
    "read_data",
    "select",
]

_DEFAULT_COLUMNS = Columns()
_DEFAULT_LAYOUT = Layout()


@dataclass(frozen=True, kw_only=True)
class LoadedData:
    """Sequences, and how they were read.

    Attributes:
        sequences: one or more, with unique ids, in the order of the data.
        decisions: what was decided by rule: entries of `rule`, `rows` (0 if it concerns the whole file) and `first`.
        skipped: number of unusable rows that were left out, by reason; before tasks and limit.
        columns: names of the columns of the first row, for messages.
    """

    sequences: Seq[Sequence]
    decisions: Seq[dict[str, Any]] = ()
    skipped: dict[str, int] = field(default_factory=dict)
    columns: str = ""

    def facts(self) -> dict[str, Any]:
        """Decisions and skipped rows as JSON values; without those there are none of."""
        found = {"decisions": list(self.decisions), "skipped": self.skipped}
        return {name: value for name, value in found.items() if value}

    def lines(self) -> list[str]:
        """The same, one line each, for the terminal."""
        return fact_lines(self.facts())


def fact_lines(facts: dict[str, Any]) -> list[str]:
    """Lines for the terminal of what `LoadedData.facts` returns, or of the entry `data` of a manifest."""
    lines = []
    for entry in facts.get("decisions", ()):
        count = f"{_rows(entry['rows'])}, first " if entry["rows"] else ""
        lines.append(f"{entry['rule']}" + (f" ({count}{entry['first']})" if entry["first"] else ""))
    lines += [f"left out {_rows(count)}: {reason}" for reason, count in facts.get("skipped", {}).items()]
    return lines


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def load_sequences(
    data: str,
    *,
    columns: Columns = _DEFAULT_COLUMNS,
    reference_files: tuple[str, ...] = (),
    tasks: tuple[str, ...] = (),
    limit: int | None = None,
    layout: Layout = _DEFAULT_LAYOUT,
) -> list[Sequence]:
    """Sequences from a file, a `datasets` name, or the bundled set; see `read_data`.

    Raises:
        InputError: if the data cannot be found or read, lacks a column, or is empty.
    """
    read = read_data(data, columns=columns, reference_files=reference_files, tasks=tasks, limit=limit, layout=layout)
    return list(read.sequences)


def read_data(
    data: str,
    *,
    columns: Columns = _DEFAULT_COLUMNS,
    reference_files: tuple[str, ...] = (),
    tasks: tuple[str, ...] = (),
    limit: int | None = None,
    layout: Layout = _DEFAULT_LAYOUT,
    extract: str | None = None,
    skip_unusable: bool = False,
    metrics: Iterable[Metric] = (),
    keep: bool = False,
) -> LoadedData:
    """Sequences from a file, a `datasets` name, or the bundled set, with what was decided while they were read.

    Args:
        data: `instruct` (the bundled sequences); a JSON lines, JSON, CSV, TSV, Parquet, Arrow or text file, by its
            suffix, also compressed (`.gz`, `.bz2`, `.xz`, `.zst`); a folder that `datasets` can load; or a `datasets`
            name (`name`, `name:config`, `name:config:split`, `name@revision:config:split`; prefixed with `hf://` if it
            has a dot or a file has the same name); or `READER:TEXT` by a reader of an installed package (entry points
            `layer_oracle.readers`: a function from the text to an iterable of mappings).
        columns: the columns that form a sequence.
        reference_files: for a text file with one prompt per line, files aligned with it line by line.
        tasks: names of the tasks to keep, before anything is extracted or left out; empty for all.
        limit: maximum number of sequences, spread over the tasks (see `select`).
        layout: how a file is read where its suffix does not say.
        extract: what is extracted from references before they are compared; see `oracle.metrics.Extraction`.
        skip_unusable: whether to leave out rows that lack what a sequence or a metric needs, instead of raising.
        metrics: the metrics that must be computable for every sequence, if unusable ones are left out.
        keep: whether sequences keep their rows, for metrics that ask for them.

    Raises:
        InputError: if the data cannot be found or read, lacks a column, or is empty.
    """
    if not isinstance(data, str):
        raise InputError(
            f"data needs a text (a file's path, a name for the datasets library, or 'instruct'), not "
            f"{type(data).__name__}: a path as str(path), rows as a file"
        )
    check_list(reference_files, "reference_files")
    decisions, skipped = Decisions(), Counter[str]()
    extraction = None if extract is None else Extraction.parse(extract)
    names: list[str] = []
    records = _named(_guarded(_records(data, reference_files, columns, layout, decisions), data), names)
    sequences = to_sequences(
        records,
        columns,
        cells=layout.cells,
        decisions=decisions,
        skipped=skipped if skip_unusable else None,
        keep=keep,
    )
    if not sequences:
        raise InputError(f"{data} must have at least one sequence, not none: give data with rows")
    sequences = select(sequences, tasks)
    if extraction is not None:
        sequences = _extracted(sequences, extraction, decisions, skipped if skip_unusable else None)
    if skip_unusable:
        sequences = usable(sequences, metrics, skipped)
        if not sequences:
            reasons = "; ".join(f"{_rows(count)}: {reason}" for reason, count in skipped.items())
            raise InputError(f"{data} must have at least one usable sequence, not none ({reasons}): name its columns")
    return LoadedData(
        sequences=select(sequences, (), limit),
        decisions=decisions.to_list(),
        skipped=dict(skipped),
        columns="".join(names),
    )


def _named(records: Iterator[Record], names: list[str]) -> Iterator[Record]:
    """The records; the names of the first one's columns are added to `names`, as one text."""
    for record in records:
        if not names:
            names.append(record.columns)
        yield record


def _guarded(records: Iterator[Record], data: str) -> Iterator[Record]:
    """The records; whatever goes wrong in a library while they are read becomes one line."""
    try:
        yield from records
    except InputError:
        raise
    except Exception as error:  # any library may be reading, and any of its errors means the same to the user
        raise InputError(f"cannot read {data}: {reason_of(error)}: check the file, or name its --format") from error


def _extracted(
    sequences: list[Sequence], extraction: Extraction, decisions: Decisions, skipped: Counter[str] | None
) -> list[Sequence]:
    """The sequences with what is extracted from their references."""
    several = (
        f"--extract {extraction.name} finds different answers in the references of one sequence, and each counts as "
        "right; compare with one reference, such as --reference-column references.0, if only one is"
    )
    kept = []
    for sequence in sequences:
        found = tuple(dict.fromkeys(filter(None, map(extraction.apply, sequence.references))))
        if sequence.references and not found:
            if skipped is None:
                raise InputError(
                    f"sequence {sequence.id!r}: --extract {extraction.name} finds nothing in the reference "
                    f"{sequence.references[0]!r:.120}: correct the pattern, or leave such rows out with --skip-unusable"
                )
            skipped[f"--extract {extraction.name} finds nothing in the references"] += 1
            continue
        if len(found) > 1:
            decisions.add(several, f"{sequence.id}: {', '.join(map(repr, found)):.80}")
        kept.append(replace(sequence, references=found))
    return kept


def select(sequences: Iterable[Sequence], tasks: tuple[str, ...] = (), limit: int | None = None) -> list[Sequence]:
    """The sequences of `tasks` (empty for all), at most `limit`, in their original order.

    The limit is filled round-robin: the first sequence of each task, then the second of each, and so on.

    Raises:
        InputError: if a task is unknown (lists the known ones), or the limit is below 1.
    """
    check_list(tasks, "tasks")
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
    taken = islice((position for position in turns if position is not None), min(limit, len(sequences)))
    return [sequences[position] for position in sorted(taken)]


def _records(
    data: str, reference_files: tuple[str, ...], columns: Columns, layout: Layout, decisions: Decisions
) -> Iterator[Record]:
    reader, colon, rest = data.partition(":")
    if colon and reader in plugins(READERS):
        return _read_by(reader, rest)
    if reference_files:
        return _aligned_records(data, reference_files, layout, decisions)
    if data in BUNDLED:
        if given := _file_options(layout):
            raise InputError(f"{given[0]} is for files of your own, not for the bundled {data!r}: leave it out")
        path = bundled_path(data)
    elif _is_file(data):
        path = Path(data)
    elif looks_like_hub_name(data) or _is_folder(data):
        if given := _file_options(layout):
            raise InputError(f"{given[0]} is for files, not for the data set {data!r}: leave it out")
        return read_hub(data, decisions, nearest_hint(data, BUNDLED))
    else:
        raise _no_such_file(data)
    return read_file(
        Source(path=path, layout=layout, wanted=columns.needed, is_record=columns.fit, decisions=decisions)
    )


def _read_by(reader: str, rest: str) -> Iterator[Record]:
    """The rows that a reader of an installed package gives for what follows its name."""
    rows = load_plugin(READERS, reader)(rest)
    for number, fields in enumerate(rows):
        if not isinstance(fields, Mapping):
            raise InputError(
                f"the reader '{reader}' must give rows that are mappings, but row {number} is {type(fields).__name__}: "
                "correct the package"
            )
        yield Record(where=f"{reader}:{rest} row {number}", fields=fields)


def _file_options(layout: Layout) -> list[str]:
    """The options given that concern the content of a file."""
    given = {"--format": layout.format != "auto", "--separator": layout.separator, "--records": layout.records}
    return [option for option, value in given.items() if value]


def _is_file(data: str) -> bool:
    try:
        return Path(data).is_file()
    except OSError:  # path too long, or in an unreadable folder
        return False


def _is_folder(data: str) -> bool:
    """Whether a text names a folder, with or without the `:config:split` of a datasets name."""
    return is_folder(data.partition(":")[0])


def _aligned_records(
    data: str, reference_files: tuple[str, ...], layout: Layout, decisions: Decisions
) -> Iterator[Record]:
    if data in BUNDLED or format_of(Path(data), layout) != "text":
        raise InputError(
            f"reference files need a text file with one prompt per line, not {data}: name its --reference-column "
            "instead"
        )
    for file in (data, *reference_files):
        if not _is_file(file):
            raise _no_such_file(file)
    for file in reference_files:
        if (kind := format_of(Path(file), _DEFAULT_LAYOUT)) != "text":
            raise InputError(
                f"--reference-file needs plain text with one reference per line, not {file} ({kind.upper()}): write "
                "its references as text, or give data with a reference column"
            )
    return read_aligned(Path(data), tuple(Path(file) for file in reference_files), decisions)


def _no_such_file(data: str) -> InputError:
    return InputError(
        f"no such file {data!r}{nearest_path(Path(data))}; give a JSONL, JSON, CSV, Parquet or text file, "
        f"a datasets name, or {', '.join(repr(name) for name in BUNDLED)}"
    )


BUNDLED = ("instruct",)
"""Names of the bundled data sets."""

PRESETS = "presets.yaml"
"""Bundled file of the presets of benchmark data sets."""

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
    return bundled_file(f"{name}.jsonl")


def bundled_file(name: str) -> Path:
    """Path of a bundled file.

    Raises:
        InputError: if it is missing.
    """
    for folder in _FOLDERS:
        path = folder / name
        if path.is_file():
            return path
    places = " or ".join(str(folder) for folder in _FOLDERS)
    raise InputError(f"the bundled {name} must be in {places}, but is missing: reinstall layer-oracle")
