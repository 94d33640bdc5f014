"""The best single mask of a run at each budget: searched on a training part, judged on held-out sequences."""

import shlex
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from analysis.measurements import STATIC, static_masks
from analysis.stats import mean_interval
from oracle.allocations import compact
from oracle.controllers.prompts import Example
from oracle.controllers.quality_table import QualityTable
from oracle.controllers.run_context import RunContext
from oracle.engine import FixedLengthEngine
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.search.mask_search import METHODS, SLACK, MaskSearch
from oracle.static.plan import Judge, Plan
from oracle.store import Run
from oracle.store.derived import DerivedTables, key_of, origin_of
from oracle.types import Allocation, RunPath
from oracle.utils.progress import Advance, Watch, automatic

__all__ = ["SCHEMA", "StaticCurve", "chosen_mask", "find_static"]

SPEEDUPS = (10 / 9, 1.25, 1.5, 5 / 3, 2.0)
"""Nominal speed-ups of the curve: from 27 to 15 of 30 layers."""

VERSION = 3
"""Increment when the same settings give different results."""

RESAMPLES = 2000

TIMED_TOKENS = 16
"""Tokens of every timed output; the first comes from the prompt's pass and is not counted."""

ROUNDS = 3
"""Timed rounds, all masks in turn; the median counts."""

SCHEMA = pa.schema(
    [
        ("method", pa.string()),
        ("budget", pa.float64()),
        ("cost", pa.float64()),
        ("fraction", pa.float64()),
        ("units", pa.int32()),
        ("allocation", pa.list_(pa.int16())),
        ("chosen", pa.bool_()),
        ("training", pa.float64()),
        ("evaluations", pa.int64()),
        ("quality", pa.float64()),
        ("quality_low", pa.float64()),
        ("quality_high", pa.float64()),
        ("full_quality", pa.float64()),
        ("kl", pa.float64()),
        ("kl_low", pa.float64()),
        ("kl_high", pa.float64()),
        ("ahead", pa.float64()),
        ("ahead_low", pa.float64()),
        ("ahead_high", pa.float64()),
        ("tokens_per_second", pa.float64()),
        ("full_tokens_per_second", pa.float64()),
    ]
)
"""One row per budget and method. `budget`, `cost`: per generated token, in the run's unit of measure; `fraction`: over
the full model's. `chosen`: the best of the budget on the training part. `training`: mean objective there (minus KL, or
quality). `evaluations`: (mask, sequence) pairs that the method added to those known before, over all budgets. On the
held-out sequences, with 95 % intervals: `quality` by the run's criterion, `full_quality` of the full model, `kl` in
nats per token, and `ahead`: objective of the chosen mask minus the method's, paired. Tokens per second: of chosen masks
and the full model, batch 1. The provenance's `held_out_quality` holds, by chosen mask, the quality of each held-out
sequence."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StaticCurve:
    """Results of a search for static masks.

    Attributes:
        rows: one row per budget and method, columns of `SCHEMA`.
        metric: the run's criterion metric.
        judge: the objective on the training part.
        measure: unit of measure of budgets and costs.
        training: ids of the training sequences.
        held_out: ids of the held-out sequences.
        path: the table's file.
    """

    rows: pd.DataFrame
    metric: str
    judge: Judge
    measure: str
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    path: Path


def find_static(
    folder: RunPath,
    plan: Plan | None = None,
    *,
    model: LanguageModel | None = None,
    load: Callable[[], LanguageModel] | None = None,
    watch: Watch = automatic,
) -> StaticCurve:
    """Finds one mask per budget for the sequences of a run, and writes a table under `RUN/static`.

    Each plan has a table of its own. A result of the same run and plan is read again instead of being computed.

    Args:
        folder: a run whose search has ended.
        plan: settings; None for the defaults.
        model: the run's model, if already loaded.
        load: loads the run's model, if it is needed; None to load it by its name in the run.
        watch: reports progress.

    Raises:
        InputError: if the run has fewer than four sequences, or a budget is out of range.
    """
    plan, run = plan or Plan(), Run.open(folder)
    key = key_of(VERSION, run.manifest["model"], run.manifest["config"], run.manifest.get("data"), vars(plan))
    tables = DerivedTables(run.folder / STATIC, key=key, origin=origin_of(run.manifest))
    name = f"{'curve' if not (plan.budgets or plan.speedups) else 'budgets'}-{key[:8]}"
    found = tables.read(name, SCHEMA)
    if found is None:
        budgets = _budgets(run, plan)  # refused before a model is loaded
        if model is None and load is not None:
            model = load()
        context = RunContext.open(folder, model=model, limit=plan.limit, watch=watch)
        rows, about = _Search(context, plan, budgets, watch).rows()
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        path = tables.write(name, table, about)
    else:
        table, about = found
        path = tables.path(name)
    return StaticCurve(
        rows=table.to_pandas(),
        metric=about["metric"],
        judge=plan.judge,
        measure=about["measure"],
        training=tuple(about["training"]),
        held_out=tuple(about["held_out"]),
        path=path,
    )


def chosen_mask(run: Run, budget: float) -> Allocation:
    """The chosen static mask of the stored ones at a budget: that of the highest cost within it.

    Raises:
        InputError: if the run has no valid table of static masks, or none within the budget.
    """
    table = static_masks(run.folder)
    share = share_hint(budget, run.full_cost, run.measure)
    wanted = budget * run.full_cost if share else budget
    wanted = round(wanted) if run.costs is None else wanted
    advice = f"find one with: oracle static {shlex.quote(str(run.folder))} --budget {wanted:g}"
    if table is None:
        raise InputError(f"the run has no static masks{share}; {advice}")
    rows = table[table["chosen"] & (table["cost"] <= budget + SLACK)]
    if rows.empty:
        least = table["cost"].min()
        raise InputError(
            f"no static mask costs at most {budget:g}{share}; the cheapest of the run costs {least:g}; {advice}"
        )
    best = max(rows.to_dict("records"), key=lambda row: row["cost"])
    return tuple(int(unit) for unit in best["allocation"])


def share_hint(budget: float, total: float, measure: str) -> str:
    """What a budget would be if it was meant as a fraction of the full model's cost; empty if it cannot be one."""
    return f"; {budget:g} of {total:g} {measure} is {budget * total:g}" if 0 < budget < 1 < total else ""


