"""Results of other commands in a run's folder: similarity, throughput, controllers, static masks, drafts, claims.

All are optional.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.drafting import bound_summary, draft_bounds, draft_summary, drafts
from analysis.experiment import Run
from analysis.measurements import claims, similarity, static_masks, throughput
from analysis.per_sequence.similarity import similarity_by_budget
from analysis.report.rows import rounded
from oracle.allocations import compact

__all__ = ["extras_of"]

KINDS = {"skip": "skipping", "exit": "early exit"}

CONTROLLERS = "controllers/comparison"


def extras_of(folder: Path, layers: int) -> dict[str, Any]:
    """The results that exist, by name: `similarity`, `throughput`, `controllers`, `static`, `drafts`,
    `claims`.
    """
    run = Run.open(folder)
    found = {
        "similarity": _similarity(similarity(folder), layers),
        "throughput": _throughput(throughput(folder)),
        "controllers": _controllers(run.table(CONTROLLERS) if run.has(CONTROLLERS) else None),
        "static": _static(static_masks(folder), layers),
        "drafts": _drafts(drafts(folder), draft_bounds(folder)),
        "claims": _claims(claims(folder)),
    }
    return {name: value for name, value in found.items() if value}


def _similarity(table: pd.DataFrame | None, layers: int) -> list[dict[str, Any]]:
    """One curve per kind: mean over sequences of their mean over tokens, at each budget."""
    if table is None or table.empty:
        return []
    means = similarity_by_budget(table, bootstrap=0)
    return [
        {
            "name": KINDS[kind],
            "x": rounded(curve["budget"] / layers),
            "budget": curve["budget"].tolist(),
            "cosine": rounded(curve["cosine"]),
            "same": rounded(curve["same_token"]),
        }
        for kind in KINDS
        if len(curve := means[means["kind"] == kind])
    ]


def _throughput(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """One row per policy: its speed-up, its quality, tokens per second by batch."""
    if table is None or table.empty:
        return []
    rows = []
    for (policy, speedup), part in table.groupby(["policy", "speedup"], sort=False):
        speeds = part.groupby("batch")["tokens_per_second"].mean()
        fraction, quality = rounded(part[["fraction", "quality"]].iloc[0])
        rows.append(
            {
                "policy": "full model" if policy == "full" else f"{policy} {speedup:g}x",
                "fraction": fraction,
                "quality": quality,
                "speeds": dict(zip(speeds.index.tolist(), rounded(speeds), strict=True)),
            }
        )
    return rows


def _controllers(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """One row per controller and setting."""
    if table is None:
        return []
    qualities = ["executed_fraction", "quality", "static_quality", "oracle_quality"]
    wanted = [*qualities, "captured", "captured_low", "captured_high"]
    masks = table["layers"] if "layers" in table else [None] * len(table)
    numbers = {name: rounded(table[name]) for name in wanted if name in table}
    return [
        {
            "controller": str(controller),
            "setting": str(setting),
            "layers": None if pd.isna(layers) else str(layers),
            **{name: column[n] for name, column in numbers.items()},
        }
        for n, (controller, setting, layers) in enumerate(
            zip(table["controller"], table["setting"], masks, strict=True)
        )
    ]


def _static(table: pd.DataFrame | None, layers: int) -> list[dict[str, Any]]:
    """One row per budget: the chosen mask, its values on held-out sequences, and its speed."""
    if table is None:
        return []
    chosen = table[table["chosen"]].drop_duplicates("budget")
    names = ("quality", "quality_low", "quality_high", "full_quality", "kl", "kl_low", "kl_high", "fraction", "cost")
    numbers = {name: rounded(chosen[name]) for name in names}
    gains = rounded(chosen["tokens_per_second"] / chosen["full_tokens_per_second"])
    rates = rounded(chosen["tokens_per_second"])
    return [
        {
            "layers": compact(row["allocation"]),
            "method": str(row["method"]),
            "judge": str(row["judge"]),
            "heldOut": int(row["held_out_sequences"]),
            "rate": rates[n],
            "gain": gains[n],
            **{name: column[n] for name, column in numbers.items()},
        }
        for n, row in enumerate(chosen.to_dict("records"))
    ]


def _drafts(table: pd.DataFrame | None, bounds: pd.DataFrame | None) -> dict[str, Any]:
    """`choices`: one row per choice of a draft mask; `bounds`: one row per enumerated budget."""
    if table is None or table.empty:
        return {}
    choices = draft_summary(table)
    names = [
        *("draft_cost", "draft_length", "first", "accepted", "accepted_low", "accepted_high", "sequences", "equal"),
        *("expected", "expected_speedup", "measured", "measured_speedup", "pays_below", "pays_below_flat"),
    ]
    limits = bound_summary(bounds) if bounds is not None and len(bounds) else pd.DataFrame()
    proven = ("budget", "masks", "sequences", "first", "first_any", "accepted", "speedup", "speedup_any")
    return {
        "choices": _records(choices, names, choices["choice"]),
        "bounds": _records(limits, proven, limits["budget"]) if len(limits) else [],
        "length": int(table.attrs["provenance"]["plan"]["length"]),
    }


def _records(table: pd.DataFrame, names: Sequence[str], labels: pd.Series) -> list[dict[str, Any]]:
    """Rounded numbers of each row, with its label as `name`."""
    numbers = {name: rounded(table[name].astype(float)) for name in names}
    return [{"name": str(label), **{name: each[n] for name, each in numbers.items()}} for n, label in enumerate(labels)]


def _claims(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """One row per published claim: what was published, ours with its interval, and the verdict."""
    if table is None:
        return []
    words = table[["claim", "source", "theirs", "sample", "figure", "verdict", "note"]].astype(str).to_dict("records")
    numbers = zip(*(rounded(table[name].astype(float)) for name in ("value", "low", "high")), strict=True)
    return [
        {**{str(name): text for name, text in row.items()}, "value": value, "low": low, "high": high}
        for row, (value, low, high) in zip(words, numbers, strict=True)
    ]
