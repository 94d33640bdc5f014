"""Held-out references: outputs are chosen by one half of a sequence's references and scored by the other.

In shapes, X is the splits; sequences and evaluations are those with at least two references.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from analysis.experiment import Experiment, InputError
from analysis.grouping import FloatArray
from analysis.knapsack.items import Items, quality_by_cost

__all__ = ["SPLITS", "Choices", "HeldOut", "halves", "held_out"]

SPLITS = 12
"""Splits averaged over: every half of two, three or four references is used equally often."""

Half = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The evaluations to choose from under one split, with their held-out scores.

    Attributes:
        items: the best evaluation at each cost, by the choosing half.
        reported_NC: quality of the same evaluations by the other half; -inf where there is none.
        full_N: quality of the full model by the choosing half.
        reported_full_N: by the other half.
    """

    items: Items
    reported_NC: FloatArray
    full_N: FloatArray
    reported_full_N: FloatArray


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Every evaluation scored twice: by the choosing references, and by the held-out ones.

    Attributes:
        evaluations: those of the sequences with at least two references.
        chooser_XE: quality by the choosing half.
        reporter_XE: quality by the other half.
        sequences: N.
        left_out: number of sequences with fewer references, where nothing can be held out.
    """

    evaluations: pd.DataFrame
    chooser_XE: FloatArray
    reporter_XE: FloatArray
    sequences: int
    left_out: int

    def choices(self, split: int, full_cost: float, step: float | None) -> Choices:
        """The choices under one split; for `step` see `Items`."""
        rated = self.evaluations[["sequence", "number", "cost"]].assign(quality=self.chooser_XE[split])
        items, number_NC = quality_by_cost(rated, full_cost, "quality", step=step)
        code_E, ids = pd.factorize(rated["sequence"])
        numbers = int(rated["number"].max()) + 1
        place = pd.Index(code_E * numbers + rated["number"].to_numpy())
        n, k = np.nonzero(number_NC >= 0)
        reported_NC = np.full(number_NC.shape, -np.inf)
        reported_NC[n, k] = self.reporter_XE[split][place.get_indexer(pd.Index(n * numbers + number_NC[n, k]))]
        full_rows = place.get_indexer(pd.Index(np.arange(len(ids)) * numbers))
        return Choices(
            items=items,
            reported_NC=reported_NC,
            full_N=self.chooser_XE[split][full_rows],
            reported_full_N=self.reporter_XE[split][full_rows],
        )


def halves(count: int, splits: int, rng: np.random.Generator) -> list[tuple[Half, Half]]:
    """Pairs of complementary halves of some references, each pair followed by its reverse.

    Args:
        count: number of references, at least two; with an odd number one half has one more.
        splits: number of pairs, even; all possible ones take turns, in random order.
        rng: draws the order.
    """
    every = range(count)
    found = [(half, tuple(sorted({*every} - {*half}))) for half in combinations(every, count // 2)]
    if count % 2 == 0:
        found = [pair for pair in found if 0 in pair[0]]
    order = rng.permutation(len(found))
    pairs = [found[order[turn % len(found)]] for turn in range(splits // 2)]
    return [one for pair in pairs for one in (pair, pair[::-1])]


def held_out(experiment: Experiment, *, splits: int = SPLITS) -> HeldOut | None:
    """Scores every output by both halves of its sequence's references, for an even number of splits.

    None if the metric does not compare outputs with references, or fewer than two sequences have two of them.
    """
    if splits < 2 or splits % 2:
        raise InputError(f"an even number of splits is required, got {splits}: each half chooses once")
    counts = experiment.sequences["references"].map(len)
    names = experiment.sequences.loc[counts >= 2, "sequence"]
    if experiment.kind != "text" or experiment.score is None or len(names) < 2:
        return None
    evaluations = experiment.evaluations[experiment.evaluations["sequence"].isin(names)].reset_index(drop=True)
    references = experiment.sequences.set_index("sequence")["references"]
    rng = np.random.default_rng(experiment.seed)
    scores_2XE = np.empty((2, splits, len(evaluations)))
    # In the order of the sequences, so that the draws do not depend on the order of the evaluations.
    rows = evaluations.groupby("sequence").indices
    for name in names:
        own, mine = rows[name], tuple(references[name])
        text = evaluations["text"].iloc[own]
        code, texts = pd.factorize(text)
        known: dict[Half, FloatArray] = {}
        for split, pair in enumerate(halves(len(mine), splits, rng)):
            for side, half in enumerate(pair):
                if half not in known:
                    chosen = tuple(mine[index] for index in half)
                    known[half] = np.array([experiment.score(one, chosen) for one in texts])
                scores_2XE[side, split, own] = known[half][code]
    return HeldOut(
        evaluations=evaluations,
        chooser_XE=scores_2XE[0],
        reporter_XE=scores_2XE[1],
        sequences=len(names),
        left_out=len(counts) - len(names),
    )
