"""The folder of a study: its settings, one checkpoint per arm, and the tables."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from oracle.errors import InputError
from oracle.skiplayer.config import SkipConfig
from oracle.skiplayer.results import Results
from oracle.skiplayer.text import Corpus
from oracle.store import check_free, git_commit, versions
from oracle.store.derived import DerivedTables, key_of
from oracle.store.files import make_folder, write_json
from oracle.store.lock import Lock

__all__ = ["Folder"]

KIND = "skiplayer study"

MANIFEST, SUMMARY = "manifest.json", "summary.json"


@dataclass(frozen=True)
class Folder:
    """A study on disk.

    Attributes:
        path: the folder.
        config: its settings.
        manifest: settings, text, versions, commit, seed.
    """

    path: Path
    config: SkipConfig
    manifest: dict[str, Any]

    @classmethod
    def create(cls, path: Path, config: SkipConfig, corpus: Corpus) -> "Folder":
        """Creates the folder of a new study.

        Raises:
            InputError: if the folder is not empty or cannot be written.
        """
        if cls._is_unfinished(path):
            raise InputError(
                f"'{path}' already exists; continue the unfinished study with --resume {path}, choose another --out or "
                "delete it"
            )
        check_free(path)
        manifest = {
            "kind": KIND,
            "config": config.to_dict(),
            "text": {
                "source": corpus.source,
                "digest": corpus.digest,
                "train_tokens": len(corpus.train),
                "held_out_tokens": len(corpus.held_out),
            },
            "versions": versions(),
            "commit": git_commit(),
            "seed": config.seed,
        }
        try:
            make_folder(path)
            write_json(path / MANIFEST, manifest)
        except OSError as error:
            raise InputError(f"cannot write to '{path}' ({error.strerror}); give another --out") from error
        return cls(path, config, manifest)

    @classmethod
    def open(cls, path: Path) -> "Folder":
        """Opens an existing study.

        Raises:
            InputError: if there is none, or this version does not support its settings.
        """
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
                raise ValueError("it is of another kind")
            settings = dict(manifest["config"])
            _ = manifest["text"]["digest"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the folder of a SkipLayer study is required, but '{path}' has no readable {MANIFEST} of one "
                f"({error}); give the --out of 'oracle skiplayer'"
            ) from error
        return cls(path, SkipConfig.from_dict(settings), manifest)

    @classmethod
    def _is_unfinished(cls, path: Path) -> bool:
        try:
            cls.open(path)
        except InputError:
            return False
        return not (path / SUMMARY).exists()

    def check_text(self, corpus: Corpus) -> None:
        """Checks that the text is the one that the study started with.

        Raises:
            InputError: if it has changed.
        """
        if corpus.digest != self.manifest["text"]["digest"]:
            raise InputError(
                f"'{self.path}' was trained on other text ({self.manifest['text']['source']}) than the current one "
                f"({corpus.source}); use the same files and the same Python, or start a new study"
            )

    def checkpoint(self, arm: str, seed: int = 0, layers: int | None = None) -> Path:
        """Path of the checkpoint of an arm's training, by the number of its seed and, if it has one, its own depth."""
        depth = "" if layers is None else f"-{layers}"
        return self.path / f"{arm}{depth}{f'-seed{seed}' if seed else ''}.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder against other writers."""
        lock = Lock(self.path / "lock")
        try:
            yield
        finally:
            lock.release()

    def write(self, results: Results) -> None:
        """Writes the tables, each with its provenance, and a summary."""
        tables = DerivedTables(self.path, key=key_of(self.manifest), origin=self.manifest)
        for name, frame in results.frames().items():
            tables.write(name, pa.Table.from_pandas(frame, preserve_index=False))
        arms = json.loads(results.arms.to_json(orient="records"))
        numbers = {"density_error": results.density_error, "dense_extrapolated": results.extrapolated}
        write_json(self.path / SUMMARY, {**numbers, "arms": arms, **self.manifest})
