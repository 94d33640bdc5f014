"""HTML tables that represent runs and results in notebooks. Every text is escaped."""

from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["card", "run_card"]


def card(title: str, rows: list[tuple[str, Any]], *, note: str = "") -> str:
    """HTML of a table of (name, value) rows under a title, with a note below; values of None are omitted."""
    lines = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in rows
        if value is not None
    )
    below = f"<p><em>{escape(note)}</em></p>" if note else ""
    return f"<div><p><strong>{escape(title)}</strong></p><table><tbody>{lines}</tbody></table>{below}</div>"


def run_card(name: str, manifest: Mapping[str, Any], *, units: int, unit: str, summary: dict[str, Any] | None) -> str:
    """HTML of a run.

    Args:
        name: name of the run folder.
        manifest: manifest of the run.
        units: number of units of the model.
        unit: `layer` or `sublayer`.
        summary: summary of the run; None if its search has not ended.
    """
    config, model = manifest["config"], manifest["model"]
    tolerance = f" less {config['tolerance']:g}" if config["tolerance"] else ""
    known: list[tuple[str, Any]] = [
        ("model", f"{model.get('id', 'unknown')}, {units} {unit}s"),
        ("data", manifest.get("data", {}).get("source")),
        ("criterion", f"{config['criterion']} of the full model{tolerance}, scope {config['scope']}"),
    ]
    if summary is None:
        return card(f"Run {name}", known, note="The search has not ended: no results yet.")
    return card(f"Run {name}", [*known, *_numbers(summary)], note=".to_frame() returns one row per sequence.")


def _numbers(summary: dict[str, Any]) -> list[tuple[str, Any]]:
    headline = summary.get("informative") or summary
    shares = {
        "minimal budget per sequence": ("per_sequence_fraction", "per_sequence_interval"),
        "oracle at equal mean quality": ("equal_quality_fraction", "equal_quality_interval"),
        "minimal budget, shuffled references": ("null_per_sequence_fraction", ""),
    }
    rows = [(name, _share(headline.get(value), headline.get(interval))) for name, (value, interval) in shares.items()]
    counts = {
        "sequences": "sequences",
        "of those, can tell something": "informative_sequences",
        "where the full model scores zero": "zero_quality_sequences",
    }
    if summary.get("informative_sequences") == 0:
        rows = []
    return [*((name, summary.get(key)) for name, key in counts.items()), *rows]


def _share(value: float | None, interval: list[float] | None) -> str | None:
    if value is None:
        return None
    ends = f" (95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f} %)" if interval else ""
    return f"{100 * value:.1f} %{ends}"
