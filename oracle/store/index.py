"""The index of a run: every file with its digest, and the versions that wrote it.

A file is announced in the index before it gets its name and confirmed afterwards, so that a process killed in between
leaves the old file or the new one, and either is listed. The index detects edits that do not renew it; it is not a
signature.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from oracle.errors import InputError
from oracle.store.atomic import replace_whole
from oracle.store.provenance import git_commit, versions

__all__ = [
    "GUARD",
    "INDEX",
    "MANIFEST",
    "UNLISTED",
    "Entry",
    "Index",
    "accept_hint",
    "announce",
    "begin_index",
    "confirm",
    "difference",
    "digest",
    "digest_of",
    "drop_entries",
    "index_all",
    "json_text",
    "make_folder",
    "refuse_links",
    "run_of",
]

INDEX, MANIFEST = "index.json", "manifest.json"

GUARD = ".index.lock"

UNLISTED = frozenset({INDEX, GUARD, "lock", "log.jsonl"})
"""Files that change without being written anew; they are no results."""

FORMAT = 1

Files: TypeAlias = dict[str, tuple["Entry", ...]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One version of a file of a run.

    Attributes:
        digest: of its content, see `digest`.
        size: in bytes.
        writer: versions and commit that wrote it.
        announced: whether the writer has not confirmed that the file got its name.
    """

    digest: str
    size: int
    writer: Mapping[str, Any]
    announced: bool = False


