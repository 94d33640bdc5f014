"""Quality kept at mean budgets, and right and wrong answers that change: oracle, controllers and static masks together.

An answer is right if its quality reaches a bar (`analysis.luck.right_and_wrong.BAR`). Skipping layers turns some right
answers wrong and some wrong ones right, and either happens by chance, the more so the more outputs there are to choose
from. So beside every count stands what as many random tries give, where a try is an allocation of the same sequence's
search that costs no more than the method spent on it:

- `random_right_to_wrong`, `random_wrong_to_right`: expected numbers of one try drawn at random.
- `null_wrong_to_right`: expected number of wrong answers that reach the bar against the references of another sequence
  of the same task, with as many tries as the method chooses from: for the oracle all of them, for others one.

The expected numbers are means over the sequences that have such tries, times the number of right or of wrong answers.
Tries that the search dropped unfinished are left out, as their quality is unknown.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from analysis.display import Shown
from analysis.experiment import Experiment, InputError, Run, as_experiment
from analysis.grouping import BoolArray, FloatArray, IntArray
from analysis.knapsack.assignment import oracle_allocations
from analysis.knapsack.frontier import SLACK
from analysis.luck.right_and_wrong import BAR, agreeing, partners
from analysis.measurements import STATIC_COLUMNS, read_table, static_masks
from analysis.stats import affordable_resamples, percentile_interval, resampled_counts
from oracle.allocations import compact
from oracle.metrics import qualifies
from oracle.types import RunPath
from oracle.utils.arguments import settings_text
from oracle.utils.validation import check_list

__all__ = ["BUDGETS", "Kept", "quality_kept"]

BUDGETS = (0.25, 0.5, 0.75, 0.9)
"""Mean budgets of the oracle, as fractions of the full model's cost."""

ALL, MACRO = "all sequences", "mean over tasks"

FULL = "full model"

SAW = "no: the oracle saw the references"
REPLAYED = ("oracle",)
"""Controllers that replay what the search found."""

COUNTS = ("right_to_wrong", "random_right_to_wrong", "wrong_to_right", "random_wrong_to_right", "null_wrong_to_right")


@dataclass(frozen=True, kw_only=True, repr=False)
class Kept(Shown):
    """Quality kept by methods that run fewer layers.

    Attributes:
        rows: one row per method, setting and group of sequences: `method`, `setting`; `over` (all sequences, a task, or
            the mean over tasks, in which every task has the same weight) and `task`, empty for the other two; number of
            `sequences`; `fraction`, mean cost over the full model's; mean `quality`, `full_quality` of the full model
            on the same sequences, `difference` of both, and `kept`, their ratio (NaN for metrics that do not start at
            0), each but the second with the ends `_low` and `_high` of its 95 % bootstrap interval over sequences
            (within tasks for the mean over tasks; NaN if a task has one sequence); `right` and `wrong` answers of the
            full model, the counts `right_to_wrong` and `wrong_to_right` and what chance gives (see the module's
            docstring), NaN for the mean over tasks and for metrics without right answers; `held_out`, in words.
        metric: of the quality.
        bar: quality from which an answer is right; None if the metric has no right answers.
        resamples: B of the intervals.
        permutations: of the references behind the null; 0 if there is none.
        notes: what is missing, and why.
    """

    rows: pd.DataFrame
    metric: str
    bar: float | None
    resamples: int
    permutations: int
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class _Method:
    """Outcomes of one method with one setting: of each sequence it ran, the quality and the fraction of the cost."""

    name: str
    setting: str
    held_out: str
    outcomes: pd.DataFrame
    chooses: bool = False


