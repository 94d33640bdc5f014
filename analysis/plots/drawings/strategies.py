"""The figure of search strategies: budgets found against evaluations spent, one curve per run."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.comparison import signed_rank
from analysis.experiment import Experiment
from analysis.formatting import FEW, counted, interval_text, metric_label, per_token, percent, plain
from analysis.luck.effort_curve import grid, progress_curve
from analysis.per_sequence.savings import upper_budgets
from analysis.plots.source import Drawing, Group, MissingError, Panel, Source, comparable
from analysis.plots.style import log_axis, look_of, percent_axis
from analysis.stats import ends, mean_interval

__all__ = ["strategies"]

SHADED = 3
"""Maximum number of runs with intervals drawn; more would hide one another, and are in the numbers only."""


def strategies(groups: Sequence[Group]) -> Drawing:
    """Mean minimal budget found against the evaluations per sequence, over sequences that tell something in all runs.

    Numbers: `run`, `strategy`, `sequences`, `evaluations`, `fraction` (mean minimal budget after that number, over the
    full model's cost), `low`, `high` (95 % bootstrap interval over sequences).

    Raises:
        MissingError: for a single run, or if the runs differ in sequences, metric or cost.
    """
    # Repetitions of a strategy are curves of their own: their spread is what the figure is about.
    sources = [
        source for group in comparable(groups, same=("metric", "tolerance", "measure")) for source in group.sources
    ]
    if len(sources) < 2:
        raise MissingError("strategies are compared over two runs or more: name another run (luck_curve shows one)")
    experiments = [source.experiment for source in sources]
    labels = _labels(groups)
    curves = [_curve(experiment) for experiment in experiments]
    table = _numbers(sources, curves, len(experiments[0].sequences))
    # A bootstrap of few sequences is no interval.
    shaded = len(curves) <= SHADED and len(experiments[0].sequences) > FEW

    def draw(axes: Axes) -> None:
        for i, (label, curve) in enumerate(zip(labels, curves, strict=True)):
            look, x = look_of(i), curve["evaluations"]
            axes.plot(x, curve["fraction"], label=plain(label), **look.line())
            if shaded:
                axes.fill_between(x, curve["low"], curve["high"], color=look.color, alpha=0.12, linewidth=0)
        log_axis(axes, table["evaluations"].max(), "evaluations per sequence, full model included")
        axes.set_ylabel(f"mean minimal budget, fraction of {per_token(experiments[0].measure)}")
        axes.set_ylim(-0.015, 1.03)
        percent_axis(axes.yaxis)

    finding, detail = _headline(experiments, labels)
    return Drawing(
        table=table,
        panels={"budget": Panel(draw=draw, height=2.9)},
        finding=finding,
        detail=detail,
        note="Shaded: 95 % interval over sequences" if shaded else "",
    )


def _labels(groups: Sequence[Group]) -> list[str]:
    """The labels given, or the strategies, with the run's name where several runs share one."""
    strategies = [source.strategy for group in groups for source in group.sources]
    labels = []
    for group in groups:
        for number, source in enumerate(group.sources, start=1):
            if not group.label.startswith(source.name):
                labels.append(f"{group.label} ({number})" if len(group.sources) > 1 else group.label)
            elif strategies.count(source.strategy) > 1:
                labels.append(f"{source.strategy} ({group.label})")
            else:
                labels.append(source.strategy)
    return labels


def _curve(experiment: Experiment) -> pd.DataFrame:
    """The progress at numbers of evaluations evenly spread on a logarithmic axis, with intervals."""
    curve = progress_curve(experiment)[["evaluations", "fraction"]]
    curve = curve[curve["evaluations"].isin(grid(len(curve)))].reset_index(drop=True)
    found = (_after(experiment, n).to_numpy() for n in curve["evaluations"])
    return curve.assign(**ends(found, seed=experiment.seed))


def _numbers(sources: Sequence[Source], curves: list[pd.DataFrame], sequences: int) -> pd.DataFrame:
    tables = []
    for source, curve in zip(sources, curves, strict=True):
        about = pd.DataFrame(
            {"run": source.name, "strategy": source.strategy, "sequences": sequences}, index=curve.index
        )
        tables.append(about.join(curve))
    return pd.concat(tables, ignore_index=True)


def _after(experiment: Experiment, evaluations: int) -> pd.Series:
    """Fraction found to suffice for each sequence after a number of evaluations."""
    rows = experiment.evaluations[experiment.evaluations["number"] < evaluations]
    found = upper_budgets(rows, metric=experiment.metric, tolerance=experiment.tolerance) / experiment.full_cost
    return pd.Series(found, index=rows["sequence"].unique())


def _headline(experiments: list[Experiment], labels: list[str]) -> tuple[str, str]:
    shared = min(int(experiment.evaluations["number"].max()) + 1 for experiment in experiments)
    found = [_after(experiment, shared) for experiment in experiments]
    order = np.argsort([values.mean() for values in found], kind="stable")
    best, sequences = order[0], len(found[0])
    metric = metric_label(experiments[0].metric)
    detail = f"{counted(sequences)}, criterion {metric}"
    finding = f"After {shared} evaluations '{labels[best]}' has found a mean budget of {percent(found[best].mean())}"
    if len(found) > 1:
        second = order[1]
        less = (found[second] - found[best]).to_numpy()
        interval = mean_interval(less, resamples=1000, seed=experiments[0].seed)
        detail += f"; {100 * less.mean():.1f} points less than '{labels[second]}'"
        ends = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else ""
        detail += f", paired {interval_text(sequences, ends)}" if ends else ""
        detail += f", p = {signed_rank(less)[1]:.2g}"
        if interval and interval[0] <= 0:
            leader = f"'{labels[best]}' is at {percent(found[best].mean())}"
            finding = f"After {shared} evaluations no strategy is clearly ahead: {leader}"
    return finding, detail
