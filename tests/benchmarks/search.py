"""How good the strategies are: against the whole truth, against MCTS at equal effort, and on synthetic landscapes.

    python tests/benchmarks/search.py [--json] [--parts regret landscapes mcts certified]

The truth of 12 sequences with 12 free layers is computed on the first run (see `truth.py`) and kept; so are the two
searches of the part `certified`, for as long as the source is the same.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from truth import FREE, LAYERS, Truth, load_truth

from oracle.search import STRATEGIES, Archive, Memory, Problem, Space, make
from oracle.search.mcts import WIDE, Wide
from oracle.types import Outcome, Proposal

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))
from landscapes import LANDSCAPES, gaps

POINTS = (50, 200, 1000)
BATCH = 64
CRITERIA = ("rougeL", "agreement")
SEEDS = 8
"""Searches of each sequence by `auto`, whose figures are claims; the others are searched once."""
SLOW = ("tpe", "motpe", "nsga2")
"""Samplers that take up to 20 ms an evaluation: they are followed to 200 evaluations."""


def replay(truth: Truth, name: str, metric: str, seed: int, memory: Memory) -> list[float]:
    """Gap to the true minimal budget after each number of evaluations, in layers."""
    space = Space(units=LAYERS, free=FREE, costs=(1.0,) * LAYERS)
    archive = Archive(space, metric)
    strategy = make(name, Problem(space=space, archive=archive, seed=seed, memory=memory, hints=truth.hints))
    minimum = truth.minimum(metric)
    found: list[float] = []
    for point in POINTS[: 2 if name in SLOW else None]:
        while len(archive) < point and not strategy.done:
            batch = strategy.ask(min(BATCH, point - len(archive)))
            strategy.tell([outcome(truth, proposal) for proposal in batch])
        assert archive.upper is not None
        assert archive.lower <= minimum <= len(archive.upper.allocation), "a bound contradicts the truth"
        found.append(len(archive.upper.allocation) - minimum)
    memory.learn(archive)
    return found


def outcome(truth: Truth, proposal: Proposal) -> Outcome:
    """What the model said."""
    return Outcome(
        allocation=proposal.allocation,
        family=proposal.family,
        tokens=(0,),
        text="",
        finished=True,
        margin=1.0,
        quality=truth.qualities[proposal.allocation],
    )


def regret_of(job: tuple[str, str, int, list[Truth]]) -> list[float]:
    """Mean gaps of one strategy; what works is handed from sequence to sequence as in a search."""
    name, metric, seed, truths = job
    memory = Memory()
    return np.mean(
        [replay(truth, name, metric, 1000 * seed + i, memory) for i, truth in enumerate(truths)], axis=0
    ).tolist()


def regret() -> dict[str, Any]:
    """Every strategy against the truth."""
    truths = load_truth()
    seeds = {name: SEEDS if name == "auto" else 1 for name in STRATEGIES}
    jobs = [(name, metric, seed, truths) for name in STRATEGIES for metric in CRITERIA for seed in range(seeds[name])]
    # Two processes of one thread each get in each other's way least.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        gaps = list(pool.map(regret_of, jobs))
    found: dict[str, dict[str, list[float]]] = {name: {} for name in STRATEGIES}
    for name, metric in product(STRATEGIES, CRITERIA):
        mine = [gap for gap, job in zip(gaps, jobs, strict=True) if job[:2] == (name, metric)]
        found[name][metric] = np.mean(mine, axis=0).round(3).tolist()
    means = {name: np.mean([found[name][metric] for metric in CRITERIA], axis=0) for name in STRATEGIES}
    lead = {
        str(point): round(
            float(means["auto"][i] - min(mean[i] for name, mean in means.items() if name != "auto" and len(mean) > i)),
            3,
        )
        for i, point in enumerate(POINTS)
    }
    return {"sequences": len(truths), "points": POINTS, "regret": found, "auto_behind_best_other": lead}


def landscapes(seeds: int = 20) -> dict[str, float]:
    """Share of synthetic problems of 12 units whose optimum `auto` finds in 1,000 evaluations."""
    found = {}
    for name, build in LANDSCAPES.items():
        problems = [build(seed, 12) for seed in range(seeds)]
        last = [gaps(one, STRATEGIES["auto"](one.problem(seed)), POINTS, 32)[-1] for seed, one in enumerate(problems)]
        found[name] = float(np.mean([gap == 0 for gap in last]))
    return {"optimum_found": found}  # type: ignore[dict-item]


def against_mcts(sequences: int = 24, simulations: int = 200) -> dict[str, Any]:
    """`auto` and the widening variant of Dr.LLM's search on all layers, at the layer executions that the latter takes.

    The released chain ends at the first path that is two layers shorter; what it saves stands in `claims.py`.
    """
    from oracle.config import SearchConfig
    from oracle.engine import Engine
    from oracle.executors import SIDE_BY_SIDE, SearchEvaluator
    from oracle.executors.search_loop import open_search, search_together
    from oracle.models import load_model
    from oracle.sequences import load_sequences

    config = SearchConfig(evaluations=100_000, max_new_tokens=8)
    chosen = load_sequences("instruct", limit=sequences)
    evaluator = SearchEvaluator(Engine(load_model(), config), metrics=(), shuffled={})
    space, memory = Space.of(LAYERS), Memory()

    def search(strategy: str, indices: Iterable[int], limits: dict[int, int]) -> list[Any]:
        settings = replace(config, strategy=strategy)
        searches = [
            open_search(chosen[index], space, settings, seed=index, memory=memory, prompt_tokens=0) for index in indices
        ]
        for index, one in zip(indices, searches, strict=True):
            one.limits = replace(one.limits, executions=limits.get(index, float("inf")))
        for _ in search_together(evaluator, searches, settings):
            pass
        return searches

    class Longer(Wide):
        """With as many simulations as asked."""

        def __init__(self, problem: Problem) -> None:
            super().__init__(problem, replace(WIDE, simulations=simulations))

    with mock.patch.dict(STRATEGIES, {"mcts-wide": Longer}):
        theirs = search("mcts-wide", range(sequences), {})
    limits = {index: one.spent_executions for index, one in enumerate(theirs)}
    ours = []
    for start in range(0, sequences, SIDE_BY_SIDE):
        ours += search("auto", range(start, min(start + SIDE_BY_SIDE, sequences)), limits)
        for one in ours[start:]:
            memory.learn(one.archive)
    saved = [theirs[i].archive.upper.cost - ours[i].archive.upper.cost for i in range(sequences)]
    return {
        "auto_against_mcts": float(np.mean([gain >= 0 for gain in saved])),
        "layers_saved_over_mcts": float(np.mean(saved)),
        "layer_executions_of_mcts": float(np.mean(list(limits.values()))),
    }


def certified(out: Path = Path("runs/certified")) -> dict[str, Any]:
    """Default effort on the demo's sequences; the runs are kept for as long as the source is the same."""
    from oracle.config import SearchConfig
    from oracle.pipeline.run import run_search
    from oracle.store import Run
    from oracle.store.provenance import git_commit

    found: dict[str, Any] = {}
    commit = git_commit()
    for metric in CRITERIA:
        folder = out / f"{metric}-{commit}"
        kept = folder.exists() and commit is not None and not commit.endswith("-dirty") and Run.open(folder).complete
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
            run_search(SearchConfig(limit=24, criterion=metric), folder)
        summary = Run.open(folder).summary()
        found[metric] = {
            "certified_share": summary["certified"] / summary["sequences"],
            "mean_gap": summary["mean_gap"],
            "fraction": summary["per_sequence_fraction"],
            "search_seconds": summary["search_seconds"],
            "kept": kept,
        }
    return {"certified": found}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "regret": regret,
    "landscapes": landscapes,
    "mcts": against_mcts,
    "certified": certified,
}


def main() -> None:
    """Runs the parts and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for part in arguments.parts:
        began = time.perf_counter()
        figures |= PARTS[part]()
        figures[f"{part}_seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(figures) if arguments.json else json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
