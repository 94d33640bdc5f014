"""The figure of drafts: mean accepted length against draft cost, what practice reaches beside what is proven."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.drafting import bound_summary, draft_bounds, draft_summary
from analysis.drafting import drafts as stored_drafts
from analysis.formatting import counted, percent, plain
from analysis.plots.source import Drawing, Panel, Source
from analysis.plots.style import BLUE, GREY, look_of, percent_axis, thick

__all__ = ["drafts"]

TIMES = "\N{MULTIPLICATION SIGN}"


def drafts(source: Source) -> Drawing:
    """Accepted draft tokens per round against the cost of a draft token: best masks, practical methods, proven bounds.

    Numbers: `series` (`mask` or `bound`), `name` (the choice, or the budget in layers), `draft_cost` (in plain tokens),
    `accepted` with `accepted_low` and `accepted_high`, `first` (share of first tokens accepted), `expected_speedup`,
    `measured_speedup`.
    """
    table = source.measured(stored_drafts, "oracle draft")
    choices = draft_summary(table)
    limits = None if source.folder is None else draft_bounds(source.folder)
    length = int(table.attrs["provenance"]["plan"]["length"])
    token = float(table["token_ms"].iloc[0])
    bounds = pd.DataFrame() if limits is None or limits.empty else bound_summary(limits)

    def draw(axes: Axes) -> None:
        if len(bounds) and limits is not None:
            _draw_bounds(axes, bounds, limits, length, token)
        _draw_choices(axes, choices)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
        percent_axis(axes.xaxis)
        axes.set_xlabel("cost of a draft token, in plain tokens")
        axes.set_ylabel("accepted draft tokens per round")

    finding, detail = _headline(choices, bounds, length)
    return Drawing(
        table=_numbers(choices, bounds, token),
        panels={"accepted": Panel(draw=draw, height=2.9)},
        finding=finding,
        detail=detail,
        note=_note(bounds),
        columns=4,
    )


def _draw_choices(axes: Axes, choices: pd.DataFrame) -> None:
    for place, row in enumerate(choices.to_dict("records")):
        look = look_of(place)
        if np.isfinite(row["accepted_low"]):
            ends = [row["accepted_low"], row["accepted_high"]]
            axes.vlines(row["draft_cost"], *ends, color=look.color, linewidth=thick(0.6))
        style: dict[str, Any] = {"color": look.color, "marker": look.marker, "linestyle": "none", "markersize": 6}
        style["markerfacecolor"] = look.color if row["oracle"] else "none"
        axes.plot([row["draft_cost"]], [row["accepted"]], label=plain(row["choice"]), **style)


def _draw_bounds(axes: Axes, bounds: pd.DataFrame, limits: pd.DataFrame, length: int, token: float) -> None:
    cost = bounds["draft_ms"].to_numpy(float) / token
    budget = int(bounds["budget"].iloc[-1])
    line: dict[str, Any] = {"color": BLUE, "linewidth": thick(1.25), "drawstyle": "steps-post"}
    axes.plot(
        cost, bounds["accepted"], label=f"proven bound, at most {budget} layer{'' if budget == 1 else 's'}", **line
    )
    last = limits[limits["budget"] == budget]
    tokens = last["tokens"].to_numpy(float)
    rounds = np.ceil(tokens / (length + 1))
    most = float((tokens - rounds + last["ended"]).sum() / rounds.sum())
    dashes: dict[str, Any] = {"color": GREY, "linestyle": (0, (5, 2))}
    axes.plot([cost[-1], cost[-1], 1.02], [bounds["accepted"].iloc[-1], most, most], label="all accepted", **dashes)


def _numbers(choices: pd.DataFrame, bounds: pd.DataFrame, token: float) -> pd.DataFrame:
    shown = ["draft_cost", "accepted", "accepted_low", "accepted_high", "first", "expected_speedup", "measured_speedup"]
    masks = choices[shown].astype(float)
    masks.insert(0, "name", choices["choice"].astype(str))
    masks.insert(0, "series", "mask")
    if bounds.empty:
        return masks
    proven = pd.DataFrame(
        {
            "series": "bound",
            "name": [f"at most {budget} layers" for budget in bounds["budget"]],
            "draft_cost": bounds["draft_ms"] / token,
            "accepted": bounds["accepted"],
            "first": bounds["first"],
            "expected_speedup": bounds["speedup"],
        }
    )
    return pd.concat([masks, proven.reindex(columns=masks.columns).astype(masks.dtypes)], ignore_index=True)


def _headline(choices: pd.DataFrame, bounds: pd.DataFrame, length: int) -> tuple[str, str]:
    best = choices[choices["oracle"]].sort_values("expected_speedup").iloc[-1]
    practice = choices[~choices["oracle"]].sort_values("expected_speedup")
    reached = (
        f"; practical methods, at best {practice.iloc[-1]['expected_speedup']:.2f}{TIMES}" if len(practice) else ""
    )
    finding = (
        f"Lossless drafting by the best mask per sequence is expected to run at {best['expected_speedup']:.2f}{TIMES}"
    )
    proven = (
        f"; {counted(int(bounds['sequences'].iloc[-1]))} with a proven bound" if len(bounds) else "; no proven bound"
    )
    return (
        f"{finding}{reached}",
        f"{counted(int(best['sequences']))}, drafts of at most {length} tokens; first tokens accepted "
        f"{percent(best['first'])}{proven}",
    )


def _note(bounds: pd.DataFrame) -> str:
    proven = (
        " Blue: no mask of that many whole layers gets more accepted, whatever decides when a draft ends; beyond it "
        "nothing is proven but that at most all is accepted (grey)."
    )
    return (
        "Filled: chosen on the sequences that they are judged on. Open: practical methods. Bars: 95 % intervals over "
        "sequences. Speeds are of the cost model at batch 1." + (proven if len(bounds) else "")
    )
