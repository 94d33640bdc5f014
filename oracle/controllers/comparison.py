"""Comparison of controllers on one run: quality, executed fraction, captured headroom, speed."""

import math
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from analysis.stats import mean_interval
from oracle.allocations import compact
from oracle.controllers.cross_validation import CrossValidation, Result
from oracle.controllers.headroom import RESAMPLES, Frontiers, captured
from oracle.controllers.methods import gate_training
from oracle.controllers.methods.gates import DECISIONS, SHAPES, GlavasFixed, GlavasHidden
from oracle.controllers.quality_table import QualityTable
from oracle.controllers.registry import CONTROLLERS, chosen, get_controller, setting
from oracle.controllers.run_context import RunContext
from oracle.controllers.timing import BATCHES, Stopwatch
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.pipeline.reload import model_of
from oracle.store import Run
from oracle.store.derived import DerivedTables, key_of, origin_of
from oracle.types import RunPath
from oracle.utils.progress import Advance, Watch, automatic

__all__ = ["SCHEMA", "Comparison", "Curves", "compare_run"]

FOLDER = "controllers"

NAME = "comparison"

VERSION = 5
"""Increment when the same settings give different results; results of other versions are recomputed."""

TIMED = ("tokens_per_second", "speedup", "of_ideal")

SCHEMA = pa.schema(
    [
        ("controller", pa.string()),
        ("setting", pa.string()),
        ("kind", pa.string()),
        ("executed_fraction", pa.float64()),
        ("quality", pa.float64()),
        ("static_quality", pa.float64()),
        ("oracle_quality", pa.float64()),
        ("null_quality", pa.float64()),
        ("mixed_quality", pa.float64()),
        ("captured", pa.float64()),
        ("captured_low", pa.float64()),
        ("captured_high", pa.float64()),
        ("flops", pa.float64()),
        ("flops_fraction", pa.float64()),
        ("layers", pa.string()),
        *((f"{name}_{batch}", pa.float64()) for name in TIMED for batch in BATCHES),
    ]
)
"""One row per controller and setting. `executed_fraction`, `quality`: means over sequences, out of sample. Baselines at
equal fraction: the best static mask, the oracle, the null oracle (shuffled references), and the best random mixture of
static masks. `captured`: (quality - static) / (oracle - static) with its 95 % interval. `flops`: per generated token;
`flops_fraction`: over the full model's. `layers`: what fixed and learned masks run, and in how many folds each was
chosen; null where sequences or tokens differ. `speedup`: over the full model, timed in turns; `of_ideal`: over 1 /
fraction, with the fraction of layers that ran while timed, over the first 8 tokens of an output."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Results of a comparison.

    Attributes:
        rows: one row per controller and setting, with the columns of `SCHEMA`.
        findings: quality gained by hidden-state input over fixed input, one entry per gate shape and decision.
        left_out: controllers that the run's unit does not allow.
        metric: name of the quality metric.
        sequences: number of sequences.
        path: the table's file; it also holds the controllers of earlier comparisons of the same sequences.
        fuller: file of an earlier comparison of more sequences or controllers, which figures and reports go on to show;
            None if they show this one.
    """

    rows: pd.DataFrame
    findings: list[dict[str, Any]]
    left_out: list[str]
    metric: str
    sequences: int
    path: Path
    fuller: Path | None = None


def derived_tables(context: RunContext) -> DerivedTables:
    """Tables of one selection of sequences, from which an interrupted comparison of them continues."""
    origin = origin_of(context.run.manifest)
    key = key_of(VERSION, origin, context.ids)
    return DerivedTables(context.run.folder / FOLDER / key, key=key, origin=origin)


