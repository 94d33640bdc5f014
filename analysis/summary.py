"""The savings of a run, as one value."""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from analysis.experiment import Experiment, InputError, as_experiment
from analysis.formatting import counted, percent
from analysis.grouping import allocation_keys
from analysis.knapsack.assignment import assignment
from analysis.knapsack.frontier import EqualQuality, equal_quality
from analysis.knapsack.items import quality_by_cost
from analysis.luck.null_oracle import NullOracle, null_oracle
from analysis.per_sequence.savings import budgets, fractions, mean_fraction
from analysis.stats import equal_quality_interval, mean_interval
from oracle.metrics import told_nothing
from oracle.types import RunPath

__all__ = ["Summary", "end_to_end_fraction", "informative", "summarise"]

Interval = tuple[float, float]

SCORING = ("likelihood", "choice", "continuations")
"""Kinds of metrics that score given texts, not what an allocation generates."""

LARGE = 5_000
"""Sequences from which intervals and shuffled references are computed for the headline alone."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The numbers of a run; fractions are costs per generated token over the full model's.

    They are over all sequences of the run. The headline that commands print is over those that can tell something: it
    is `headline`, or the summary of `analysis.informative(run)`.

    Attributes:
        sequences: N.
        allocations_per_sequence: distinct allocations evaluated; the mean if it differs between sequences.
        layers: number of units: L layers or 2L sublayers.
        unit: `layer` or `sublayer`.
        cost: unit of the costs: `layers` (or `sublayers`), `FLOPs/token` or `ms/token`.
        criterion: metric.
        full_quality: mean quality of the full model.
        per_sequence_fraction: mean minimal budget (upper).
        per_sequence_interval: its 95 % bootstrap interval over sequences; None for a single sequence.
        equal_quality_fraction: least mean fraction at which the oracle's mean quality reaches the full model's.
        equal_quality_gap: maximum excess of that over the true minimum; 0 if proven minimal.
        equal_quality_interval: its 95 % bootstrap interval over sequences.
        null_per_sequence_fraction: `per_sequence_fraction` against shuffled references; None for a single sequence.
        null_per_sequence_spread: its standard deviation over permutations; None for fewer than two.
        null_equal_quality_fraction: `equal_quality_fraction` against shuffled references.
        null_equal_quality_spread: its standard deviation over permutations.
        null_zero_quality_share: share of sequences whose full model scores zero against shuffled references, so that
            every allocation qualifies; mean over permutations.
        zero_quality_sequences: number where the full model scores no more than the floor: every allocation qualifies.
        vacuous_sequences: number where no allocation can be told from another; see `oracle.metrics.VACUOUS`.
        vacuous: the same by reason.
        informative_sequences: number of the others, which can tell something.
        certified: number of proven minimal budgets, including those of sequences that tell nothing (trivially 0).
        mean_gap: mean of upper - lower over the others, in `cost`; None without others.
        end_to_end_fraction: cost of the oracle's choice with the prompts, over the full model's on the same tokens;
            None for ms/token, as the time of a prompt was not measured, and for criteria that score given texts.
        end_to_end_against_full: the same over the full model on its own outputs, which are often shorter.
        exact: whether the oracle was solved exactly; if not, see `equal_quality_gap`.
        informative: the summary of the sequences that can tell something; None if that is all of them or none.
        minimal: table of minimal budgets.
        assignment: evaluation per sequence that the oracle chose at equal quality.
        oracle: the oracle with its frontier.
        null: the null oracle.
    """

    sequences: int
    allocations_per_sequence: int | float
    layers: int
    unit: str
    cost: str
    criterion: str
    full_quality: float
    per_sequence_fraction: float
    per_sequence_interval: Interval | None
    equal_quality_fraction: float
    equal_quality_gap: float
    equal_quality_interval: Interval | None
    null_per_sequence_fraction: float | None
    null_per_sequence_spread: float | None
    null_equal_quality_fraction: float | None
    null_equal_quality_spread: float | None
    null_zero_quality_share: float | None
    zero_quality_sequences: int
    vacuous_sequences: int
    vacuous: dict[str, int]
    informative_sequences: int
    certified: int
    mean_gap: float | None
    end_to_end_fraction: float | None
    end_to_end_against_full: float | None
    exact: bool
    informative: "Summary | None" = field(repr=False)
    minimal: pd.DataFrame = field(repr=False, compare=False, metadata={"table": True})
    assignment: pd.DataFrame = field(repr=False, compare=False, metadata={"table": True})
    oracle: EqualQuality = field(repr=False, compare=False, metadata={"table": True})
    null: NullOracle | None = field(repr=False, compare=False, metadata={"table": True})

    @property
    def headline(self) -> "Summary | None":
        """The summary whose numbers headlines state: of the sequences that can tell something; None if none can."""
        if self.informative_sequences == self.sequences:
            return self
        return self.informative

    def __repr__(self) -> str:
        told = self.headline
        over_all = f"over all {counted(self.sequences)} {_shares(self)}"
        if told is self:
            return f"Summary({over_all}; {self.criterion})"
        headline = (
            "no sequence can tell something"
            if told is None
            else f"{told.sequences} can tell something: {_shares(told)}"
        )
        return f"Summary({headline}; {over_all}; {self.criterion})"

    @property
    def untold(self) -> int:
        """Number of sequences that tell nothing."""
        return self.sequences - self.informative_sequences

    @property
    def told_nothing(self) -> str:
        """A sentence on the sequences that tell nothing; empty if there are none."""
        return told_nothing(self.untold, self.vacuous)

    def _repr_html_(self) -> str:
        """The headline's numbers, over the sequences that can tell something, and beside them those over all."""
        columns = {"all sequences": self.to_dict()}
        if self.informative is not None:
            columns = {"headline: can tell something": self.informative.to_dict(), **columns}
        return pd.DataFrame(columns, dtype=object).drop(index="informative").to_html()

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the tables, ready for JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata.get("table")}
        values["informative"] = self.informative.to_dict() if self.informative else None
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _shares(summary: Summary) -> str:
    """Both headline fractions in words."""
    needed, equal = percent(summary.per_sequence_fraction), percent(summary.equal_quality_fraction)
    return f"{needed} of the cost per sequence, {equal} at equal mean quality"


