"""A run as DataFrames, read under one criterion and cost."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oracle.costs import Costs, costs_of_file
from oracle.errors import InputError
from oracle.metrics import METRICS, agreement, answer_in, get_metric, score_text
from oracle.store import Run
from oracle.store.html import card
from oracle.types import RunPath
from oracle.utils.text import nearest_hint
from oracle.utils.validation import check_list

__all__ = ["Experiment", "InputError", "as_experiment", "load"]

SCORED = 1_000_000
"""Maximum number of outputs scored again against shuffled references, unless a single permutation has more."""

DROPPED = ["sequence", "number", "family", "allocation"]
"""Columns kept of outputs that the search dropped."""

HARDWARE = ("device", "gpu", "processor", "instructions", "dtype")
"""What of a manifest's machine results depend on; the number of workers is left out, because they do not."""

UNIFORM = ("random", "spread")
"""Strategies whose masks of family `random` are uniform over those of each size; see `oracle.search.enumeration`."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run read under one criterion.

    Attributes:
        sequences: `sequence`, `task`, `prompt`, `references`, `choices`, `answer`, `prompt_tokens`; only sequences
            whose full model has been evaluated.
        evaluations: `sequence`, `number` (0 is the full model), `family`, `allocation`, `cost` (in `measure`),
            `tokens`, `text` and one column per metric.
        layers: number of units of the model: L decoder blocks, or 2L where attention and MLP are separate.
        unit: `layer` or `sublayer`.
        metric: column of `evaluations` that is the quality.
        kind: input of the metric; see `oracle.metrics.Metric`.
        tolerance: an allocation qualifies if its quality >= the full model's - tolerance.
        scope: `decode` (the prompt runs at full depth) or `sequence` (the allocation runs it too).
        floor: lowest value of the metric; None if it has none.
        seed: of the run, and of the analyses' random draws.
        provenance: origin of the numbers, stored with every figure: model, data, configuration, versions.
        score: quality of (text, references) for kind `text`, of (tokens, the full model's tokens) for kind `tokens`;
            None for the others, whose values are stored.
        exhausted: by sequence, the number of units below which the search tested every mask.
        costs: costs of the units; None if each costs 1, without overhead.
        paths: whether layers may repeat, so that skip masks are not all there is.
        uniform: whether the masks of family `random` were drawn uniformly over the masks of their size.
        dropped: outputs that the search dropped unfinished (`--prune`) and that are not among the evaluations, as their
            quality is unknown: `sequence`, `number`, `family`, `allocation`.
        folder: of the run; None if it is not stored. The experiment is path-like for it, so that it can stand for the
            run where one is read.
        dropped_fail: whether they are known not to meet the criterion: it is the run's own, or a stricter tolerance.
    """

    sequences: pd.DataFrame
    evaluations: pd.DataFrame
    layers: int
    unit: str
    metric: str
    kind: str
    tolerance: float
    scope: str
    floor: float | None
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    score: Callable[[Any, Any], float] | None = None
    exhausted: Mapping[str, int] = field(default_factory=dict)
    costs: Costs | None = None
    paths: bool = False
    uniform: bool = False
    dropped: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=DROPPED))
    dropped_fail: bool = False
    folder: Path | None = field(default=None, compare=False)
    _shuffled: dict[bytes, NDArray[np.float64]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __fspath__(self) -> str:
        if self.folder is None:
            raise InputError("a stored run is required, but this experiment is of none: give a run or its folder")
        return str(self.folder)

    def __repr__(self) -> str:
        counts = f"{len(self.sequences)} sequences, {len(self.evaluations)} evaluations"
        return f"Experiment({counts}, {self.layers} {self.unit}s; {self._read_by}; {self.folder or 'not stored'})"

    def _repr_html_(self) -> str:
        name = "that is not stored" if self.folder is None else self.folder.resolve().name
        rows = [
            ("model", self.provenance.get("model", {}).get("id")),
            ("data", self.provenance.get("data", {}).get("source")),
            ("criterion", self._read_by),
            ("costs", f"{self.measure}, {self.full_cost:g} of the full model"),
            ("sequences", len(self.sequences)),
            ("evaluations", len(self.evaluations)),
        ]
        note = ".sequences and .evaluations are tables; analysis.summarise(...) returns the savings."
        return card(f"Experiment, run {name}", rows, note=note)

    @property
    def _read_by(self) -> str:
        """Criterion and scope in words."""
        tolerance = f" less {self.tolerance:g}" if self.tolerance else ""
        return f"{self.metric} of the full model{tolerance}, scope {self.scope}"

    @property
    def measure(self) -> str:
        """Unit of the costs: `layers` (or `sublayers`), `FLOPs/token` or `ms/token`."""
        return self.costs.unit_of_measure if self.costs else f"{self.unit}s"

    @property
    def full_cost(self) -> float:
        """Cost of the full model, the denominator of fractions."""
        return self.costs.total if self.costs else self.layers

    @property
    def overhead(self) -> float:
        """Cost of a generated token under any allocation, such as the vocabulary head."""
        return self.costs.overhead if self.costs else 0

    @property
    def step(self) -> float | None:
        """Step of which all differences between costs are whole multiples; None if there is none."""
        return self.costs.step if self.costs else 1

    @property
    def least_costs(self) -> NDArray[Any]:
        """Cost of the k cheapest units, k = 0..L: a lower bound for masks of k units."""
        if self.costs is None:
            return np.arange(self.layers + 1)
        order = np.argsort(self.costs.units, kind="stable")
        return self.costs.of_each([order[:k].tolist() for k in range(self.layers + 1)])

    def shuffled_quality(
        self, partner_PN: NDArray[np.int64], chosen_E: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Quality of every evaluation against the references of another sequence (P E).

        Kind `text`: the partner's references. `tokens`: the full model's output on the partner. `choice`: the index of
        the partner's right answer, modulo the number of own choices. Others: the stored value against one other
        sequence, so P is 1 for any input. `partner_PN` holds the row of each sequence's partner in `sequences`; where
        `chosen_E` is false, values may be NaN.
        """
        chosen_E = np.ones(len(self.evaluations), dtype=bool) if chosen_E is None else chosen_E
        key = hashlib.sha256(np.ascontiguousarray(partner_PN).tobytes() + chosen_E.tobytes()).digest()
        if key not in self._shuffled:
            # The null oracle and the luck curve read the same permutations; only the last ones are kept.
            self._shuffled.clear()
            self._shuffled[key] = _SHUFFLED[self.kind](self, partner_PN, chosen_E)
        return self._shuffled[key]

    def affordable_permutations(self, wanted: int, outputs: int | None = None) -> int:
        """Number of permutations whose outputs can be scored in seconds: fewer than wanted for very large runs.

        With that many sequences a single permutation is a mean over as many pairs as ten are for a smaller run.

        Args:
            wanted: number of permutations.
            outputs: number of outputs to score per permutation; None for all.
        """
        return min(wanted, max(1, SCORED // max(1, len(self.evaluations) if outputs is None else outputs)))

    def only(self, ids: Iterable[str]) -> "Experiment":
        """The experiment restricted to some sequences.

        Raises:
            InputError: if there is no such sequence.
        """
        check_list(ids, "ids")
        chosen, known = set(ids), list(self.sequences["sequence"])
        if unknown := chosen.difference(known):
            first = str(min(unknown, key=str))
            raise InputError(f"no sequence of the run is called {first!r}{nearest_hint(first, known)}")
        sequences, evaluations, dropped = (
            table[table["sequence"].isin(chosen)].reset_index(drop=True)
            for table in (self.sequences, self.evaluations, self.dropped)
        )
        return replace(self, sequences=sequences, evaluations=evaluations, dropped=dropped)

    def codes(self) -> NDArray[np.int64]:
        """Row in `sequences` of each evaluation's sequence."""
        codes = pd.Index(self.sequences["sequence"]).get_indexer(self.evaluations["sequence"])
        return np.asarray(codes, dtype=np.int64)


def _scored_once(
    experiment: Experiment,
    outputs: pd.Series,
    targets: list[Any],
    partner_PN: NDArray[np.int64],
    chosen_E: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Scores of the (output, target) pairs of the chosen outputs, NaN for others; each distinct pair is scored once."""
    assert experiment.score is not None, "kinds text and tokens come with a score"
    output_E, output = pd.factorize(_hashable(outputs[chosen_E]))
    target_N, target = pd.factorize(_hashable(targets))
    # In the order of the outputs: those of one sequence share their targets, of which metrics cache what they need.
    wanted_PE = output_E * len(target) + target_N[partner_PN][:, experiment.codes()[chosen_E]]
    pairs, where = np.unique(wanted_PE, return_inverse=True)
    scores = [experiment.score(output[p // len(target)], target[p % len(target)]) for p in pairs.tolist()]
    found_PE = np.full((len(partner_PN), len(outputs)), np.nan)
    found_PE[:, chosen_E] = np.asarray(scores, dtype=np.float64)[where].reshape(wanted_PE.shape)
    return found_PE


def _hashable(values: Any) -> NDArray[np.object_]:
    """The values as an object array, lists as tuples."""
    array = np.empty(len(values), dtype=object)
    array[:] = [value if isinstance(value, str) else tuple(value) for value in values]
    return array


def _shuffled_text(
    experiment: Experiment, partner_PN: NDArray[np.int64], chosen_E: NDArray[np.bool_]
) -> NDArray[np.float64]:
    references = list(experiment.sequences["references"])
    return _scored_once(experiment, experiment.evaluations["text"], references, partner_PN, chosen_E)


def _shuffled_tokens(
    experiment: Experiment, partner_PN: NDArray[np.int64], chosen_E: NDArray[np.bool_]
) -> NDArray[np.float64]:
    full = experiment.evaluations[experiment.evaluations["number"] == 0].set_index("sequence")["tokens"]
    outputs = list(full.loc[experiment.sequences["sequence"]])
    return _scored_once(experiment, experiment.evaluations["tokens"], outputs, partner_PN, chosen_E)


def _shuffled_choice(
    experiment: Experiment, partner_PN: NDArray[np.int64], chosen_E: NDArray[np.bool_]
) -> NDArray[np.float64]:
    answer_N = experiment.sequences["answer"].to_numpy(np.int64)
    choices_N = experiment.sequences["choices"].map(len).to_numpy(np.int64)
    other_PE = (answer_N[partner_PN] % choices_N)[:, experiment.codes()]
    return (experiment.evaluations["choice"].to_numpy(np.float64) == other_PE).astype(np.float64)


def _shuffled_stored(
    experiment: Experiment, partner_PN: NDArray[np.int64], chosen_E: NDArray[np.bool_]
) -> NDArray[np.float64]:
    return experiment.evaluations[f"null_{experiment.metric}"].to_numpy(np.float64)[None]


_SHUFFLED: dict[str, Callable[[Experiment, NDArray[np.int64], NDArray[np.bool_]], NDArray[np.float64]]] = {
    "text": _shuffled_text,
    "tokens": _shuffled_tokens,
    "choice": _shuffled_choice,
    "likelihood": _shuffled_stored,
    "function": _shuffled_stored,
    "continuations": _shuffled_stored,
}


def load(
    folder: RunPath,
    criterion: str | None = None,
    tolerance: float | None = None,
    *,
    costs: Costs | str | None = None,
) -> Experiment:
    """Reads a run under its own criterion and cost or under others, as far as it holds the values.

    Sequences without an evaluated full model are left out.

    Args:
        folder: a run or its path; of an experiment, its run.
        criterion: metric to read it by; None for the run's own.
        tolerance: allowed loss of quality, in units of the metric; None for the run's own, or 0 under another
            criterion, whose units differ.
        costs: cost of the units: `layers`, a file of `oracle profile --out` (`FILE:flops` or `FILE:ms` chooses if it
            holds both, ms by default) or the values; None for the cost that the search minimised.

    Raises:
        InputError: if the criterion is unknown or the run has no values of it, the tolerance is negative, no sequence
            has been evaluated yet, or the costs are not those of the run's model.
    """
    run = Run.open(folder)
    config = run.manifest["config"]
    metric = get_metric(config["criterion"] if criterion is None else criterion)
    if tolerance is None:
        tolerance = config["tolerance"] if metric.name == config["criterion"] else 0.0
    if not tolerance >= 0:
        raise InputError(f"tolerance must be at least 0, got {tolerance}: give the loss allowed, 0 for none")
    evaluations = run.evaluations()
    # Dropped outputs failed the run's own criterion; their qualities are unknown.
    dropped = evaluations.loc[evaluations["dropped"], DROPPED].reset_index(drop=True)
    evaluations = evaluations[~evaluations["dropped"]].reset_index(drop=True)
    if metric.kind == "text" and metric.name not in evaluations:
        evaluations = _scored_now(run, metric.name, evaluations)
    _check_stored(metric.name, METRICS, evaluations)
    scores: dict[str, Callable[[Any, Any], float]] = {
        "text": partial(_score_answer, metric.name, config.get("extract")),
        "tokens": agreement,
    }
    evaluated = set(evaluations.loc[evaluations["number"] == 0, "sequence"])
    if not evaluated:
        raise InputError("at least one evaluated sequence is needed, the run has none: run the search first")
    sequences, found = run.sequences(), _costs(run, costs)
    if costs is not None:  # others than the run's own
        allocations = evaluations["allocation"]
        evaluations = evaluations.assign(cost=found.of_each(allocations) if found else allocations.map(len))
    experiment = Experiment(
        sequences=sequences,
        evaluations=evaluations,
        layers=run.units,
        unit=run.unit,
        metric=metric.name,
        kind=metric.kind,
        tolerance=float(tolerance),
        scope=config["scope"],
        floor=metric.floor,
        seed=int(run.manifest["seed"]),
        provenance=_provenance(run.manifest, metric.name, float(tolerance), found),
        score=scores.get(metric.kind),
        exhausted=_exhausted(run, metric.name, float(tolerance)),
        costs=found,
        paths=bool(config.get("paths")),
        # A run that starts from another one skips what that one kept.
        uniform=config.get("strategy") in UNIFORM and not run.manifest.get("continues"),
        dropped=dropped,
        folder=run.folder,
        dropped_fail=metric.name == config["criterion"] and float(tolerance) <= config["tolerance"],
    )
    return experiment.only(evaluated)


def as_experiment(run: RunPath, criterion: str | None = None, *, costs: Costs | str | None = None) -> Experiment:
    """The experiment of whatever stands for a run: the converter of every function that takes one.

    Args:
        run: an experiment, which is returned; a `Source`, whose experiment is returned; an `oracle.Run` or a path,
            which are read.
        criterion: metric by which a run is read that is not read yet; None for its own.
        costs: cost by which it is read, as for `load`.

    Raises:
        InputError: if it is none of these, or the run cannot be read.
    """
    if isinstance(run, Experiment):
        return run
    held = getattr(run, "experiment", None)  # of a `Source`, which this module cannot import: it draws
    return held if isinstance(held, Experiment) else load(run, criterion, costs=costs)


def _scored_now(run: Run, metric: str, evaluations: pd.DataFrame) -> pd.DataFrame:
    """The evaluations with a text metric that the search did not compute, by their texts."""
    sequences, extract = run.sequences(), run.manifest["config"].get("extract")
    references = dict(zip(sequences["sequence"], map(tuple, sequences["references"]), strict=True))
    pairs = zip(evaluations["text"], evaluations["sequence"].map(references), strict=True)
    values = [_score_answer(metric, extract, text, known) if known else np.nan for text, known in pairs]
    return evaluations.assign(**{metric: values})


def _score_answer(metric: str, extract: str | None, text: str, references: tuple[str, ...]) -> float:
    """Quality of an output by a text metric, as the run computed it."""
    return score_text(metric, answer_in(text, extract), references)


def _costs(run: Run, wanted: Costs | str | None) -> Costs | None:
    """Costs to read a run by; None for layers."""
    if wanted == "layers":
        return None
    if wanted is None:
        return Costs.from_dict(run.costs) if run.costs else None
    costs = costs_of_file(wanted) if isinstance(wanted, str) else wanted
    model = run.manifest["model"]
    costs.check_meant_for(fingerprint=model["fingerprint"], unit=run.unit, dtype=model.get("dtype"))
    return costs


def _exhausted(run: Run, metric: str, tolerance: float) -> dict[str, int]:
    """Tested budgets of the search, if the run is read by the criterion of the search."""
    config = run.manifest["config"]
    if (metric, tolerance) != (config["criterion"], config["tolerance"]):
        return {}
    table = run.certificates()
    return dict(zip(table["sequence"], table["exhausted"].astype(int), strict=True))


def _check_stored(metric: str, known: Iterable[str], evaluations: pd.DataFrame) -> None:
    if metric not in evaluations.columns:
        have = ", ".join(name for name in known if name in evaluations.columns)
        raise InputError(
            f"criterion {metric!r} needs values that only a model can compute; this run has {have}: "
            f"search again with --criterion {metric}, or read it by one of these"
        )


def _provenance(manifest: Mapping[str, Any], metric: str, tolerance: float, costs: Costs | None) -> dict[str, Any]:
    kept = {key: manifest[key] for key in ("model", "data", "config", "versions", "commit", "seed") if key in manifest}
    read_by: dict[str, Any] = {"criterion": metric, "tolerance": tolerance}
    if machine := manifest.get("machine"):
        kept["machine"] = {key: machine[key] for key in HARDWARE if key in machine}
    return {**kept, "read_by": {**read_by, "costs": costs.to_dict()} if costs else read_by}
