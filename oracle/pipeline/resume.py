"""What a run has found so far: where its own search goes on, or that of a later run begins."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.store import Run, outcomes_of
from oracle.types import Outcome, Sequence
from oracle.utils.devices import AUTO

__all__ = ["KnownOutcomes", "differences", "with_dtype_of"]

FREE_TO_CHANGE = ("batch_rows", "memory", "device")
"""Settings that make no difference to what is found, rounding aside."""

SHARED = ("scope", "unit", "max_new_tokens", "chat_template", "paths", "metrics", "seed")
"""Settings, beside the dtype, that a run and the one it goes on from have to share, so that their outcomes are of one
kind."""


@dataclass(frozen=True)
class KnownOutcomes:
    """The outcomes of a run, and how its searches ended.

    Attributes:
        run: where they are.
        evaluations: as `Run.evaluations` gives them, of sequences that have not ended too.
        certificates: as `Run.certificates` gives them.
    """

    run: Run
    evaluations: pd.DataFrame
    certificates: pd.DataFrame

    @classmethod
    def read(cls, run: Run) -> "KnownOutcomes":
        """Reads all that is there and whole."""
        return cls(run, run.evaluations(whole=False), run.certificates())

    @property
    def complete(self) -> bool:
        """Whether the search has ended and nothing of it is missing."""
        return self.run.complete and len(self.exhausted) == len(self.run.sequences())

    @cached_property
    def _rows(self) -> Mapping[Any, pd.DataFrame]:
        return dict(iter(self.evaluations.groupby("sequence", sort=False)))

    def outcomes(self, sequence: str) -> list[tuple[int, Outcome]]:
        """The outcomes of a sequence with their numbers."""
        return outcomes_of(self._rows[sequence]) if sequence in self._rows else []

    @cached_property
    def exhausted(self) -> dict[str, int]:
        """By sequence, for those that have ended and whose evaluations are all there, what `Ended.exhausted` says."""
        counts = self.evaluations["sequence"].value_counts()
        table = self.certificates
        whole = counts.reindex(table["sequence"], fill_value=0).to_numpy() >= table["evaluations"].to_numpy()
        return dict(zip(table.loc[whole, "sequence"], table.loc[whole, "exhausted"].astype(int), strict=True))

    def split(self) -> tuple["KnownOutcomes | None", "KnownOutcomes"]:
        """The outcomes that came from an earlier run, and those of this one."""
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
        """What another run may begin with: the sequences that are the same.

        Raises:
            InputError: if its outcomes are of another kind; names the first difference.
        """
        mine, theirs = self.run.manifest, SearchConfig.from_dict(dict(manifest["config"]))
        stored = SearchConfig.from_dict(mine["config"])
        # Before the fingerprint, which another dtype changes too.
        self._require("dtype", stored.dtype, theirs.dtype)
        self._require("model", mine["model"]["fingerprint"], manifest["model"]["fingerprint"])
        if theirs.model_metrics:
            # The null's likelihoods depend on which sequences there are.
            self._require("data", mine["data"]["hash"], manifest["data"]["hash"])
        for name in SHARED:
            self._require(name.replace("_", " "), getattr(stored, name), getattr(theirs, name))
        if lacking := [name for name in theirs.quality_columns if name not in self.evaluations.columns]:
            raise InputError(f"'{self.run.folder}' has no values of {lacking[0]}, which this search needs")
        rows = self.run.sequences()[["sequence", "prompt", "references"]].itertuples(index=False)
        there = {(name, prompt, tuple(references)) for name, prompt, references in rows}
        same = {one.id for one in sequences if (one.id, one.prompt, one.references) in there}
        proofs = (stored.criterion, stored.tolerance) == (theirs.criterion, theirs.tolerance)
        certificates = self.certificates[self.certificates["sequence"].isin(same) & proofs]
        return KnownOutcomes(self.run, self.evaluations[self.evaluations["sequence"].isin(same)], certificates)

    def _require(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            raise InputError(
                f"'{self.run.folder}' has the {what} {found}: to go on from it the same is required, not {expected}"
            )


def with_dtype_of(run: Run, config: SearchConfig) -> SearchConfig:
    """The config with the dtype of a run that it goes on with, where it leaves the dtype to `auto`."""
    if config.dtype != AUTO:
        return config
    return replace(config, dtype=SearchConfig.from_dict(run.manifest["config"]).dtype)


def differences(found: SearchConfig, expected: SearchConfig) -> list[str]:
    """Settings that matter and differ, in words."""
    mine, theirs = found.to_dict(), expected.to_dict()
    return [
        f"{name.replace('_', ' ')} {theirs[name]} rather than {mine[name]}"
        for name in mine
        if name not in FREE_TO_CHANGE and mine[name] != theirs[name]
    ]
