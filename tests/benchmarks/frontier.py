"""How fast and how well the data-set oracle is solved: beside a plain Python programme, and for a million sequences.

    python tests/benchmarks/frontier.py [--json] [--parts dynamic_programme large]

The knapsacks are synthetic: qualities rise with the budget, in noise.
"""

import argparse
import json
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import numpy as np
import pandas as pd
import psutil

from analysis.knapsack.frontier import equal_quality, oracle_at, oracle_frontier
from analysis.knapsack.items import Items, quality_by_cost

MIB = 2**20
REPEATS = 9
"""Times that what takes milliseconds is measured; the median counts."""


def qualities(sequences: int, budgets: int, seed: int = 0) -> np.ndarray:
    """Best quality of each sequence with 1..K layers, the full model's last: more layers are better, by and large."""
    rng = np.random.default_rng(seed)
    quality_NC = rng.random((sequences, budgets))
    quality_NC *= 0.5
    quality_NC += np.linspace(0.0, 0.4, budgets)
    quality_NC[:, -1] = 0.3 + 0.4 * rng.random(sequences)
    return quality_NC


def plain_dynamic_programme(quality_NC: list[list[float]], capacity: int) -> tuple[list[float], list[int]]:
    """Most total quality within each total of layers up to a capacity; the layers behind the last. Plain loops."""
    best, choices = [0.0] * (capacity + 1), []
    for quality_K in quality_NC:
        after, choice = [float("-inf")] * (capacity + 1), [0] * (capacity + 1)
        for room in range(capacity + 1):
            for cost, quality in enumerate(quality_K, start=1):
                if cost <= room and best[room - cost] + quality > after[room]:
                    after[room], choice[room] = best[room - cost] + quality, cost
        best = after
        choices.append(choice)
    costs, room = [], capacity
    for choice in reversed(choices):
        costs.append(choice[room])
        room -= choice[room]
    return best, costs[::-1]


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[Any, float]:
    """What some work returns, and its median seconds."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - began)
    return found, float(np.median(seconds))


def dynamic_programme(sequences: int = 400, budgets: int = 24) -> dict[str, Any]:
    """One mean budget, half of the layers, and all of them at once: each beside the plain programme at the same job."""
    quality_NC = qualities(sequences, budgets)
    cost_NC = np.tile(np.arange(1, budgets + 1), (sequences, 1))
    items = Items(cost_NC=cost_NC, quality_NC=quality_NC, full_cost=budgets, step=1)
    rows, full = quality_NC.tolist(), sequences * budgets
    point, point_seconds = timed(lambda: oracle_at(items, 0.5), REPEATS)
    (plain, _), plain_seconds = timed(lambda: plain_dynamic_programme(rows, full // 2))
    frontier, frontier_seconds = timed(lambda: oracle_frontier(items), REPEATS)
    (every, _), every_seconds = timed(lambda: plain_dynamic_programme(rows, full))
    capacity = np.arange(sequences, full + 1)
    ours = frontier.quality_at(capacity / full)
    return {
        "one_budget_speedup": round(plain_seconds / point_seconds),
        "one_budget_seconds": round(point_seconds, 5),
        "one_budget_plain_seconds": round(plain_seconds, 2),
        "one_budget_optimum": point.quality,
        "one_budget_plain_optimum": plain[-1] / sequences,
        "all_budgets_speedup": round(every_seconds / frontier_seconds),
        "all_budgets_seconds": round(frontier_seconds, 5),
        "all_budgets_plain_seconds": round(every_seconds, 2),
        "all_budgets_largest_difference": float(abs(ours - np.array(every)[capacity] / sequences).max()),
    }


def large(sequences: int = 1_000_000, budgets: int = 32) -> dict[str, Any]:
    """The frontier and the equal-quality point, from a table of evaluations on."""
    process = psutil.Process()
    before = process.memory_info().rss
    with Peak(process) as peak:
        quality_NC = qualities(sequences, budgets)
        evaluations = pd.DataFrame(
            {
                "sequence": np.repeat(np.arange(sequences), budgets),
                "number": np.tile(np.arange(budgets)[::-1], sequences),
                "cost": np.tile(np.arange(1, budgets + 1), sequences),
                "quality": quality_NC.reshape(-1),
            },
            copy=False,
        )
        full_N = quality_NC[:, -1].copy()
        del quality_NC
        began = time.perf_counter()
        items, _ = quality_by_cost(evaluations, budgets, "quality")
        grouped = time.perf_counter()
        found = equal_quality(items, full_N, tolerance=0.0)
        ended = time.perf_counter()
    return {
        "million_sequences_seconds": round(ended - began, 1),
        "of_which_from_the_table_to_items": round(grouped - began, 1),
        "million_sequences_peak_growth_mib": round((peak.most - before) / MIB),
        "equal_quality_fraction": found.fraction,
        "equal_quality_gap": found.gap,
        "frontier_points": len(found.frontier.fraction),
        "certified_gap_over_mean_quality": found.frontier.gap / found.quality,
    }


class Peak:
    """The most memory that a process holds meanwhile, looked at every few milliseconds."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._over = process, Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self.most = 0

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.most = max(self.most, self._process.memory_info().rss)


PARTS: dict[str, Callable[[], dict[str, Any]]] = {"dynamic_programme": dynamic_programme, "large": large}


def main() -> None:
    """Measures the parts and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object on a line")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for part in arguments.parts:
        figures |= PARTS[part]()
    print(json.dumps(figures) if arguments.json else json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
