"""Rarity: the share of the masks of each size that meet the criterion, from masks drawn at random.

A certificate proves that no smaller mask works, as far up as every mask could be tested. Above that, random masks tell
how many of the others work at most: a statistical statement, never a proof, since a share of 1 % of the 155 million
masks of 15 of 30 layers is still a million masks.

Which masks count. Only those that a search draws uniformly over the masks of a size, regardless of outcomes: strategy
`random`, and family `random` of strategy `spread`. They are drawn without replacement, at every size, among the masks
that are not unified skipping or early exit (in `spread`, which tries these first). The others of a run are no sample:
they were chosen by their outcomes. Those two named masks of a size, and all masks of sizes that the search exhausted,
are known one by one and count as themselves, so that a share is of *all* masks of its size. A run that starts from
another one (`--from`) is no sample either, since it skips what that one kept.

Outputs that the search dropped (`--prune`) could not meet the run's own criterion: they count as failed, under that
criterion or a smaller tolerance. Otherwise, and against shuffled references, their quality is unknown: then no share is
stated, and its interval allows for both.

Intervals are Clopper and Pearson's (1934), exact for independent draws; drawing without replacement only narrows the
distribution, so that they are slightly too wide. Masks that were tested narrow them further: where every mask of a size
is known, both ends are the share. In shapes, X is the sizes 0..L, in units.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import pandas as pd

from analysis.display import Shown
from analysis.experiment import Experiment, InputError, as_experiment
from analysis.formatting import percent
from analysis.grouping import BoolArray, FloatArray, allocation_keys
from analysis.luck.null_oracle import derangements
from analysis.per_sequence.savings import budgets
from analysis.stats import CONFIDENCE, mean_interval
from oracle.metrics import qualifies
from oracle.types import RunPath

__all__ = ["REMEDY", "Rarity", "one_unit_below", "random_masks", "rarity", "statement"]

RANDOM = "random"
"""Family of the masks drawn uniformly."""

NAMED = ("full", "unified", "early-exit")
"""Families tried before any mask is drawn, regardless of outcomes. The other family of such a run, `proof`, holds those
of the masks tested by `--prove` that met the criterion: no sample of a size that was not exhausted."""

REMEDY = "run `oracle search --strategy spread` (or `random`, without --from) with the same settings first"


@dataclass(frozen=True, kw_only=True, repr=False)
class Rarity(Shown):
    """Shares of the masks of each size that meet the criterion.

    Attributes:
        by_sequence: one row per sequence and size with a random mask, or whose masks are all known: `sequence`; `units`
            (the size); `fraction` (of the model's units); `masks` (number of masks of that size); `known` (those known
            one by one, not drawn); `drawn`; `qualifying` (of the drawn ones); `unknown` (drawn or known ones dropped by
            the search under another criterion); `share` (estimate, NaN if some are unknown); `low` and `high` (95 %
            interval, for each size alone); `at_most` (one-sided 95 % bound that holds for all sizes of the sequence
            together, by Bonferroni's inequality: the one to quote for a size picked after a look at the outcomes);
            `null_share`, `null_low` and `null_high`: share and ends of the interval against shuffled references, means
            over permutations (NaN for a single sequence).
        pooled: the same over the sequences that can tell something, one row per size: `units`, `fraction`, `sequences`,
            `drawn`, `qualifying`, `unknown`, `share`, `low`, `high`, `null_share`, `null_low`, `null_high`. The
            interval is over draws: it is of the mean share over *these* sequences, weighted by their draws, and valid
            although the draws of one sequence belong together, since a sum of unequal chances varies less than a
            binomial (Hoeffding 1956). It says nothing about other sequences: `sequences_low` and `sequences_high` do,
            the 95 % bootstrap interval over sequences of the mean of their shares; NaN for fewer than two. Empty if no
            sequence can tell something.
    """

    by_sequence: pd.DataFrame
    pooled: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Numbers of masks by sequence and size (N X), or summed over sequences (X).

    Attributes:
        total: all masks.
        known, known_hits, known_lost: masks known one by one, those that qualify, those dropped with unknown quality.
        drawn, hits, lost: the same of the masks drawn uniformly among the others.
    """

    total: FloatArray
    known: FloatArray
    known_hits: FloatArray
    known_lost: FloatArray
    drawn: FloatArray
    hits: FloatArray
    lost: FloatArray

    @property
    def seen(self) -> BoolArray:
        """Where there is anything to state."""
        return np.asarray((self.total > 0) & ((self.drawn > 0) | (self.known >= self.total)))

    @property
    def unknown(self) -> FloatArray:
        """Masks with an unknown outcome."""
        return self.lost + self.known_lost

    @property
    def share(self) -> FloatArray:
        """Share of all masks that qualify; NaN where something is unknown or nothing was drawn."""
        chance = np.divide(self.hits, self.drawn, out=np.zeros_like(self.hits), where=self.drawn > 0)
        share = (self.known_hits + (self.total - self.known) * chance) / np.maximum(self.total, 1)
        return np.where(self.seen & (self.unknown == 0), share, np.nan)

    @property
    def open(self) -> BoolArray:
        """Where some masks were drawn and others are not known."""
        return np.asarray((self.drawn > 0) & (self.known + self.drawn < self.total))

    def low(self, error: float) -> FloatArray:
        """Lower bound of the share, wrong with at most this probability."""
        least = self.known_hits + (self.total - self.known) * clopper_pearson_low(self.hits, self.drawn, error)
        return np.maximum(least, self.known_hits + self.hits) / np.maximum(self.total, 1)

    def high(self, error: float | FloatArray) -> FloatArray:
        """Upper bound of the share, wrong with at most this probability."""
        chance = clopper_pearson_high(self.hits + self.lost, self.drawn, error)
        most = self.known_hits + self.known_lost + (self.total - self.known) * chance
        failed = self.known - self.known_hits - self.known_lost + self.drawn - self.hits - self.lost
        return np.minimum(most, self.total - failed) / np.maximum(self.total, 1)

    def summed(self, chosen_N: BoolArray) -> "_Counts":
        """Sums over some sequences, at each size those with anything to state."""
        used_NX = self.seen & chosen_N[:, None]
        return _Counts(**{name: np.where(used_NX, value, 0).sum(axis=0) for name, value in vars(self).items()})


def clopper_pearson_low(hits: FloatArray, draws: FloatArray, error: float | FloatArray) -> FloatArray:
    """Lower end of an exact binomial interval: 0 without a hit."""
    from scipy.special import betaincinv  # slow to import, and not every query needs it

    return np.where(hits > 0, betaincinv(np.maximum(hits, 1), draws - hits + 1, error), 0.0)


def clopper_pearson_high(hits: FloatArray, draws: FloatArray, error: float | FloatArray) -> FloatArray:
    """Upper end of an exact binomial interval: 1 without a miss."""
    from scipy.special import betaincinv

    missed = draws - hits
    return np.where(missed > 0, betaincinv(hits + 1, np.maximum(missed, 1), 1 - np.asarray(error)), 1.0)


def rarity(experiment: RunPath, *, permutations: int = 10, bootstrap: int = 1000) -> Rarity:
    """Share of the masks of each size that meet the criterion; see the module's docstring for which masks count.

    Args:
        experiment: a run of strategy `random` or `spread`. Sizes are numbers of units, whatever cost it is read by.
        permutations: derangements of the references behind the null, those of `analysis.null_oracle`; 0 for none.
        bootstrap: resamples of the sequences; 0 for no such interval.

    Raises:
        InputError: if the run holds no masks drawn uniformly; says how to get them.
    """
    experiment = as_experiment(experiment)
    if not experiment.uniform:
        raise InputError(f"masks drawn at random are required, and this run has none: {REMEDY}")
    tried = _tried(experiment)
    if not tried["random"].any():
        spent = len(experiment.evaluations) // len(experiment.sequences)
        raise InputError(
            f"masks drawn at random are required, but the {spent} evaluations per sequence of this run were spent on "
            "named ones: search again with more --evaluations"
        )
    N = len(experiment.sequences)
    quality_E = experiment.evaluations[experiment.metric].to_numpy(np.float64)
    real = _counts(experiment, tried, _met(experiment, quality_E), fails=experiment.dropped_fail, exhausted=True)
    nulls: list[_Counts] = []
    if N > 1 and permutations > 0:
        partner_PN = derangements(N, experiment.affordable_permutations(permutations), experiment.seed)
        for null_E in experiment.shuffled_quality(partner_PN):
            nulls.append(_counts(experiment, tried, _met(experiment, null_E), fails=False, exhausted=False))
    informative = budgets(experiment).set_index("sequence")["informative"]
    told_N = informative.loc[experiment.sequences["sequence"]].to_numpy(bool)
    return Rarity(
        by_sequence=_by_sequence(experiment, real, nulls),
        pooled=_pooled(experiment, real, nulls, told_N, bootstrap),
    )


def random_masks(experiment: Experiment) -> Rarity | None:
    """`rarity` without null and bootstrap; None if the run holds no masks drawn uniformly."""
    tables = (experiment.evaluations, experiment.dropped)
    if not experiment.uniform or not any((table["family"] == RANDOM).any() for table in tables):
        return None
    return rarity(experiment, permutations=0, bootstrap=0)


def one_unit_below(found: Rarity, minimal: pd.DataFrame) -> pd.DataFrame:
    """The rows of `Rarity.by_sequence` for masks with one unit fewer than the smallest one found.

    Args:
        found: of a run.
        minimal: table of `analysis.minimal_budgets`, in the order of the result.

    Returns:
        One row per sequence, indexed by it; NaN where no mask of that size was drawn, or all of them are known.
    """
    below = minimal[["sequence"]].assign(units=minimal["allocation"].map(len).to_numpy() - 1)
    rows = below.merge(found.by_sequence, on=["sequence", "units"], how="left").set_index("sequence")
    # Where all masks are known there is a proof, which needs no statistics.
    return rows.where((rows["drawn"] > 0) & (rows["low"] < rows["high"]))


def statement(row: Mapping[Any, Any], unit: str) -> str | None:
    """A row of `one_unit_below` in words, without claiming a proof; None if there is nothing to state."""
    if pd.isna(row["drawn"]):
        return None
    units, drawn = int(row["units"]), int(row["drawn"])
    counted = f"{int(row['qualifying'])} of {drawn} drawn at random did"
    if row["unknown"] > 0:
        counted += f", {int(row['unknown'])} unknown"
    return (
        f"of the masks with {units} {unit}{'' if units == 1 else 's'} at most {percent(row['at_most'])} qualify "
        f"({counted}; 95 % confidence, over all numbers of {unit}s together); not a proof"
    )


def _tried(experiment: Experiment) -> pd.DataFrame:
    """Every skip mask tried, dropped ones included: row of its sequence, size, kind, row in evaluations (-1: none)."""
    columns = ["sequence", "family", "allocation"]
    kept = experiment.evaluations[columns].assign(row=np.arange(len(experiment.evaluations)))
    tried = pd.concat([kept, experiment.dropped[columns].assign(row=-1)], ignore_index=True)
    tried["code"] = pd.Index(experiment.sequences["sequence"]).get_indexer(tried["sequence"])
    tried["units"] = tried["allocation"].map(len).to_numpy(np.int64)
    tried["random"] = tried["family"] == RANDOM
    tried["named"] = tried["family"].isin(NAMED)
    tried["mask"], is_mask_E = allocation_keys(tried["allocation"])
    return tried[is_mask_E].drop_duplicates(["code", "mask"])


def _met(experiment: Experiment, quality_E: FloatArray) -> BoolArray:
    """Whether each evaluation meets the criterion, under a quality of the evaluations."""
    code_E, first_E = experiment.codes(), experiment.evaluations["number"].to_numpy() == 0
    full_N = np.empty(len(experiment.sequences))
    full_N[code_E[first_E]] = quality_E[first_E]
    return qualifies(quality_E, full_N[code_E], experiment.tolerance)


def _counts(experiment: Experiment, tried: pd.DataFrame, met_E: BoolArray, *, fails: bool, exhausted: bool) -> _Counts:
    """Counts under one quality.

    Args:
        experiment: the run.
        tried: every mask that was tried.
        met_E: whether each evaluation meets the criterion.
        fails: whether dropped outputs fail it; if not, they are unknown.
        exhausted: whether the search's proofs hold.
    """
    N, X = len(experiment.sequences), experiment.layers + 1
    row = tried["row"].to_numpy(np.int64)
    hit = np.append(met_E, False)[row]
    lost = (row < 0) & (not fails)
    cell = tried["code"].to_numpy(np.int64) * X + tried["units"].to_numpy(np.int64)

    def per_cell(chosen: BoolArray) -> FloatArray:
        return np.bincount(cell[chosen], minlength=N * X).reshape(N, X).astype(np.float64)

    random, named = tried["random"].to_numpy(bool), tried["named"].to_numpy(bool)
    total_NX = np.tile(np.array([float(comb(X - 1, k)) for k in range(X)]), (N, 1))
    known, known_hits, known_lost = per_cell(named), per_cell(named & hit), per_cell(named & lost)
    drawn, hits, lost_draws = per_cell(random), per_cell(random & hit), per_cell(random & lost)
    if exhausted:
        below_N = np.array([experiment.exhausted.get(name, 0) for name in experiment.sequences["sequence"]])
        done_NX = np.arange(X) < below_N[:, None]
        known, known_hits = np.where(done_NX, total_NX, known), np.where(done_NX, per_cell(hit), known_hits)
        drawn, hits = np.where(done_NX, 0, drawn), np.where(done_NX, 0, hits)
        lost_draws, known_lost = np.where(done_NX, 0, lost_draws), np.where(done_NX, 0, known_lost)
    return _Counts(
        total=total_NX,
        known=known,
        known_hits=known_hits,
        known_lost=known_lost,
        drawn=drawn,
        hits=hits,
        lost=lost_draws,
    )


def _by_sequence(experiment: Experiment, real: _Counts, nulls: list[_Counts]) -> pd.DataFrame:
    seen = real.seen
    n, k = np.nonzero(seen)
    at_once_N1 = np.maximum(real.open.sum(axis=1), 1)[:, None]
    values = {
        "units": np.broadcast_to(np.arange(seen.shape[1]), seen.shape),
        "masks": real.total,
        "known": real.known,
        **_columns(real),
        "at_most": real.high((1 - CONFIDENCE) / at_once_N1),
        **_null_columns(nulls, seen.shape),
    }
    table = pd.DataFrame({name: value[n, k] for name, value in values.items()})
    table.insert(0, "sequence", experiment.sequences["sequence"].to_numpy()[n])
    table.insert(2, "fraction", table["units"] / experiment.layers)
    return _whole(table)


def _pooled(
    experiment: Experiment, real: _Counts, nulls: list[_Counts], told_N: BoolArray, bootstrap: int
) -> pd.DataFrame:
    told_NX = real.seen & told_N[:, None]
    sizes_X = np.arange(told_NX.shape[1])
    over_X2 = np.full((len(sizes_X), 2), np.nan)
    for size in np.flatnonzero(told_NX.any(axis=0)).tolist() if bootstrap > 0 else ():
        share_N = real.share[told_NX[:, size], size]
        if not np.isnan(share_N).any():
            ends = mean_interval(share_N, resamples=bootstrap, seed=experiment.seed)
            over_X2[size] = ends or (np.nan, np.nan)
    table = pd.DataFrame(
        {
            "units": sizes_X,
            "fraction": sizes_X / experiment.layers,
            "sequences": told_NX.sum(axis=0),
            **_columns(real.summed(told_N)),
            "sequences_low": over_X2[:, 0],
            "sequences_high": over_X2[:, 1],
            **_null_columns([null.summed(told_N) for null in nulls], sizes_X.shape),
        }
    )
    return _whole(table[table["sequences"] > 0].reset_index(drop=True))


def _columns(counts: _Counts) -> dict[str, FloatArray]:
    tail = (1 - CONFIDENCE) / 2
    return {
        "drawn": counts.drawn,
        "qualifying": counts.hits,
        "unknown": counts.unknown,
        "share": counts.share,
        "low": counts.low(tail),
        "high": counts.high(tail),
    }


def _null_columns(nulls: list[_Counts], shape: tuple[int, ...]) -> dict[str, FloatArray]:
    """Means over permutations; NaN without any, or where none of the masks was drawn."""
    found: dict[str, FloatArray] = {}
    for name in ("share", "low", "high"):
        means = [np.where(null.seen, _columns(null)[name], np.nan) for null in nulls]
        found[f"null_{name}"] = np.mean(means, axis=0) if means else np.full(shape, np.nan)
    return found


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers of draws as integers; those of all masks of a size may be too large for one."""
    return table.astype(dict.fromkeys(("drawn", "qualifying", "unknown"), np.int64))
