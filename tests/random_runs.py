"""Complete runs of given or random outcomes, without a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import analysis
from oracle.store import Run, RunWriter
from oracle.types import Outcome, Sequence

__all__ = ["UNITS", "Tried", "complete_run", "random_outcomes", "uneven_costs"]

UNITS = 5

Tried = list[tuple[tuple[int, ...], float | None]]
"""Allocations of one sequence in the order of their evaluation, the full model first, and qualities; None: dropped."""


def uneven_costs() -> dict[str, Any]:
    """Costs in ms/token under which some allocations of more units are cheaper, as a manifest holds them."""
    about = {"unit": "layer", "context": 1, "batch": 1, "dtype": "float32", "device": "cpu", "model": "tiny"}
    units = {"units": [1.5, 0.1, 0.7, 0.1, 0.4], "states": [0.0] * UNITS, "overhead": 0.3}
    return {**units, "unit_of_measure": "ms/token", **about, "fingerprint": "f00d"}


def random_outcomes(rng: np.random.Generator, evaluations: int) -> Tried:
    """The full model and random masks or layer paths; few different qualities, so that ties are common."""
    tried: Tried = [(tuple(range(UNITS)), float(rng.integers(3, 8)) / 8)]
    while len(tried) < evaluations:
        path = tuple(rng.integers(UNITS, size=rng.integers(UNITS + 2)).tolist())
        allocation = path if rng.random() < 0.2 else tuple(sorted(set(path)))
        if allocation not in dict(tried):
            tried.append((allocation, None if rng.random() < 0.1 else float(rng.integers(9)) / 8))
    return tried


def complete_run(
    folder: Path, tried: Mapping[str, Tried], *, tolerance: float = 0.0, costs: dict[str, Any] | None = None
) -> Run:
    """A run whose search has ended, as a search writes it; the criterion is the exact match."""
    manifest = {
        "config": {"criterion": "exact_match", "tolerance": tolerance, "scope": "decode", "strategy": "random"},
        "model": {"id": "tiny", "layers": UNITS, "fingerprint": "f00d"},
        "seed": 3,
        **({"costs": costs} if costs else {}),
    }
    with RunWriter(folder, manifest) as writer:
        sequences = [Sequence(id=name, prompt=f"prompt {name}", references=("so",)) for name in tried]
        writer.write_sequences(sequences, [3] * len(tried))
        rows = [
            (name, number, _outcome(number, *one))
            for name, of_one in tried.items()
            for number, one in enumerate(of_one)
        ]
        writer.append(rows, ["exact_match"])
        counts = [{"sequence": name, "evaluations": len(of_one), "exhausted": 0} for name, of_one in tried.items()]
        writer.certify([{**row, "executions": 0, "set_aside": None} for row in counts])
        summary = analysis.summarise(analysis.load(folder), bootstrap=0, permutations=0)
        writer.write_result("minimal_budgets", summary.minimal)
        writer.write_result("assignment", summary.assignment)
        writer.write_summary(json.loads(json.dumps(summary.to_dict())))
    return Run.open(folder)


def _outcome(number: int, allocation: tuple[int, ...], quality: float | None) -> Outcome:
    return Outcome(
        allocation=allocation,
        family="random" if number else "full",
        tokens=(number, 1),
        text=f"text {number}",
        finished=quality is not None,
        margin=1.0,
        dropped=quality is None,
        quality={} if quality is None else {"exact_match": quality},
    )
