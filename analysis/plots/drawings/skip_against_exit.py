"""The figure of skipping against early exit: similarity of hidden state and output to the full model's."""

from functools import partial

import pandas as pd
from matplotlib.axes import Axes

from analysis.experiment import Experiment
from analysis.formatting import FEW, counted, metric_label
from analysis.measurements import similarity
from analysis.per_sequence.policies import policy_qualities
from analysis.per_sequence.similarity import similarity_by_sequence
from analysis.plots.source import Drawing, Panel, Source
from analysis.plots.style import LOOKS, Look, count_axis, percent_axis
from analysis.stats import ends, mean_interval

__all__ = ["skip_against_exit"]

_SERIES: dict[str, tuple[str, Look]] = {
    "skip": ("unified skipping, zero-shot", LOOKS[0]),
    "exit": ("early exit", LOOKS[1]),
}
_FAMILIES = {"unified": "skip", "early-exit": "exit"}

_PANELS = {
    "cosine": ("Final hidden state", "mean cosine to the full hidden state"),
    "same_token": ("Next token", "tokens equal to the full model's"),
    "quality": ("Output", ""),
}
_WORDS = {"cosine": "cosine", "same_token": "next token", "quality": "quality"}


def skip_against_exit(source: Source) -> Drawing:
    """Cosine to the full model's last hidden state against the layers kept, and quality if both policies were tried.

    Otherwise the second panel shows how often the next token is the full model's.

    Numbers: `panel` (`cosine`, and `quality` or `same_token`), `series` (`skip`, `exit`), `budget` (layers that ran),
    `sequences`, `value` (mean over sequences), `low`, `high` (its 95 % bootstrap interval).
    """
    experiment = source.experiment
    measured = source.measured(similarity, "oracle measure")
    each = pd.concat([_measured_values(measured, "cosine"), _qualities(experiment)], ignore_index=True)
    if (each["panel"] == "cosine").all():
        each = pd.concat([each, _measured_values(measured, "same_token")], ignore_index=True)
    table = _numbers(each, experiment)
    table.attrs = dict(measured.attrs)
    second = str(each["panel"].iloc[-1])
    few = each["sequence"].nunique() <= FEW

    def draw(axes: Axes, panel: str) -> None:
        _draw(axes, table[table["panel"] == panel], each[each["panel"] == panel] if few else None)
        axes.set_ylabel(_PANELS[panel][1] or f"mean {metric_label(experiment.metric)}")
        axes.set_xlim(-0.02 * experiment.layers, 1.02 * experiment.layers)
        count_axis(axes.xaxis)
        axes.set_xlabel(f"{experiment.unit}s kept, of {experiment.layers}")
        if panel == "same_token":
            axes.set_ylim(-0.02, 1.03)
            percent_axis(axes.yaxis)

    finding, detail = _headline(each, second, experiment)
    panels = {
        name: Panel(draw=partial(draw, panel=panel), title=_PANELS[panel][0], share=place)
        for place, (name, panel) in enumerate((("cosine", "cosine"), ("output", second)))
    }
    note = _note(second, experiment, few=few)
    return Drawing(table=table, panels=panels, finding=finding, detail=detail, note=note, columns=4)


def _measured_values(measured: pd.DataFrame, panel: str) -> pd.DataFrame:
    each = similarity_by_sequence(measured).rename(columns={"kind": "series", panel: "value"})
    return each[["series", "budget", "sequence", "value"]].assign(panel=panel)


def _qualities(experiment: Experiment) -> pd.DataFrame:
    """Qualities of both policies and, at all layers, of the full model; no rows if the run lacks a policy."""
    each = policy_qualities(experiment.evaluations, full_cost=experiment.full_cost, metric=experiment.metric)
    each = each.assign(series=each["family"].map(_FAMILIES)).dropna(subset="series")
    if each["series"].nunique() < len(_FAMILIES):
        return pd.DataFrame()
    full = experiment.evaluations[experiment.evaluations["number"] == 0]
    full = full.assign(quality=full[experiment.metric], units=experiment.layers)
    ends = [full.assign(series=series) for series in _FAMILIES.values()]
    each = pd.concat([each, *ends]).rename(columns={"units": "budget", "quality": "value"})
    return each[["series", "budget", "sequence", "value"]].assign(panel="quality")


def _numbers(each: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    grouped = each.groupby(["panel", "series", "budget"], sort=True)["value"]
    found = ends((values.to_numpy(float) for _, values in grouped), seed=experiment.seed)
    return grouped.agg(sequences="size", value="mean").assign(**found).reset_index()


def _draw(axes: Axes, table: pd.DataFrame, each: pd.DataFrame | None) -> None:
    """Means with their intervals, or with `each` of few sequences as a point."""
    for name, (label, look) in _SERIES.items():
        rows = table[table["series"] == name].sort_values("budget")
        every = max(1, len(rows) // 16)
        axes.plot(rows["budget"], rows["value"], label=label, **look.line(markevery=every))
        if each is None:
            axes.fill_between(rows["budget"], rows["low"], rows["high"], color=look.color, alpha=0.15, linewidth=0)
        else:
            points = each[each["series"] == name]
            axes.plot(points["budget"], points["value"], color=look.color, marker=".", linestyle="none", alpha=0.5)


def _note(second: str, experiment: Experiment, *, few: bool) -> str:
    note = (
        "Hidden states are taken along the full model's own output. Of more than half of the layers, unified skipping "
    )
    note += "as published keeps the first ones and the last. "
    note += "Dots: single sequences." if few else "Shaded: 95 % interval over sequences."
    if second == "quality":
        return note
    metric = metric_label(experiment.metric)
    return (
        f"{note} Not every sequence was tried under both policies; '--strategy families' does that, for their {metric}."
    )


def _headline(each: pd.DataFrame, second: str, experiment: Experiment) -> tuple[str, str]:
    """The policy ahead in each panel at about half of the layers, if the paired difference is significant."""
    ahead, said = [], []
    for panel in ("cosine", second):
        values = each[each["panel"] == panel].pivot(index="sequence", columns=["series", "budget"], values="value")
        both = [budget for budget in values["skip"] if budget in values["exit"] and budget < experiment.layers]
        if not both:
            return "Skipping and early exit, side by side", counted(each["sequence"].nunique())
        half = min(both, key=lambda budget: (abs(budget - experiment.layers / 2), budget))
        skip, exit_ = values["skip"][half].astype(float), values["exit"][half].astype(float)
        low, high = mean_interval((skip - exit_).to_numpy(), resamples=1000, seed=experiment.seed) or (0.0, 0.0)
        ahead.append("skipping" if low > 0 else "early exit" if high < 0 else "neither")
        said.append(f"{_WORDS[panel]} {skip.mean():.2f} / {exit_.mean():.2f} ({half} {experiment.unit}s)")
    first, then = ahead
    finding = f"With half of the {experiment.unit}s "
    if first == then:
        finding += f"{first} is {'clearly ' * (first == 'neither')}ahead, by {_WORDS['cosine']} and by {_WORDS[second]}"
    else:
        finding += f"{first} is ahead by {_WORDS['cosine']}, {then} by {_WORDS[second]}"
    return finding, f"{counted(each['sequence'].nunique())}, paired; skipping / exit: {', '.join(said)}"
