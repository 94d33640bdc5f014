"""Records from files: the format and the compression go by the suffix, unless the format is named."""

import bz2
import codecs
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from oracle.errors import InputError
from oracle.sequences.delimited import read_csv, read_tsv
from oracle.sequences.floats import shortest_floats
from oracle.sequences.json_files import IsRecord, read_json, read_jsonl
from oracle.sequences.labels import named_labels
from oracle.sequences.layout import Layout
from oracle.sequences.notation import json_kind
from oracle.sequences.records import Decisions, Record

__all__ = ["FORMAT_OF_SUFFIX", "Source", "format_of", "read_aligned", "read_file"]

FORMAT_OF_SUFFIX = {
    ".jsonl": "jsonl",
    ".jl": "jsonl",
    ".jsonlines": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".text": "text",
    "": "text",
}
"""Suffix of a file -> one of `FORMATS`; other suffixes, such as `.en`, are plain text as well."""

_UNREADABLE = frozenset(
    (
        *(".xlsx", ".xls", ".ods", ".docx", ".pdf", ".html", ".xml", ".yaml", ".yml"),
        *(".zip", ".tar", ".tgz", ".7z", ".rar", ".pkl", ".pickle", ".pt", ".npy", ".npz", ".db", ".sqlite"),
    )
)


def _unpack_zst(data: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        return bytes(stream.read())


_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": _unpack_zst,
}

_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
}

# The longest marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data file with what decides how it is read.

    Attributes:
        path: the file.
        layout: how it is read where its suffix does not say.
        wanted: names of columns that the sequences need.
        is_record: whether an object has the columns of a sequence itself.
        decisions: what was decided by rule.
    """

    path: Path
    layout: Layout
    wanted: set[str]
    is_record: IsRecord
    decisions: Decisions

    def text(self) -> str:
        """The content as text, decompressed."""
        return _decode(self.path, _bytes(self.path), self.decisions)


def _suffixes(path: Path) -> tuple[str, str]:
    """Suffix of the data and suffix of its compression, both in lower case and perhaps empty."""
    packing = path.suffix.lower()
    if packing in _DECOMPRESS:
        return Path(path.stem).suffix.lower(), packing
    return packing, ""


def format_of(path: Path, layout: Layout) -> str:
    """One of `FORMATS` other than `auto`.

    Raises:
        InputError: if the suffix is that of a format which cannot be read.
    """
    suffix, _ = _suffixes(path)
    if layout.format != "auto":
        return layout.format
    found = FORMAT_OF_SUFFIX.get(suffix, "text")
    for option, value, kind in (("--separator", layout.separator, "csv"), ("--records", layout.records, "json")):
        if value is None:
            continue
        if found not in (kind, "text") and (found, kind) != ("tsv", "csv"):
            raise InputError(f"{option} is for {kind.upper()}, not for {path}: leave it out, or add --format {kind}")
        return kind
    if suffix in _UNREADABLE:
        raise InputError(
            f"{path} must be JSON lines, JSON, CSV, TSV, Parquet, Arrow or text, not {suffix}: export it to one of "
            "them, or name the format with --format"
        )
    return found


def _bytes(path: Path) -> bytes:
    """Content of a file, decompressed by its suffix."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}: make it readable, or name another") from None
    _, packing = _suffixes(path)
    if not packing:
        found = next((suffix for magic, suffix in _MAGIC.items() if raw.startswith(magic)), None)
        if found:
            remedy = f"rename it to {path.name}{found}" if found in _DECOMPRESS else "unpack it"
            raise InputError(f"{path} is compressed, which its suffix does not say ({found}): {remedy}")
        return raw
    try:
        return _DECOMPRESS[packing](raw)
    except (OSError, EOFError, ValueError, lzma.LZMAError, pa.ArrowException, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path} must be compressed as its suffix {packing} says: {reason}: compress it again"
        ) from None


def _decode(path: Path, raw: bytes, decisions: Decisions) -> str:
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    if encoding != "utf-8":
        decisions.add(f"the file is read as {encoding.upper()}, by its byte order mark", rows=0)
    try:
        text = raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        # Positions exclude a byte order mark, as does error.object.
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} line {line} must be {encoding.upper()}, but has byte 0x{error.object[error.start]:02x} "
            f"({error.reason}): save the file as UTF-8"
        ) from None
    return _checked(path, text, decisions)


def _checked(path: Path, text: str, decisions: Decisions) -> str:
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise InputError(f"{path} line {line} must be text, but has a zero byte, as in UTF-16: save the file as UTF-8")
    if "\r" in text and "\n" not in text:
        decisions.add("carriage returns end the lines, as there are no line feeds", rows=0)
        return text.replace("\r", "\n")
    return text