def compare_run(
    folder: RunPath,
    *,
    controllers: str = "all",
    model: LanguageModel | str | None = None,
    limit: int | None = None,
    timed: bool = True,
    device: str | None = None,
    trust_remote_code: bool = False,
    watch: Watch = automatic,
) -> Comparison:
    """Compares controllers on the sequences of a run, and writes `RUN/controllers/KEY/comparison.parquet`.

    Controllers that learn are cross-validated. Finished controllers are stored next to the table, and an interrupted
    comparison continues from them. KEY is a digest of the run and the selected sequences. The table is copied to
    `RUN/controllers/comparison.parquet`, which figures and reports show, unless that holds a fuller comparison.

    Args:
        folder: the run.
        controllers: comma-separated names, or `all`.
        model: the run's model, if already loaded, or its name; by default its name in the run.
        limit: maximum number of sequences, evenly spaced over the run; None for all.
        timed: whether to measure tokens per second.
        device: device to load the model on; None for the run's setting.
        trust_remote_code: whether code shipped with the model may run while loading it; requires its name.
        watch: reports progress.

    Raises:
        InputError: for unknown names, fewer than two sequences, or an invalid run.
    """
    run = Run.open(folder)
    if (scope := run.manifest["config"]["scope"]) == "decode-last":
        raise InputError(
            f"controllers run in scope decode or sequence, but '{folder}' has {scope}; search in one of these"
        )
    names, left_out = _suitable(chosen(controllers), run.manifest["config"]["unit"])
    model = model_of(run, model, device=device, trust_remote_code=trust_remote_code)
    context = RunContext.open(folder, model=model, limit=limit, watch=watch)
    tables = derived_tables(context)
    prompts = [example.prompt for example in context.examples.values()]
    stopwatch = Stopwatch(context.engine.model, context.engine.config, prompts) if timed else None
    wanted = [(name, settings) for name in names for settings in get_controller(name).sweep(context.units)]
    # The baselines need these two.
    basis = [(name, settings) for name in ("full", "static") for settings in get_controller(name).sweep(context.units)]
    queue = [*basis, *(one for one in wanted if one not in basis)]
    results = {}
    with watch("controllers", len(queue)) as advance:
        quality_table = QualityTable(context, tables, _within(advance))
        cross_validation = CrossValidation(context, quality_table, tables, stopwatch, _within(advance))
        for name, settings in queue:
            advance(0, f"{name} {setting(settings)}")
            results[name, setting(settings)] = cross_validation.result(name, settings)
            advance(1, "")
    curves = Curves(context, quality_table, list(results.values()))
    frontiers = Frontiers(context.experiment, context.ids, curves.points("static"))
    full = results["full", ""]
    rows = [
        _row(results[name, setting(settings)], full, frontiers, context.experiment.seed) for name, settings in wanted
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    findings = curves.findings(context.experiment.seed)
    path, fuller = _keep(tables, table, findings, len(context.ids))
    return Comparison(
        rows=table.to_pandas(),
        findings=findings,
        left_out=left_out,
        metric=context.metric,
        sequences=len(context.ids),
        path=path,
        fuller=fuller,
    )


def _suitable(names: list[str], unit: str) -> tuple[list[str], list[str]]:
    """Controllers that the run's unit allows, and those it does not.

    Raises:
        InputError: if the latter were requested by name.
    """
    unable = [name for name in names if unit not in get_controller(name).units]
    suitable = [name for name in names if name not in unable]
    if unable and names != list(CONTROLLERS):
        others = ",".join(name for name, kind in CONTROLLERS.items() if unit in kind.units)
        raise InputError(
            f"{', '.join(unable)}: a run with unit 'layer' is required, but its unit is '{unit}'; "
            f"use --controllers {others}"
        )
    return suitable, unable


def _keep(
    tables: DerivedTables, table: pa.Table, findings: list[dict[str, Any]], sequences: int
) -> tuple[Path, Path | None]:
    """Writes a comparison, with the rows of earlier ones of the same sequences for controllers not compared now.

    Returns:
        The path of the table that figures show, and None; or the table's own path, and that of a fuller one.
    """
    rows, now = table.to_pylist(), set(table.column("controller").to_pylist())
    if earlier := tables.read(NAME, SCHEMA):
        rows += [row for row in earlier[0].to_pylist() if row["controller"] not in now]
        findings = findings or earlier[1].get("findings", [])
    places = {name: place for place, name in enumerate(CONTROLLERS)}
    rows.sort(key=lambda row: places.get(row["controller"], len(places)))
    about = {"findings": findings, "sequences": sequences, "version": VERSION}
    path = tables.write(NAME, pa.Table.from_pylist(rows, schema=SCHEMA), about)
    shown = tables.in_folder(tables.folder.parent)
    if _is_fuller(shown, sequences, {row["controller"] for row in rows}):
        return path, shown.path(NAME)
    return shown.write(NAME, pa.Table.from_pylist(rows, schema=SCHEMA), about), None


def _is_fuller(shown: DerivedTables, sequences: int, controllers: set[str]) -> bool:
    """Whether the comparison shown is another one of the same run, and has sequences or controllers that ours lacks."""
    found = shown.read(NAME, SCHEMA, any_key=True)
    if found is None or found[1]["key"] == shown.key or found[1].get("version", VERSION) != VERSION:
        return False
    if any(found[1].get(name) != value for name, value in shown.origin.items()):
        return False
    # Earlier versions did not record the number of sequences.
    more = found[1].get("sequences", math.inf) > sequences
    return more or not set(found[0].column("controller").to_pylist()) <= controllers


def _within(advance: Advance) -> Watch:
    """Reports progress within one controller as a remark on the outer bar: only one bar is shown at a time."""

    @contextmanager
    def watch(description: str, total: int) -> Iterator[Advance]:
        done = 0

        def show(count: int, remark: str) -> None:
            nonlocal done
            done += count
            advance(0, f"{description} {done}/{total} {remark}")

        yield show

    return watch


def _row(result: Result, full: Result, frontiers: Frontiers, seed: int) -> dict[str, Any]:
    quality_N = result.rows["quality"].to_numpy(np.float64)
    fraction = float(result.rows["fraction"].mean())
    baselines = frontiers.at(fraction)
    share, low, high = captured(quality_N, baselines.static_N, baselines.oracle_N, seed=seed)
    flops, whole = (one.rows["flops"].astype(float).mean() for one in (result, full))
    return {
        "controller": result.controller,
        "setting": setting(result.settings),
        "kind": result.kind,
        "executed_fraction": fraction,
        "quality": float(quality_N.mean()),
        "static_quality": float(baselines.static_N.mean()),
        "oracle_quality": float(baselines.oracle_N.mean()),
        "null_quality": baselines.null,
        "mixed_quality": baselines.mixed,
        "captured": share,
        "captured_low": low,
        "captured_high": high,
        "flops": None if math.isnan(flops) else flops,
        "flops_fraction": None if math.isnan(flops) else flops / whole,
        "layers": _layers(result),
        **_speeds(result),
    }


def _layers(result: Result) -> str | None:
    """The masks of a controller that runs one per fold, those of most folds first, with the number of folds."""
    if result.rows["mask"].isna().any():
        return None
    by_fold = result.rows.drop_duplicates("fold")["mask"]
    counts = Counter(compact(mask) for mask in by_fold)
    if len(by_fold) == 1:
        return next(iter(counts))
    return "; ".join(f"{mask} ({count} of {len(by_fold)} folds)" for mask, count in counts.most_common())


def _speeds(result: Result) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for speed in result.speeds:
        speedup = speed.tokens_per_second / speed.full
        found[f"tokens_per_second_{speed.batch}"] = speed.tokens_per_second
        found[f"speedup_{speed.batch}"] = speedup
        found[f"of_ideal_{speed.batch}"] = speedup * speed.fraction
    return found


class Curves:
    """Quality against executed fraction over each controller's sweep.

    Args:
        context: the run.
        quality_table: gives the qualities of the full model and the empty mask, the ends of every curve.
        results: results of all controllers and settings.
    """

    def __init__(self, context: RunContext, quality_table: QualityTable, results: Seq[Result]) -> None:
        self._results = results
        full = tuple(range(context.units))
        ends_N2 = quality_table.qualities(context.ids, [(), full])
        self._ends = [(0.0, ends_N2[:, 0]), (1.0, ends_N2[:, 1])]

    def points(self, controller: str, **settings: Any) -> list[tuple[float, NDArray[np.float64]]]:
        """Mean fraction and per-sequence qualities (N) of both ends and of each matching setting."""
        return [*self._ends, *(_point(one) for one in self._matching(controller, settings))]

    def _matching(self, controller: str, settings: dict[str, Any]) -> list[Result]:
        return [
            one for one in self._results if one.controller == controller and settings.items() <= one.settings.items()
        ]

    def findings(self, seed: int) -> list[dict[str, Any]]:
        """Quality gained by hidden-state input over fixed input, per gate shape and kind of decision.

        Glavas et al. 2024 (arXiv 2410.20022) found the fixed input about as good. The fixed gates' quality is
        interpolated linearly at the fraction of each hidden-state gate; the differences are averaged over the sweep and
        then over sequences. One training seed: `tests/benchmarks/gates.py` covers several.

        Args:
            seed: seed of the bootstrap over sequences.

        Returns:
            Per shape and decision with both inputs: `shape`, `decision`, `difference` (hidden minus fixed, in units of
            the metric), `low` and `high` (95 % interval over sequences; None for a single sequence), `settings`
            (number), `fraction` (mean over settings), and the evidence: `sequences`, `steps` of training, `alphas`.
        """
        found = []
        for shape, decision in product(SHAPES, DECISIONS):
            chosen = {"shape": shape, "decision": decision}
            hidden = self._matching(GlavasHidden.name, chosen)
            if not hidden or not self._matching(GlavasFixed.name, chosen):
                continue
            fixed = sorted(self.points(GlavasFixed.name, **chosen), key=lambda point: point[0])
            at, qualities = [fraction for fraction, _ in fixed], np.stack([quality_N for _, quality_N in fixed])
            differences = []
            for fraction, quality_N in map(_point, hidden):
                differences.append(quality_N - [np.interp(fraction, at, column) for column in qualities.T])
            mean_N = np.mean(differences, axis=0)
            low, high = mean_interval(mean_N, resamples=RESAMPLES, seed=seed) or (None, None)
            found.append(
                {
                    **chosen,
                    "difference": float(mean_N.mean()),
                    "low": low,
                    "high": high,
                    "settings": len(hidden),
                    "fraction": float(np.mean([_point(one)[0] for one in hidden])),
                    "sequences": len(mean_N),
                    "steps": gate_training.Plan().steps,
                    "alphas": [one.settings["alpha"] for one in hidden],
                }
            )
        return found


def _point(result: Result) -> tuple[float, NDArray[np.float64]]:
    return float(result.rows["fraction"].mean()), result.rows["quality"].to_numpy(np.float64)