def quality_kept(
    run: RunPath,
    budgets: Sequence[float] = BUDGETS,
    *,
    criterion: str | None = None,
    costs: str | None = None,
    resamples: int = 1000,
    permutations: int = 10,
) -> Kept:
    """Quality that is kept at each mean budget: by the oracle, and by the controllers and static masks of the run.

    Args:
        run: the run's path, or an `oracle.Run`; of an `Experiment` or a `Source`, which may hold some of its sequences
            only, just the oracle is known.
        budgets: mean budgets of the oracle, as fractions of the full model's cost; those below the cheapest allocations
            are left out with a note.
        criterion: metric to read a folder by; None for its own. Controllers and static masks are judged by the latter.
        costs: cost to read a folder by, as for `analysis.load`.
        resamples: B of the intervals over sequences; 0 for none.
        permutations: of the references, for the null; fewer for very large runs.

    Raises:
        InputError: if there is no budget, one is not in 0..1, or a table of the run is damaged.
    """
    check_list(budgets, "budgets")
    budgets = list(budgets)
    if not budgets or not all(isinstance(budget, Real) and 0 <= budget <= 1 for budget in budgets):
        raise InputError(f"budgets need fractions of the full model's cost from 0 to 1, not {budgets}")
    experiment, stored = as_experiment(run, criterion, costs=costs), isinstance(run, str | Path | Run)
    notes: list[str] = []
    methods = [_full(experiment), *_oracle(experiment, budgets, notes)]
    if not stored:
        notes.append("Controllers and static masks are stored in the run's folder: give that instead.")
    elif (criterion is None and costs is None) or _reads_its_own(run, experiment):
        methods += [*_controllers(Path(run), notes), *_static(Path(run), notes)]
    else:
        notes.append("Controllers and static masks are left out: they are judged by the run's own criterion and cost.")
    answers = _Answers(experiment, permutations) if experiment.kind in ("text", "choice") else None
    if answers is None:
        notes.append(f"{experiment.metric} has no right and wrong answers: their changes are not counted.")
    rows = [row for method in methods for row in _rows(experiment, method, answers, resamples)]
    return Kept(
        rows=pd.DataFrame(rows),
        metric=experiment.metric,
        bar=None if answers is None else BAR,
        resamples=resamples,
        permutations=0 if answers is None else answers.permutations,
        notes=notes,
    )


def _reads_its_own(folder: RunPath, experiment: Experiment) -> bool:
    own = as_experiment(folder)
    return (own.metric, own.measure, own.full_cost) == (experiment.metric, experiment.measure, experiment.full_cost)


def _full(experiment: Experiment) -> _Method:
    full = experiment.evaluations[experiment.evaluations["number"] == 0]
    outcomes = full[["sequence"]].assign(quality=full[experiment.metric], fraction=1.0)
    return _Method(name=FULL, setting="", held_out="nothing fitted", outcomes=outcomes)


def _oracle(experiment: Experiment, budgets: Sequence[float], notes: list[str]) -> Iterator[_Method]:
    least = experiment.evaluations.groupby("sequence")["cost"].min().mean() / experiment.full_cost
    if low := [f"{budget:g}" for budget in budgets if budget < least - SLACK]:
        notes.append(
            f"The oracle has no allocations of a mean budget of {', '.join(low)}: the cheapest cost {least:.4f}."
        )
    for budget in sorted({budget for budget in budgets if budget >= least - SLACK}):
        outcomes = oracle_allocations(experiment, budget)[["sequence", "quality", "fraction"]]
        yield _Method(name="oracle", setting=f"budget={budget:g}", held_out=SAW, outcomes=outcomes, chooses=True)


def _controllers(folder: Path, notes: list[str]) -> Iterator[_Method]:
    """The controllers of the comparison that figures show, by the tables of their sequences."""
    run, name = Run.open(folder), "controllers/comparison"
    again = f"compare again with 'oracle compare {folder}'"
    if not run.has(name):
        notes.append(f"No controllers were compared: 'oracle compare {folder}' adds them.")
        return
    shown = read_table(run, name, ("controller", "setting"), again)
    key = shown.attrs["provenance"].get("key")
    found = {}
    for path in sorted((run.folder / "controllers" / str(key)).glob("*.parquet")):
        about = json.loads((pq.read_schema(path).metadata or {}).get(b"provenance", b"{}"))
        if "controller" in about and about.get("key") == key:
            found[about["controller"], settings_text(about["settings"])] = path.stem
    lacking = 0
    for controller, setting in shown[["controller", "setting"]].itertuples(index=False):
        if controller == "full":
            continue
        if (stem := found.get((controller, setting))) is None:
            lacking += 1
            continue
        table = read_table(run, f"controllers/{key}/{stem}", ("sequence", "fold", "quality", "fraction"), again)
        folds = table["fold"].nunique()
        held_out = f"yes: cross-validated, {folds} folds" if folds > 1 else "nothing fitted"
        if controller in REPLAYED:
            held_out = SAW
        outcomes = table[["sequence", "quality", "fraction"]]
        yield _Method(name=controller, setting=setting, held_out=held_out, outcomes=outcomes)
    if lacking:
        notes.append(f"Settings of controllers without a table of their sequences, left out: {lacking}; {again}.")