def _budgets(run: Run, plan: Plan) -> list[float]:
    """Budgets of the units alone that a plan asks for, from high to low."""
    (units, overhead), total, measure = run.prices, run.full_cost, run.measure
    asked = [*plan.budgets, *(total / one for one in plan.speedups)]
    asked = asked or [total / one for one in SPEEDUPS]
    if max(asked) > total:
        raise InputError(f"a budget of at most {total:g} {measure} is possible, not {max(asked):g}")
    least = overhead + min(units)
    if min(asked) < least:
        raise InputError(
            f"a budget of at least {least:g} {measure} is required for one unit, not {min(asked):g}; "
            f"give a larger --budget or a smaller --speedup{share_hint(min(asked), total, measure)}"
        )
    return sorted({one - overhead for one in asked}, reverse=True)


class _Search:
    """One search over the sequences of a run."""

    def __init__(self, context: RunContext, plan: Plan, budgets: Seq[float], watch: Watch) -> None:
        self._context, self._plan, self._budgets, self._watch = context, plan, budgets, watch
        self._qualities = QualityTable(context, watch=watch)
        ids = context.ids
        count = round(plan.training * len(ids))
        if count < 2 or len(ids) - count < 2:
            raise InputError(
                f"at least 2 training and 2 held-out sequences are required, but {len(ids)} sequences give {count} and "
                f"{len(ids) - count}; use a run with more sequences or another --training"
            )
        order = np.random.default_rng(plan.seed).permutation(len(ids))
        self._training = [ids[place] for place in sorted(order[:count].tolist())]
        self._held_out = [ids[place] for place in sorted(order[count:].tolist())]
        self._held_out_quality: dict[str, list[float]] = {}
        self._done, self._tick = 0, partial(self._told, lambda count, remark: None, "")
        self._costs, self._overhead = context.run.prices

    def rows(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The rows of the table, and its provenance."""
        plan, budgets = self._plan, self._budgets
        search = MaskSearch(
            costs=self._costs,
            sequences=len(self._training),
            objective=self._objective,
            influence=self._qualities.influence(self._examples(self._training)),
            parts=2 if self._context.run.unit == "sublayer" else 1,
            seed=plan.seed,
        )
        masks: dict[tuple[str, float], Allocation] = {}
        added: dict[str, int] = {}
        with self._watch("static masks", len(plan.methods)) as advance:
            for name in plan.methods:
                before = search.evaluations
                self._tick = partial(self._told, advance, name)
                for budget, mask in METHODS[name](search, budgets, plan.evaluations).items():
                    masks[name, budget] = mask
                added[name] = search.evaluations - before
                advance(1, "")
        rows, chosen = [], {}
        for budget in budgets:
            of_budget = [masks[name, budget] for name in plan.methods]
            chosen[budget] = search.best(of_budget)
        rates = self._rates(list(chosen.values())) if plan.timed else {}
        with self._watch("judging", len(budgets)) as advance:
            self._tick = partial(self._told, advance, "held-out sequences")
            judged_of = []
            for budget in budgets:
                judged_of.append(self._judged([masks[name, budget] for name in plan.methods], chosen[budget]))
                advance(1, "")
        for budget, judged in zip(budgets, judged_of, strict=True):
            for name in plan.methods:
                mask = masks[name, budget]
                training = float(search.means([mask])[0])
                rows.append(
                    {
                        "method": name,
                        "budget": budget + self._overhead,
                        "chosen": mask == chosen[budget],
                        "training": training,
                        "evaluations": added[name],
                        "tokens_per_second": rates.get(mask) if mask == chosen[budget] else None,
                        "full_tokens_per_second": rates.get(tuple(range(search.units))),
                        **judged[mask],
                    }
                )
        about = {
            "metric": self._context.metric,
            "measure": self._context.run.measure,
            "training": self._training,
            "held_out": self._held_out,
            "held_out_quality": self._held_out_quality,
            "plan": vars(plan) | {"methods": list(plan.methods)},
            "machine": self._context.engine.model.machine.to_dict(),
        }
        return rows, about

    def _examples(self, ids: Seq[str]) -> list[Example]:
        return [self._context.examples[name] for name in ids]

    def _objective(self, masks: Seq[Allocation], some: NDArray[np.int64]) -> NDArray[np.float64]:
        ids = [self._training[place] for place in some.tolist()]
        return self._values(masks, ids, self._plan.judge).T

    def _values(self, masks: Seq[Allocation], ids: Seq[str], judge: Judge) -> NDArray[np.float64]:
        """Values (N M), higher is better."""
        if judge == "quality":
            return self._qualities.qualities(ids, masks)
        engine, found = self._context.engine, []
        for one in self._examples(ids):
            found.append(engine.divergences(one.prompt.state, list(masks), one.tokens))
            self._tick(len(masks))
        return -np.array(found)

    def _told(self, advance: Advance, what: str, count: int) -> None:
        """Reports evaluations (mask, sequence) beside the bar."""
        self._done += count
        advance(0, f"{what}, {self._done:,} evaluations")

    def _judged(self, masks: Seq[Allocation], chosen: Allocation) -> dict[Allocation, dict[str, Any]]:
        """Values of the masks of one budget on the held-out sequences, with intervals."""
        masks, every = list(dict.fromkeys(masks)), tuple(range(self._context.units))
        full_N1 = self._qualities.qualities(self._held_out, [every])
        quality_NM = self._qualities.qualities(self._held_out, masks)
        kl_NM = -self._values(masks, self._held_out, "kl")
        objective_NM = quality_NM if self._plan.judge == "quality" else -kl_NM
        best_N = objective_NM[:, masks.index(chosen)]
        found: dict[Allocation, dict[str, Any]] = {}
        self._held_out_quality[compact(chosen)] = quality_NM[:, masks.index(chosen)].tolist()
        for place, mask in enumerate(masks):
            cost = sum(self._costs[unit] for unit in mask) + self._overhead
            found[mask] = {
                "allocation": list(mask),
                "units": len(mask),
                "cost": cost,
                "fraction": cost / self._context.run.full_cost,
                "full_quality": float(full_N1.mean()),
                **self._mean("quality", quality_NM[:, place]),
                **self._mean("kl", kl_NM[:, place]),
                **self._mean("ahead", best_N - objective_NM[:, place]),
            }
        return found

    def _mean(self, name: str, values_N: NDArray[np.float64]) -> dict[str, float | None]:
        """A mean over sequences with its interval, under names of the table."""
        low, high = mean_interval(values_N, resamples=RESAMPLES, seed=self._plan.seed) or (None, None)
        return {name: float(values_N.mean()), f"{name}_low": low, f"{name}_high": high}

    def _rates(self, masks: Seq[Allocation]) -> dict[Allocation, float]:
        """Tokens per second of masks and of the full model at batch 1, timed in turns; the median of the rounds."""
        context = self._context
        timed = FixedLengthEngine(context.engine.model, replace(context.engine.config, max_new_tokens=TIMED_TOKENS))
        prompts = [one.prompt.state for one in self._examples(self._held_out)]
        masks = [tuple(range(context.units)), *dict.fromkeys(masks)]
        seconds: dict[Allocation, list[float]] = {mask: [] for mask in masks}
        with self._watch("Timing", ROUNDS) as advance:
            for prompt in islice(cycle(prompts), ROUNDS):
                for mask in masks:
                    began = perf_counter()
                    timed.generate([(replace(prompt), mask)])
                    seconds[mask].append(perf_counter() - began)
                advance(1, "")
        counted = TIMED_TOKENS - prompts[0].given
        return {mask: counted / median(times) for mask, times in seconds.items()}
