"""Figure of a study: held-out loss against FLOPs, and share of tokens per unit."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from analysis.plots.files import save
from analysis.plots.layout import compose
from analysis.plots.source import Drawing, Panel
from analysis.plots.style import GREY, look_of, thick
from oracle.skiplayer.results import Results
from oracle.utils.text import printable

__all__ = ["draw_study"]

LABELS = {
    "skiplayer": "SkipLayer",
    "random": "a random router",
    "dense": "the dense model of equal FLOPs",
    "early-exit": "early exit (line: other thresholds)",
    "full": "the dense model of all layers",
}

ROUTED = ("skiplayer", "random", "early-exit")


def draw_study(results: Results, path: Path, manifest: Mapping[str, Any]) -> list[Path]:
    """Draws a study as PNG and PDF, and writes its numbers (CSV), caption and provenance beside them.

    Args:
        results: its tables.
        path: output path without suffix.
        manifest: the study's manifest, written to the pictures and as JSON.

    Returns:
        Paths of the files.
    """
    config, text = manifest["config"], manifest["text"]
    drawing = Drawing(
        table=results.arms,
        panels={
            "loss": Panel(draw=partial(_losses, results=results), height=2.7),
            "density": Panel(
                draw=partial(_densities, results=results, target=config["density"]), height=2.7, share=0.7
            ),
        },
        finding=_finding(results),
        detail=f"{config['layers']} layers of width {config['width']}, {config['steps']} steps, {_seeds(config)}; "
        f"{config['validation']} held-out rows of {config['context']} tokens; bars: 95 %, {_over(config)}",
        note=printable(f"Text: {text['source']}."),
    )
    return save(drawing.table, compose(drawing), path, manifest, caption=drawing.caption)


def _seeds(config: Mapping[str, Any]) -> str:
    count = config.get("seeds", 1)
    return f"{count} seeds" if count > 1 else f"seed {config['seed']}"


def _over(config: Mapping[str, Any]) -> str:
    return "over seeds" if config.get("seeds", 1) > 1 else "bootstrap over rows"


def _finding(results: Results) -> str:
    """SkipLayer's loss against the random router and the dense model, if trained."""
    arms = results.arms.set_index("arm")
    differences = arms["difference"].astype(float)
    others = [(arm, LABELS[arm]) for arm in ("random", "dense") if arm in arms.index and "skiplayer" in arms.index]
    if not others:
        return f"Lowest held-out loss: {LABELS[str(arms['loss'].idxmin())].split(' (')[0]}"
    parts = [f"{-float(differences[arm]):+.2f} nats/token against {label}" for arm, label in others]
    return f"SkipLayer: {', '.join(parts)}"


def _losses(axes: Axes, results: Results) -> None:
    if len(results.curve):
        curve = results.curve.sort_values("flops")
        line = look_of(list(LABELS).index("early-exit")).line(marker="", linewidth=thick(0.6))
        axes.plot(curve["flops"] / 1e6, curve["loss"], **line, zorder=1)
    for row in results.arms.to_dict("records"):
        look = look_of(list(LABELS).index(row["arm"]))
        spread = [[row["loss"] - row["loss_low"]], [row["loss_high"] - row["loss"]]]
        shown = look.line(linestyle="", capsize=3, markersize=6)
        axes.errorbar([row["flops"] / 1e6], [row["loss"]], spread, **shown, label=LABELS[row["arm"]])
    axes.set_xlabel("MFLOPs per token, counted")
    axes.set_ylabel("held-out loss (nats/token)")


def _densities(axes: Axes, results: Results, target: float) -> None:
    for arm, rows in results.density.groupby("arm", sort=False):
        if arm in ROUTED:
            axes.plot(rows["unit"], rows["executed"], **look_of(list(LABELS).index(str(arm))).line())
    axes.axhline(target, color=GREY, linestyle="--", linewidth=thick(0.6))
    axes.annotate("target", (0, target), xytext=(2, 3), textcoords="offset points", color=GREY, fontsize="small")
    axes.set_xlabel("unit")
    axes.set_ylabel("share of tokens that run it")
    axes.set_ylim(0, 1.03)