@dataclass(frozen=True)
class Index:
    """The files of a run, as listed.

    Attributes:
        folder: the run folder.
        files: path relative to the run -> its entry, or two while the file is replaced.
    """

    folder: Path
    files: Mapping[str, tuple[Entry, ...]]

    @classmethod
    def read(cls, folder: Path) -> "Index | None":
        """The index of a run; None if it has none.

        Raises:
            InputError: if it was changed or cannot be read.
        """
        path = folder / INDEX
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found, own = _own_digest(content), content["digest"]
            if found != own:
                raise ValueError(f"its digest is {found}, but it states {own!r:.40}")
            if content["format"] != FORMAT:
                raise ValueError(f"format: found {content['format']!r:.40}, expected {FORMAT}")
            writers = content["writers"]
            files = {
                name: tuple(
                    Entry(digest=str(digest), size=int(size), writer=dict(writers[writer]), announced=bool(announced))
                    for digest, size, writer, *announced in versions
                )
                for name, versions in content["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise InputError(f"'{path}' is damaged ({' '.join(str(error).split())}); {accept_hint(folder)}") from error
        return cls(folder, files)

    def difference(self, name: str, data: bytes | None = None) -> str | None:
        """How a file differs from its entry; None if it does not.

        Args:
            name: path relative to the run.
            data: its content, if already read.
        """
        if name not in self.files:
            return f"it is not listed in {INDEX}"
        expected = [entry.digest for entry in self.files[name]]
        try:
            found = digest(self.folder / name) if data is None else digest_of(data)
        except OSError as error:
            return error.strerror or "it cannot be read"
        return None if found in expected else f"its digest is {found}, but {INDEX} lists {' or '.join(expected)}"

    def missing(self) -> list[str]:
        """Files that are listed, were confirmed, and do not exist."""
        return [
            name
            for name, entries in self.files.items()
            if not all(entry.announced for entry in entries) and not (self.folder / name).is_file()
        ]


def difference(path: Path) -> str | None:
    """How a file differs from the index of its run; None if it does not, or there is no run or no index.

    Raises:
        InputError: if the index was changed or cannot be read.
    """
    run = run_of(path)
    index = Index.read(run) if run else None
    return index.difference(_relative(path, index.folder)) if index else None


def digest(path: Path) -> str:
    """Digest of a file's content: 16 hexadecimal digits of BLAKE2b."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def digest_of(data: bytes) -> str:
    """The `digest` of bytes."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def json_text(value: Any) -> str:
    """Indented JSON; a lone half of a surrogate pair, as in file names that are no text, is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def accept_hint(folder: Path) -> str:
    """What to do about a file that nothing computes again."""
    return f"restore it, or accept the run as it is with 'oracle check {folder} --renew'"


def run_of(path: Path) -> Path | None:
    """The innermost run that contains a path, by name; None if there is none."""
    return next(_runs_around(path), None)


def _runs_around(path: Path) -> Iterator[Path]:
    for folder in _absolute(path).parents:
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(manifest, dict) and ("schema_version" in manifest or "kind" in manifest):
            yield folder


def refuse_links(path: Path) -> None:
    """Raises `InputError` if a folder on the way from a run to a path inside it is a link: it may lead anywhere."""
    runs = list(_runs_around(path))
    if not runs:
        return
    for folder in _absolute(path).parents:
        if folder == runs[-1]:
            return
        if folder.is_symlink():
            raise InputError(
                f"'{folder}' is a link inside the run '{runs[-1]}', which is not followed for writing; replace it by a "
                "folder, or name an output outside the run"
            )


def make_folder(path: Path) -> None:
    """Creates a folder and the folders above it; links inside a run are refused."""
    refuse_links(path / MANIFEST)
    path.mkdir(parents=True, exist_ok=True)


def begin_index(folder: Path, manifest: str) -> None:
    """Writes the index of a new run, which lists its manifest before that is written."""
    data = manifest.encode("utf-8")
    _write(folder, {MANIFEST: (Entry(digest=digest_of(data), size=len(data), writer=_writer()),)})


def announce(path: Path, content: Path, folder: Path) -> None:
    """Lists a file that is about to get its name, beside the version that it replaces; see the module.

    Args:
        path: the file.
        content: where its content is now.
        folder: the run; nothing happens if it has no index.
    """
    new = replace(_entry(content), announced=True)
    _change(folder, lambda files: files | {_relative(path, folder): (*files.get(_relative(path, folder), ()), new)})


def confirm(paths: Iterable[Path], folder: Path) -> None:
    """Lists files as they are now; nothing happens if the run has no index."""
    new = {_relative(path, folder): (_entry(path),) for path in paths}
    _change(folder, lambda files: files | new)


def drop_entries(paths: Iterable[Path], folder: Path) -> None:
    """Removes files from the index of a run; nothing happens if it has none."""
    names = {_relative(path, folder) for path in paths}
    _change(folder, lambda files: {name: entries for name, entries in files.items() if name not in names})


def index_all(folder: Path) -> None:
    """Writes an index of all files of a run, whether they were listed or not."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    named = {_relative(path, folder): path for path in found}
    _write(
        folder,
        {name: (_entry(path),) for name, path in named.items() if name not in UNLISTED and not _is_aside(name)},
    )


def _is_aside(name: str) -> bool:
    return name.endswith((".damaged", ".oracle.tmp"))


def _change(folder: Path, change: Callable[[Files], Files]) -> None:
    if not (folder / INDEX).exists():
        return
    with _guarded(folder):
        index = Index.read(folder)
        files = dict(index.files) if index else {}
        if (changed := change(files)) != files:
            _write(folder, changed)


def _entry(path: Path) -> Entry:
    return Entry(digest=digest(path), size=path.stat().st_size, writer=_writer())


def _write(folder: Path, files: Mapping[str, tuple[Entry, ...]]) -> None:
    writers: list[Mapping[str, Any]] = []
    rows: dict[str, list[Any]] = {}
    for name, entries in sorted(files.items()):
        for entry in entries:
            if entry.writer not in writers:
                writers.append(entry.writer)
            row = [entry.digest, entry.size, writers.index(entry.writer), *[True] * entry.announced]
            rows.setdefault(name, []).append(row)
    content: dict[str, Any] = {"format": FORMAT, "files": rows, "writers": writers}
    content["digest"] = _own_digest(content)
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True) + "\n"
    replace_whole(folder / INDEX, lambda scratch: scratch.write_text(text, encoding="ascii"))


def _own_digest(content: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != "digest"}
    return digest_of(json.dumps(rest, sort_keys=True, allow_nan=False).encode())


@cache
def _writer() -> Mapping[str, Any]:
    return {"versions": versions(), "commit": git_commit()}


@contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """Excludes other writers of the index."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(folder / GUARD, flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _relative(path: Path, folder: Path) -> str:
    return _absolute(path).relative_to(_absolute(folder)).as_posix()


def _absolute(path: Path) -> Path:
    """The absolute path; links are resolved only if it contains `..`, which has no meaning by name."""
    return path.absolute() if ".." not in path.parts else path.parent.resolve() / path.name