def _static(folder: Path, notes: list[str]) -> Iterator[_Method]:
    """The masks that `oracle static` chose, on its held-out sequences."""
    table = static_masks(folder)
    if table is None:
        notes.append(f"No static masks were searched: 'oracle static {folder}' adds them.")
        return
    run, lacking = Run.open(folder), []
    for row in table[table["chosen"]].drop_duplicates("budget").to_dict("records"):
        again = f"delete it, and repeat 'oracle static {folder}'"
        about = read_table(run, f"static/{row['table']}", STATIC_COLUMNS, again).attrs["provenance"]
        qualities = about.get("held_out_quality", {}).get(compact(row["allocation"]))
        if qualities is None:
            lacking.append(f"{row['budget']:g}")
            continue
        outcomes = pd.DataFrame({"sequence": about["held_out"], "quality": qualities, "fraction": row["fraction"]})
        held_out = f"yes: chosen on {len(about['training'])} other sequences, by {row['judge']}"
        yield _Method(name="static mask", setting=f"budget={row['budget']:g}", held_out=held_out, outcomes=outcomes)
    if lacking:
        notes.append(
            f"Static masks of an earlier version, without the qualities of their sequences, are left out (budgets "
            f"{', '.join(lacking)}): delete {folder / 'static'}, and repeat 'oracle static {folder}'."
        )


def _rows(
    experiment: Experiment, method: _Method, answers: "_Answers | None", resamples: int
) -> Iterator[dict[str, Any]]:
    """The rows of one method: over all sequences, the mean over tasks, and each task."""
    full = experiment.evaluations[experiment.evaluations["number"] == 0].set_index("sequence")[experiment.metric]
    sequences = experiment.sequences[["sequence", "task"]]
    outcomes = sequences.merge(method.outcomes, on="sequence", validate="one_to_one")
    outcomes["full"] = full.loc[outcomes["sequence"]].to_numpy()
    tasks = [part.reset_index(drop=True) for _, part in outcomes.groupby("task", sort=False)]
    seed, ratio = experiment.seed, experiment.floor == 0
    about = {"method": method.name, "setting": method.setting}

    def row(over: str, task: str, parts: list[pd.DataFrame], counted: pd.DataFrame | None) -> dict[str, Any]:
        changes = dict.fromkeys(("right", "wrong", *COUNTS), np.nan)
        if answers is not None and counted is not None:
            changes |= answers.changes(counted, chooses=method.chooses)
            if method.name == FULL:
                changes |= {name: np.nan for name in COUNTS if name.startswith(("random", "null"))}
        size = {"over": over, "task": task, "sequences": sum(map(len, parts))}
        return {**about, **size, **_means(parts, resamples, seed, ratio), **changes, "held_out": method.held_out}

    yield row(ALL, "", [outcomes], outcomes)
    if len(tasks) > 1:
        yield row(MACRO, "", tasks, None)
        for part in tasks:
            yield row(str(part["task"].iloc[0]) or "(none)", str(part["task"].iloc[0]), [part], part)


def _means(parts: list[pd.DataFrame], resamples: int, seed: int, ratio: bool) -> dict[str, float]:
    """Means over parts of equal weight, with intervals; each part is resampled by itself."""
    names = ("fraction", "quality", "full")
    fraction, quality, full = (float(np.mean([part[name].mean() for part in parts])) for name in names)
    known = {"quality": quality, "difference": quality - full, "kept": quality / full if ratio and full > 0 else np.nan}
    ends: dict[str, tuple[float, float]] = {}
    if resamples > 0 and min(map(len, parts)) > 1:
        quality_B, full_B = (
            np.mean(
                [_resampled(part[name].to_numpy(np.float64), resamples, seed + n) for n, part in enumerate(parts)], 0
            )
            for name in ("quality", "full")
        )
        kept_B = np.divide(quality_B, full_B, out=np.full_like(full_B, np.nan), where=full_B > 0)
        values = {"quality": quality_B, "difference": quality_B - full_B, **({"kept": kept_B} if ratio else {})}
        ends = {name: percentile_interval(value_B) or (np.nan, np.nan) for name, value_B in values.items()}
    found = {"fraction": fraction, "full_quality": full}
    for name, value in known.items():
        low, high = ends.get(name, (np.nan, np.nan))
        found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return found