def read_file(source: Source) -> Iterator[Record]:
    """The records of a file.

    JSON lines: one object per line. JSON: an array of objects, or records under a key. CSV: a header line, cells quoted
    with `"`, the separator found in the file. TSV: a header line, tabs and line ends, no quotes. Parquet and Arrow:
    nested columns allowed, class labels by name. Text: one prompt per line. Text is UTF-8, or what a byte order mark
    says.

    Raises:
        InputError: if the file cannot be read; names the line or row and the reason.
    """
    path, kind = source.path, format_of(source.path, source.layout)
    if kind == "jsonl":
        return read_jsonl(path, source.text())
    if kind == "json":
        return read_json(path, source.text(), source.layout.records, source.is_record, source.decisions)
    if kind == "csv":
        return read_csv(path, source.text(), source.layout.delimiter, source.wanted, source.decisions)
    if kind == "tsv":
        return read_tsv(path, source.text(), source.decisions)
    if kind in ("parquet", "arrow"):
        return _read_columnar(path, kind, source.decisions)
    return _read_text(source)


def _read_columnar(path: Path, kind: str, decisions: Decisions) -> Iterator[Record]:
    data = pa.BufferReader(_bytes(path))
    try:
        table = pq.read_table(data) if kind == "parquet" else _read_arrow(data)
        rows = [*map(shortest_floats(table.schema), table.to_pylist())]
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        name = "a Parquet file" if kind == "parquet" else "an Arrow file"
        raise InputError(f"{path} must be {name}: {reason}: write it again, or name its --format") from None
    rename = named_labels(_stored_features(table.schema), str(path), decisions)
    for number, fields in enumerate(rows):
        yield Record(where=f"{path} row {number}", fields=rename(fields))


def _read_arrow(data: pa.BufferReader) -> pa.Table:
    """An Arrow table: a file or, as `datasets` writes it, a stream."""
    try:
        return pa.ipc.open_stream(data).read_all()
    except pa.ArrowInvalid:
        data.seek(0)
        return feather.read_table(data)


def _stored_features(schema: pa.Schema) -> Any:
    """The features that `datasets` writes beside a table, as JSON values."""
    try:
        return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}


def _read_text(source: Source) -> Iterator[Record]:
    path, text = source.path, source.text()
    lines = [line for line in text.split("\n") if line.strip()]
    if source.layout.format == "auto":
        if lines and all(json_kind(line) == "object" for line in lines):
            raise InputError(
                f"{path} can be read as JSON lines, as each line is a JSON object, or as plain text, by its suffix: "
                "decide with --format jsonl or --format text"
            )
        if len(lines) > 1 and all("\t" in line for line in lines):
            rule = "tabs are part of the prompts, as the file is plain text (--format tsv reads cells)"
            source.decisions.add(rule, f"{path} line 1", rows=len(lines))
        suffix, _ = _suffixes(path)
        if suffix not in FORMAT_OF_SUFFIX:
            rule = f"the file is plain text, one prompt per line, as its suffix {suffix} names no other format"
            source.decisions.add(f"{rule} (--format decides)", rows=0)
    return _aligned(path, text, {})


def read_aligned(path: Path, references: tuple[Path, ...], decisions: Decisions) -> Iterator[Record]:
    """The records of a plain text file with one prompt per line, and of reference files aligned with it.

    Args:
        path: the prompts: column `prompt`.
        references: files with the same number of lines: column `references` has one text from each.
        decisions: what was decided by rule.

    Raises:
        InputError: if a file cannot be read, or the numbers of lines differ.
    """
    texts = {file: _decode(file, _bytes(file), decisions) for file in dict.fromkeys((path, *references))}
    return _aligned(path, texts[path], {reference: texts[reference] for reference in references})


def _lines(text: str) -> list[str]:
    """The lines of a text, split at line feeds only, as tools for aligned files do."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _aligned(path: Path, text: str, references: dict[Path, str]) -> Iterator[Record]:
    prompts = _lines(text)
    aligned = {reference: _lines(content) for reference, content in references.items()}
    for reference, lines in aligned.items():
        if len(lines) != len(prompts):
            raise InputError(
                f"{path} and {reference} must have the same number of lines, not {len(prompts)} and {len(lines)}: "
                "align them line by line"
            )
    for number, prompt in enumerate(prompts):
        texts = [lines[number] for lines in aligned.values()]
        yield Record(where=f"{path} line {number + 1}", fields={"prompt": prompt, "references": texts})
