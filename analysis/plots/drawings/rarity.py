"""The figure of rarity: share of random masks that meet the criterion at each number of units."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from analysis.experiment import InputError
from analysis.formatting import counted, percent
from analysis.luck.rarity import rarity as shares_by_size
from analysis.plots.source import Drawing, MissingError, Panel, Source
from analysis.plots.style import BLUE, GREY, VERMILLION, count_axis, percent_axis, thick

__all__ = ["rarity"]

_UNKNOWN = "outputs were dropped by the search and their quality is unknown: the intervals allow for both"


def rarity(source: Source) -> Drawing:
    """Share of random masks that qualify by size, on two scales; numbers of `analysis.Rarity.pooled`."""
    told, summary = source.told, source.summary
    permutations = len(summary.null.per_sequence_fractions) if summary.null else 0
    bootstrap = 1000 if summary.per_sequence_interval else 0
    try:
        table = shares_by_size(source.experiment, permutations=permutations, bootstrap=bootstrap).pooled
    except InputError as error:
        raise MissingError(str(error)) from error
    unit = source.experiment.unit

    def draw_linear(axes: Axes) -> None:
        _draw(axes, table, unit)
        axes.set_ylim(-0.015, 1.03)
        percent_axis(axes.yaxis)

    def draw_log(axes: Axes) -> None:
        _draw(axes, table, unit)
        axes.set_yscale("log")
        axes.set_ylim(max(1e-4, 0.2 * table.loc[table["high"] > 0, "high"].min()), 1.4)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.yaxis.set_minor_locator(NullLocator())

    finding, detail = _headline(table, told.summary.sequences, unit)
    panels = {
        "linear": Panel(draw=draw_linear, title="Share of the masks of a size"),
        "log": Panel(draw=draw_log, title="The same, logarithmic", share=1.0),
    }
    return Drawing(table=table, panels=panels, finding=finding, detail=detail, note=_note(table))


def _draw(axes: Axes, table: pd.DataFrame, unit: str) -> None:
    axes.set_xlabel(f"{unit}s of the mask")
    axes.set_ylabel("share of masks that qualify")
    count_axis(axes.xaxis)
    units = table["units"]
    axes.fill_between(
        units, table["low"], table["high"], color=BLUE, alpha=0.2, linewidth=0, label="95 % interval over draws"
    )
    # Where a share is unknown the line is broken.
    axes.plot(units, table["share"], color=BLUE, marker="o", label="random masks")
    if _is_line(table["sequences_low"]):
        look: dict[str, Any] = {"color": GREY, "linewidth": thick(0.6), "linestyle": (0, (5, 1.5))}
        axes.plot(units, table["sequences_low"], label="95 % interval over sequences", **look)
        axes.plot(units, table["sequences_high"], **look)
    if _is_line(table["null_share"]):
        look = {"color": VERMILLION, "linestyle": (0, (1, 1.2))}
        axes.plot(units, table["null_share"], label="against shuffled references", **look)


def _is_line(values: pd.Series) -> bool:
    """Whether two neighbouring values are known, so that there is anything to draw."""
    return bool((values.notna() & values.shift().notna()).any())


def _headline(table: pd.DataFrame, sequences: int, unit: str) -> tuple[str, str]:
    drawn = table[table["drawn"] > 0]
    over = f"{counted(sequences)} that can tell something"
    if drawn.empty:
        return f"The masks of {len(table)} numbers of {unit}s are all known", over
    half = drawn.iloc[(drawn["fraction"] - 0.5).abs().argmin()]
    low, high = percent(half["low"]), percent(half["high"])
    finding = f"Of the masks with {half['units']:.0f} {unit}s, {percent(half['share'])} work (95 %: {low} to {high})"
    if pd.isna(half["share"]):
        finding = f"Of the masks with {half['units']:.0f} {unit}s, between {low} and {high} work"
    null = "" if pd.isna(half["null_share"]) else f"; against shuffled references {percent(half['null_share'])}"
    unknown = f", {half['unknown']:.0f} unknown" if half["unknown"] else ""
    return (
        finding,
        f"{over}; {half['qualifying']:.0f} of {half['drawn']:.0f} masks drawn at that size work{unknown}{null}",
    )


def _note(table: pd.DataFrame) -> str:
    note = "Statistical, not a proof. The interval over draws is of these sequences, for each size alone"
    note += "; the one over sequences is for others like them." if _is_line(table["sequences_low"]) else "."
    if _is_line(table["null_share"]):
        note += " Against shuffled references the full model often scores zero, where every mask qualifies."
    return f"{note} {int(table['unknown'].sum())} {_UNKNOWN}." if table["unknown"].any() else note