def _resampled(values_N: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Means over bootstrap resamples (B)."""
    N = len(values_N)
    return np.asarray(resampled_counts(N, affordable_resamples(resamples, N), seed) @ values_N / N)


class _Answers:
    """Right and wrong answers of a run, and of its tries by their own and by other references."""

    def __init__(self, experiment: Experiment, permutations: int) -> None:
        self._experiment = experiment
        self.permutations = experiment.affordable_permutations(permutations) if permutations > 0 else 0
        evaluations = experiment.evaluations
        self._code_E = experiment.codes()
        self._number_E = evaluations["number"].to_numpy(np.int64)
        self._fraction_E = evaluations["cost"].to_numpy(np.float64) / experiment.full_cost
        self._right_E = qualifies(evaluations[experiment.metric].to_numpy(np.float64), np.asarray(BAR), 0.0)
        self._place = pd.Series(np.arange(len(experiment.sequences)), index=experiment.sequences["sequence"])

    @cached_property
    def _null(self) -> tuple[BoolArray, BoolArray]:
        """Whether each output is right by another sequence's references (P E); whether that says something (P N)."""
        experiment = self._experiment
        partner_PN = partners(experiment.sequences["task"], self.permutations, experiment.seed)
        right_PE = qualifies(experiment.shuffled_quality(partner_PN), np.asarray(BAR), 0.0)
        other_PN = ~np.stack([agreeing(experiment, partner_N) for partner_N in partner_PN])
        full_PN = np.zeros(other_PN.shape, dtype=bool)
        is_full_E = self._number_E == 0
        full_PN[:, self._code_E[is_full_E]] = right_PE[:, is_full_E]
        return right_PE, other_PN & ~full_PN

    def changes(self, outcomes: pd.DataFrame, *, chooses: bool) -> dict[str, float]:
        """Numbers of answers that change, and what chance gives.

        Args:
            outcomes: per sequence `quality`, `full` (the full model's) and `fraction` (of the full model's cost).
            chooses: whether the method chose the best of all tries; otherwise it has one.
        """
        was, now = (qualifies(outcomes[name].to_numpy(), np.asarray(BAR), 0.0) for name in ("full", "quality"))
        place_N = self._place.loc[outcomes["sequence"]].to_numpy(np.int64)
        limit_N = np.full(len(self._place), -1.0)
        limit_N[place_N] = outcomes["fraction"].to_numpy(np.float64) + SLACK
        tried_E = (self._number_E > 0) & (self._fraction_E <= limit_N[self._code_E])
        tries_N, hits_N = self._count(tried_E)[place_N], self._count(tried_E & self._right_E)[place_N]
        share_N = np.divide(hits_N, tries_N, out=np.full(len(place_N), np.nan), where=tries_N > 0)
        return {
            "right": int(was.sum()),
            "wrong": int((~was).sum()),
            "right_to_wrong": int((was & ~now).sum()),
            "random_right_to_wrong": _expected(1 - share_N[was], int(was.sum())),
            "wrong_to_right": int((~was & now).sum()),
            "random_wrong_to_right": _expected(share_N[~was], int((~was).sum())),
            "null_wrong_to_right": _expected(self._lucky(tried_E, place_N, chooses)[~was], int((~was).sum())),
        }

    def _lucky(self, tried_E: BoolArray, place_N: IntArray, chooses: bool) -> FloatArray:
        """Chance that the tries of each sequence reach the bar by other references; NaN where that says nothing."""
        if not self.permutations:
            return np.full(len(place_N), np.nan)
        right_PE, telling_PN = self._null
        tries_N = self._count(tried_E)
        hits_PN = np.stack([self._count(tried_E & right_E) for right_E in right_PE])
        shares = np.divide(hits_PN, tries_N, out=np.zeros(hits_PN.shape), where=tries_N > 0)
        lucky_PN = (hits_PN > 0).astype(np.float64) if chooses else shares
        telling_PN = telling_PN & (tries_N > 0)
        count_N = telling_PN.sum(axis=0)
        sum_N = np.where(telling_PN, lucky_PN, 0.0).sum(axis=0)
        return np.divide(sum_N, count_N, out=np.full(len(count_N), np.nan), where=count_N > 0)[place_N]

    def _count(self, chosen_E: BoolArray) -> IntArray:
        return np.bincount(self._code_E[chosen_E], minlength=len(self._place))


def _expected(chance_N: FloatArray, count: int) -> float:
    """Expected number among `count` sequences, from those whose chance is known; NaN if none is."""
    known = chance_N[~np.isnan(chance_N)]
    return float(known.mean() * count) if len(known) else (0.0 if not count else np.nan)
