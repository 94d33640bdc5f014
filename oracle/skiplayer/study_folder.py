"""The folder of a study: its settings, a checkpoint an arm, and the tables in the end."""

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
from oracle.store.files import write_json
from oracle.store.lock import Lock

__all__ = ["Folder"]

KIND = "skiplayer study"

MANIFEST, SUMMARY = "manifest.json", "summary.json"


@dataclass(frozen=True)
class Folder:
    """A study on disk.

    Attributes:
        path: where it is.
        config: its settings.
        manifest: settings, text, versions, commit, seed.
    """

    path: Path
    config: SkipConfig
    manifest: dict[str, Any]

    @classmethod
    def create(cls, path: Path, config: SkipConfig, corpus: Corpus) -> "Folder":
        """Begins a study.

        Raises:
            InputError: if something is there already.
        """
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
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / MANIFEST, manifest)
        except OSError as error:
            raise InputError(f"cannot write to '{path}' ({error.strerror}); give another --out") from error
        return cls(path, config, manifest)

    @classmethod
    def open(cls, path: Path) -> "Folder":
        """Opens a study that was begun.

        Raises:
            InputError: if there is none, or one of other settings than this version knows.
        """
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
                raise ValueError("it is something else")
            settings = dict(manifest["config"])
            _ = manifest["text"]["digest"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the folder of a SkipLayer study is required, but '{path}' has no readable {MANIFEST} of one "
                f"({error}); give the --out of 'oracle skiplayer'"
            ) from error
        return cls(path, SkipConfig.from_dict(settings), manifest)

    def check_text(self, corpus: Corpus) -> None:
        """Makes sure that the text is the one that the study began with.

        Raises:
            InputError: if not.
        """
        if corpus.digest != self.manifest["text"]["digest"]:
            raise InputError(
                f"'{self.path}' was trained on other text ({self.manifest['text']['source']}) than is there now "
                f"({corpus.source}); give the same files and the same Python, or begin anew"
            )

    def checkpoint(self, arm: str) -> Path:
        """Where an arm's training is kept."""
        return self.path / f"{arm}.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other writers out."""
        lock = Lock(self.path / "lock")
        try:
            yield
        finally:
            lock.release()

    def write(self, results: Results) -> None:
        """Writes the tables, each with where it comes from, and a summary."""
        tables = DerivedTables(self.path, key=key_of(self.manifest), origin=self.manifest)
        for name, frame in results.frames().items():
            tables.write(name, pa.Table.from_pandas(frame, preserve_index=False))
        arms = json.loads(results.arms.to_json(orient="records"))
        write_json(self.path / SUMMARY, {"density_error": results.density_error, "arms": arms, **self.manifest})
