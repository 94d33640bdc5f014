"""The stored outcomes of a run, from which its own search resumes or a later run starts."""

from collections.abc import Hashable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.metrics import get_metric
from oracle.settings import entries
from oracle.store import Run, outcomes_of
from oracle.store.schema import sequence_of
from oracle.types import Outcome, Sequence
from oracle.utils.devices import AUTO
from oracle.utils.text import shown

__all__ = ["FREE_TO_CHANGE", "KnownOutcomes", "authorised", "differences", "with_dtype_of"]

FREE_TO_CHANGE = ("batch_rows", "memory", "device", "study", "trust_remote_code")
"""Settings that do not change the outcomes, apart from rounding."""

FILE_STORAGE = "sqlite:///"

SHARED = (
    "scope",
    "unit",
    "max_new_tokens",
    "chat_template",
    "system",
    "template_args",
    "stop",
    "generation_config",
    "paths",
    "metrics",
    "extract",
    "seed",
)
"""Settings, besides the dtype, that a run must share with the run it starts from, so that outcomes are comparable."""

OF_CHOICES = ("choice_score", "target_delimiter")
"""The same, where choices are scored."""


@dataclass(frozen=True)
class KnownOutcomes:
    """The outcomes and certificates of a run.

    Attributes:
        run: the run.
        evaluations: as `Run.evaluations` returns them, including those of unfinished sequences.
        certificates: as `Run.certificates` returns them.
    """

    run: Run
    evaluations: pd.DataFrame
    certificates: pd.DataFrame

    @classmethod
    def read(cls, run: Run) -> "KnownOutcomes":
        """Reads every undamaged part."""
        return cls(run, run.evaluations(whole=False), run.certificates())

    @property
    def complete(self) -> bool:
        """Whether the search has ended, none of its outcomes is missing, and its results are as they were written."""
        return self.run.intact and len(self.exhausted) == len(self.run.sequences())

    @cached_property
    def _rows(self) -> Mapping[Any, pd.DataFrame]:
        return dict(iter(self.evaluations.groupby("sequence", sort=False)))

    def outcomes(self, sequence: str) -> list[tuple[int, Outcome]]:
        """The numbered outcomes of a sequence."""
        return outcomes_of(self._rows[sequence]) if sequence in self._rows else []

    @cached_property
    def exhausted(self) -> dict[str, int]:
        """`Ended.exhausted` per sequence that has ended and has all its evaluations."""
        counts = self.evaluations["sequence"].value_counts()
        table = self.certificates
        whole = counts.reindex(table["sequence"], fill_value=0).to_numpy() >= table["evaluations"].to_numpy()
        return dict(zip(table.loc[whole, "sequence"], table.loc[whole, "exhausted"].astype(int), strict=True))

    def split(self) -> tuple["KnownOutcomes | None", "KnownOutcomes"]:
        """The outcomes taken over from an earlier run (None without one), and this run's own."""
        if not self.run.manifest.get("continues"):
            return None, self
        prior = self.run.table("prior").set_index("sequence")
        counts = prior["evaluations"].reindex(self.evaluations["sequence"]).to_numpy()
        early = self.evaluations["number"].to_numpy() < counts
        return (
            KnownOutcomes(self.run, self.evaluations[early], prior.reset_index()),
            KnownOutcomes(self.run, self.evaluations[~early], self.certificates),
        )

    def begin(self, manifest: Mapping[str, Any], sequences: Seq[Sequence]) -> "KnownOutcomes":
        """The outcomes from which another run can start: those of the sequences that both runs share.

        Raises:
            InputError: if the outcomes of the runs are not comparable; names the first difference.
        """
        mine, theirs = self.run.manifest, SearchConfig.from_dict(dict(manifest["config"]))
        stored = SearchConfig.from_dict(mine["config"])
        # First, because the dtype also changes the fingerprint.
        self._require("dtype", stored.dtype, theirs.dtype)
        self._require("model", mine["model"]["fingerprint"], manifest["model"]["fingerprint"])
        if any(get_metric(name).null_stored or get_metric(name).kind == "choice" for name in theirs.asked_metrics):
            # The null's values depend on the other sequences.
            self._require("data", (mine.get("data") or {}).get("hash"), manifest["data"]["hash"])
        for name in (*SHARED, *(OF_CHOICES if "choice_accuracy" in theirs.asked_metrics else ())):
            self._require(name.replace("_", " "), getattr(stored, name), getattr(theirs, name))
        if "generation" in mine:
            for name in ("honoured", "end_tokens"):
                kind = f"generation settings ({name.replace('_', ' ')})"
                self._require(kind, mine["generation"].get(name), manifest["generation"][name])
        if lacking := [name for name in theirs.quality_columns if name not in self.evaluations.columns]:
            raise InputError(
                f"'{self.run.folder}' has no values of {lacking[0]}, which this search needs; start a new run"
            )
        template = "template_digest"
        if (digest := (mine.get("prompts") or {}).get(template)) is not None:
            self._require("chat template digest", digest, manifest["prompts"][template])
        known = {row["sequence"]: row for row in self.run.sequences().to_dict("records")}
        same = {one.id for one in sequences if one.id in known and _comparable(known[one.id], one)}
        proofs = (stored.criterion, stored.tolerance) == (theirs.criterion, theirs.tolerance)
        certificates = self.certificates[self.certificates["sequence"].isin(same) & proofs]
        # What was dropped as hopeless under one criterion may qualify under another.
        counts = self.evaluations["sequence"].isin(same) & (proofs | ~self.evaluations["dropped"])
        return KnownOutcomes(self.run, self.evaluations[counts], certificates)

    def _require(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            raise InputError(
                f"'{self.run.folder}' has the {what} {shown(found)}: a search that starts from it needs that, not "
                f"{shown(expected)}"
            )


def _comparable(row: Mapping[Hashable, Any], other: Sequence) -> bool:
    """Whether the outcomes of a stored sequence hold for another: same prompt as the model reads it and references."""
    stored = sequence_of(row)
    if (stored.asked, stored.references) != (other.asked, other.references):
        return False
    if stored.rendered is None or other.rendered is None:
        return other.rendered is None or row["prompt_tokens"] == len(other.rendered.ids)
    return stored.rendered.ids == other.rendered.ids


def authorised(run: Run, given: Mapping[str, Any]) -> SearchConfig:
    """The settings of a stored run with those given, where the run itself cannot allow code or name places to write.

    Args:
        run: a run, whose manifest is data from anywhere.
        given: the caller's settings.

    Raises:
        InputError: if code shipped with a model is allowed but the model is not named, or trials would be stored
            outside the run without being asked for.
    """
    config = SearchConfig.from_dict(run.manifest["config"])
    if given.get("trust_remote_code") and "model" not in given:
        raise InputError(
            f"--trust-remote-code needs --model too: code runs only of a model named on the command line, and the "
            f"run '{run.folder}' names '{config.model}'; add --model if you trust that one"
        )
    if config.study and "study" not in given and not _is_inside(config.study, run.folder):
        raise InputError(
            f"the run '{run.folder}' stores trials outside its folder, in '{config.study}'; add --study "
            f"'{config.study}' to confirm that, or give another storage"
        )
    return replace(replace(config, trust_remote_code=False), **given)


def _is_inside(storage: str, folder: Path) -> bool:
    """Whether an optuna storage is a file in a folder."""
    if not storage.startswith(FILE_STORAGE):
        return False
    path = Path(storage.removeprefix(FILE_STORAGE).partition("?")[0])
    return path.resolve().is_relative_to(folder.resolve())


def with_dtype_of(run: Run, config: SearchConfig) -> SearchConfig:
    """The config with the dtype `auto` replaced by the dtype of the run that it continues."""
    if config.dtype != AUTO:
        return config
    return replace(config, dtype=SearchConfig.from_dict(run.manifest["config"]).dtype)


def differences(found: SearchConfig, expected: SearchConfig) -> list[str]:
    """Descriptions of the settings that differ and affect the outcomes."""
    mine, theirs = ({name: value for _, name, value in entries(one.to_dict())} for one in (found, expected))
    return [
        f"{name.replace('_', ' ')} {shown(theirs[name])} rather than {shown(mine[name])}"
        for name in mine
        if name not in FREE_TO_CHANGE and mine[name] != theirs[name]
    ]