def informative(run: RunPath) -> Experiment:
    """A run restricted to the sequences that can tell something, whose numbers headlines state.

    On the others every allocation qualifies, as the full model scores zero, or no allocation can be told from another.
    Whatever is computed of the result is on the basis of the headline.

    Raises:
        InputError: if no sequence can tell something; says why.
    """
    experiment = as_experiment(run)
    minimal = budgets(experiment)
    told = minimal["informative"]
    if not told.any():
        vacuous = dict(Counter(minimal.loc[minimal["vacuous"] != "", "vacuous"].tolist()))
        said = f"no sequence can tell something: {told_nothing(len(minimal), vacuous)}"
        own = (
            "; --criterion agreement asks for the full model's own outputs"
            if len(minimal) > sum(vacuous.values())
            else ""
        )
        raise InputError(said + own)
    return experiment if told.all() else experiment.only(minimal.loc[told, "sequence"])


def summarise(experiment: RunPath, *, bootstrap: int = 1000, permutations: int = 10) -> Summary:
    """Computes the savings of a run, over all sequences; `Summary.headline` has what commands print.

    Of more than `LARGE` sequences of which some tell nothing, the numbers over all have neither intervals nor shuffled
    references; those over the informative ones have.

    Args:
        experiment: the run.
        bootstrap: resamples behind the intervals; 0 for none.
        permutations: derangements behind the null oracle; 0 for none.
    """
    experiment = as_experiment(experiment)
    return _summarised(experiment, bootstrap, permutations, _distinct(experiment.evaluations))


