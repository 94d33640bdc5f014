"""Right and wrong samples: depth that right ones need, and number of wrong ones that smaller allocations correct.

CoLa (2507.07996) searches layer paths for each sample with the right answer known and reports shorter paths for most
right samples and a correcting path for most wrong ones. Trying many outputs and keeping one that the reference favours
corrects some by chance. So the same outputs are scored a second time, each wrong sample's against the references of
another sample of its task: corrections there are luck. The best of all tries is reported with the expected best of a
few.

A sample is right if its quality reaches a bar: 1 for metrics of 0 or 1 (exact match, choice accuracy), otherwise by
convention 0.5.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaln

from analysis.experiment import Experiment, InputError
from analysis.grouping import FloatArray, IntArray
from analysis.luck.null_oracle import derangements
from oracle.metrics import qualifies

__all__ = ["BAR", "Depth", "agreeing", "mended_after", "partners", "right_and_wrong"]

BAR = 0.5
"""Quality from which an output counts as right."""


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Cost at which samples become right.

    Attributes:
        samples: one row per sequence: `sequence`, `task`, `right` (whether the full model's output is), `least` (lowest
            fraction of the full model's cost at which the full model or a cheaper allocation is right; NaN if none is),
            `tries` (number of allocations tried besides the full model), `hits` (number of these cheaper and right).
        null: the same for the wrong samples against other samples' references, one row per permutation and sample
            (`permutation`, `sequence`, `least`, `tries`, `hits`); without pairs whose references agree, or where the
            full model happens to be right. Empty if no two samples can be compared.
    """

    samples: pd.DataFrame
    null: pd.DataFrame


def right_and_wrong(experiment: Experiment, *, permutations: int = 10, bar: float = BAR) -> Depth:
    """Separates right samples from wrong ones, and computes the effect of smaller allocations on both.

    Outputs that the search dropped unfinished count as tried and not right: they are worse than the full model's. The
    null permutes the references within each task, seeded by the run's seed; fewer times for very large runs, see
    `Experiment.affordable_permutations`.

    Raises:
        InputError: if the metric is not one of texts or choices.
    """
    if experiment.kind not in ("text", "choice"):
        raise InputError(
            f"right and wrong need a metric of texts or choices, not {experiment.metric}: choose another --criterion"
        )
    quality_E = experiment.evaluations[experiment.metric].to_numpy(np.float64)
    samples = _read(experiment, quality_E, bar)
    samples.insert(1, "task", experiment.sequences["task"].to_numpy())
    return Depth(samples=samples, null=_null(experiment, samples, permutations, bar))


def mended_after(samples: pd.DataFrame, tries: IntArray) -> FloatArray:
    """Per sample, the probability that at least one of n of its tries, drawn at random, is right (N X).

    With m tries of which k are right, 1 - C(m - k, n) / C(m, n); from m on, whether any is. X is the numbers n.
    """
    m, k = (samples[name].to_numpy(np.int64)[:, None] for name in ("tries", "hits"))
    n = np.minimum(tries[None], m)
    none = m - k >= n

    def log_choose(total: IntArray, some: IntArray) -> FloatArray:
        return np.asarray(gammaln(total + 1) - gammaln(some + 1) - gammaln(total - some + 1))

    missed = np.exp(log_choose(np.maximum(m - k, n), n) - log_choose(m, n))
    return np.where(none, 1 - missed, 1.0)


def _read(experiment: Experiment, quality_E: FloatArray, bar: float) -> pd.DataFrame:
    evaluations = experiment.evaluations
    rows = evaluations[["sequence", "number", "cost"]].assign(right=qualifies(quality_E, np.asarray(bar), 0.0))
    smaller = rows["cost"] < experiment.full_cost
    rows["least"] = (rows["cost"] / experiment.full_cost).where(rows["right"] & (smaller | (rows["number"] == 0)))
    rows["hit"] = rows["right"] & smaller
    each = rows.groupby("sequence")
    right = rows[rows["number"] == 0].set_index("sequence")["right"]
    # Not a count of rows: dropped outputs have a number and no row.
    found = pd.DataFrame(
        {"right": right, "least": each["least"].min(), "tries": each["number"].max(), "hits": each["hit"].sum()}
    )
    return found.reindex(experiment.sequences["sequence"]).reset_index()


def _null(experiment: Experiment, samples: pd.DataFrame, permutations: int, bar: float) -> pd.DataFrame:
    tables: list[pd.DataFrame] = []
    columns = ["permutation", "sequence", "least", "tries", "hits"]
    if permutations < 1:
        return pd.DataFrame(columns=columns)
    wrong_E = ~samples["right"].to_numpy(np.bool_)[experiment.codes()]
    permutations = experiment.affordable_permutations(permutations, int(wrong_E.sum()))
    partner_PN = partners(experiment.sequences["task"], permutations, experiment.seed)
    for number, (partner_N, quality_E) in enumerate(
        zip(partner_PN, experiment.shuffled_quality(partner_PN, wrong_E), strict=True)
    ):
        other_N = ~agreeing(experiment, partner_N)
        read = _read(experiment, quality_E, bar)
        kept = read[other_N & ~read["right"].to_numpy() & ~samples["right"].to_numpy()].drop(columns="right")
        tables.append(kept.assign(permutation=number))
    return pd.concat(tables, ignore_index=True)[columns]


def partners(tasks: pd.Series, permutations: int, seed: int) -> IntArray:
    """Permutations within each task, shape (P, N); samples alone in their task are permuted among each other."""
    size = tasks.groupby(tasks).transform("size")
    group = pd.factorize(tasks.where(size > 1, None))[0]
    partner_PN = np.tile(np.arange(len(tasks)), (permutations, 1))
    for code in np.unique(group):
        members = np.flatnonzero(group == code)
        if len(members) > 1:
            partner_PN[:, members] = members[derangements(len(members), permutations, seed)]
    return partner_PN


def agreeing(experiment: Experiment, partner_N: IntArray) -> NDArray[np.bool_]:
    """Per sample, whether its partner's right answer is also right for itself (N)."""
    if experiment.kind == "choice":
        answer_N = experiment.sequences["answer"].to_numpy(np.int64)
        choices_N = experiment.sequences["choices"].map(len).to_numpy(np.int64)
        return np.asarray(answer_N[partner_N] % choices_N == answer_N)
    references = [set(each) for each in experiment.sequences["references"]]
    return np.array([not one.isdisjoint(references[other]) for one, other in zip(references, partner_N, strict=True)])