def _summarised(experiment: Experiment, bootstrap: int, permutations: int, distinct: pd.Series) -> Summary:
    """See `summarise`; `distinct` is the number of distinct allocations of each sequence."""
    evaluations, full_cost, metric = experiment.evaluations, experiment.full_cost, experiment.metric
    tolerance, seed = experiment.tolerance, experiment.seed
    minimal = budgets(experiment)
    items, number_NC = quality_by_cost(evaluations, full_cost, metric, step=experiment.step)
    full_N = minimal["full_quality"].to_numpy()
    oracle = equal_quality(items, full_N, tolerance=tolerance)
    chosen = assignment(evaluations, number_NC, oracle.costs, metric)
    full_model = evaluations[evaluations["number"] == 0]
    informative = minimal.loc[minimal["informative"], "sequence"]
    told = None
    if 0 < len(informative) < len(minimal):
        told = _summarised(experiment.only(informative), bootstrap, permutations, distinct)
        if len(minimal) > LARGE:
            bootstrap = permutations = 0
    null = null_oracle(experiment, permutations=permutations)
    gaps = (minimal["upper"] - minimal["lower"])[~minimal["certified"]]
    return Summary(
        sequences=len(minimal),
        allocations_per_sequence=_allocations_per_sequence(distinct[minimal["sequence"]]),
        layers=experiment.layers,
        unit=experiment.unit,
        cost=experiment.measure,
        criterion=metric,
        full_quality=oracle.full_quality,
        per_sequence_fraction=mean_fraction(minimal["upper"].to_numpy(), full_cost),
        per_sequence_interval=mean_interval(fractions(minimal, full_cost), resamples=bootstrap, seed=seed),
        equal_quality_fraction=oracle.fraction,
        equal_quality_gap=oracle.gap,
        equal_quality_interval=equal_quality_interval(
            items, full_N, tolerance=tolerance, resamples=bootstrap, seed=seed
        ),
        null_per_sequence_fraction=null.per_sequence if null else None,
        null_per_sequence_spread=null.per_sequence_spread if null else None,
        null_equal_quality_fraction=null.equal_quality if null else None,
        null_equal_quality_spread=null.equal_quality_spread if null else None,
        null_zero_quality_share=float(null.zero_shares.mean()) if null else None,
        zero_quality_sequences=int(minimal["zero_quality"].sum()),
        vacuous_sequences=int((minimal["vacuous"] != "").sum()),
        vacuous=dict(sorted(Counter(minimal.loc[minimal["vacuous"] != "", "vacuous"].tolist()).items())),
        informative_sequences=len(informative),
        certified=int(minimal["certified"].sum()),
        mean_gap=float(gaps.mean()) if len(gaps) else None,
        end_to_end_fraction=end_to_end_fraction(experiment, chosen),
        end_to_end_against_full=_end_to_end(experiment, chosen, full_model),
        exact=oracle.gap == 0,
        informative=told,
        minimal=minimal,
        assignment=chosen,
        oracle=oracle,
        null=null,
    )


def _distinct(evaluations: pd.DataFrame) -> pd.Series:
    """Number of distinct allocations evaluated, by sequence."""
    key, _ = allocation_keys(evaluations["allocation"])
    return pd.Series(key).groupby(evaluations["sequence"].to_numpy()).nunique()


def _allocations_per_sequence(counts: pd.Series) -> int | float:
    return int(counts.iloc[0]) if counts.nunique() == 1 else float(counts.mean())


def end_to_end_fraction(experiment: RunPath, chosen: pd.DataFrame) -> float | None:
    """Cost of evaluations over the full model's on the same tokens, prompt included.

    None for ms/token, and where the criterion scores given texts: their tokens are not stored.

    With P prompt tokens, G generated ones and cost c, max(G - 1, 0) tokens are fed back: the first generated token
    comes from the prompt pass. Scope `decode` runs the prompt through all L layers, scope `sequence` through those of
    the allocation, scope `decode-last` all but its last token through all. A prompt token costs as much as a generated
    one, less the overhead of every token (the vocabulary head), which is paid once for the first generated token. In
    ms/token the prompt's tokens run in parallel, in a time that was not measured. `chosen` has one row per sequence:
    `sequence`, `number`, `cost`.
    """
    experiment = as_experiment(experiment)
    return _end_to_end(experiment, chosen, chosen.assign(cost=experiment.full_cost))


def _end_to_end(experiment: Experiment, chosen: pd.DataFrame, other: pd.DataFrame) -> float | None:
    if experiment.measure == "ms/token" or experiment.kind in SCORING:
        return None
    return _cost(experiment, chosen) / _cost(experiment, other)


def _cost(experiment: Experiment, chosen: pd.DataFrame) -> float:
    """Cost of evaluations over all tokens, the prompt's included."""
    rows = chosen[["sequence", "number", "cost"]].merge(
        experiment.evaluations[["sequence", "number", "tokens"]], on=["sequence", "number"], validate="one_to_one"
    )
    rows = rows.merge(experiment.sequences[["sequence", "prompt_tokens"]], on="sequence", validate="one_to_one")
    fed_back = np.maximum(rows["tokens"].map(len).to_numpy(np.int64) - 1, 0)
    prompt, cost = rows["prompt_tokens"].to_numpy(np.int64), rows["cost"].to_numpy()
    own = prompt if experiment.scope == "sequence" else np.full_like(prompt, experiment.scope == "decode-last")
    prompt_cost = own * (cost - experiment.overhead) + (prompt - own) * (experiment.full_cost - experiment.overhead)
    return float((prompt_cost + experiment.overhead + fed_back * cost).sum())
