"""Measured gain in tokens per second of unified skipping, and its loss of quality.

The table of Liu et al. 2024 (arXiv 2404.06954), for any model and data.
"""

import statistics
import time
from collections.abc import Sequence as Seq
from dataclasses import replace
from itertools import cycle, islice

import pyarrow as pa

from oracle.allocations import full, unified
from oracle.costs import Costs
from oracle.engine import Engine, Evaluator, FixedLengthEngine, PromptState
from oracle.measure.sizes import Sizes
from oracle.measure.tables import THROUGHPUT
from oracle.pipeline.reload import SearchedSequence
from oracle.types import Allocation, Proposal
from oracle.utils.progress import Advance

__all__ = ["measure_throughput", "steps"]

BATCH = 32
"""Sequences generated as one batch where quality is measured."""

Policy = tuple[str, int, Allocation]
"""Its name, its nominal speed-up, the units that run."""


def steps(sizes: Sizes) -> int:
    """Number of steps that `measure_throughput` reports to `advance`."""
    return (1 + len(sizes.speedups)) * (sizes.rounds * len(sizes.batches) + 1)


def measure_throughput(
    engine: Engine, originals: Seq[SearchedSequence], sizes: Sizes, costs: Costs | None, advance: Advance
) -> pa.Table:
    """Tokens per second and quality of the full model and of unified skipping; see `oracle.measure.tables`.

    Every row of a batch has a prompt of its own (repeated if there are too few, and run as if distinct) and generates
    the same number of tokens. Prompts are run beforehand in scope `decode`, whose first token comes with them and is
    not counted; in scope `sequence` they are part of the timing. Every round times all policies in turn, and the median
    of the rounds counts, so that a slow first round has no effect. `costs` are the run's; None for units.
    """
    units = engine.units.count
    policies: list[Policy] = [("full", 1, full(units))]
    policies += [("unified", speedup, unified(units, units // speedup)) for speedup in sizes.speedups]
    rates = _rates(engine, originals, policies, sizes, advance)
    rows = []
    for policy, (name, speedup, allocation) in enumerate(policies):
        quality = _quality(engine, originals, allocation)
        advance(1, f"quality of {name} {speedup}x")
        cost = costs.of(allocation) if costs else len(allocation)
        rows += [
            {
                "policy": name,
                "speedup": speedup,
                "batch": batch,
                "cost": cost,
                "fraction": cost / (costs.total if costs else units),
                "tokens_per_second": rates[policy, batch],
                "quality": quality,
                "sequences": len(originals),
            }
            for batch in sizes.batches
        ]
    return pa.Table.from_pylist(rows, schema=THROUGHPUT)


def _rates(
    engine: Engine, originals: Seq[SearchedSequence], policies: Seq[Policy], sizes: Sizes, advance: Advance
) -> dict[tuple[int, int], float]:
    """Tokens per second by policy (its index) and batch, the median of the rounds."""
    timed = FixedLengthEngine(engine.model, replace(engine.config, max_new_tokens=sizes.new_tokens))
    prompts = [timed.open(original.sequence) for original in originals[: max(sizes.batches)]]
    counted = sizes.new_tokens - (1 if timed.shared_prompt else 0)
    found: dict[tuple[int, int], list[float]] = {}
    for _ in range(sizes.rounds):
        for batch in sizes.batches:
            for policy, (name, speedup, allocation) in enumerate(policies):
                seconds = _seconds(timed, prompts, batch, allocation)
                found.setdefault((policy, batch), []).append(batch * counted / seconds)
                advance(1, f"{name} {speedup}x, batch {batch}")
    return {key: statistics.median(rates) for key, rates in found.items()}


def _seconds(engine: Engine, prompts: Seq[PromptState], batch: int, allocation: Allocation) -> float:
    """Time of one batch. Its results are Python values, so no computation is pending."""
    # A copy is a distinct prompt: the engine runs equal rows as one.
    rows = [replace(prompt) for prompt in islice(cycle(prompts), batch)]
    began = time.perf_counter()
    generations = engine.generate([(prompt, allocation) for prompt in rows])
    seconds = time.perf_counter() - began
    assert all(len(generation.tokens) == engine.config.max_new_tokens for generation, _ in generations)
    return seconds


def _quality(engine: Engine, originals: Seq[SearchedSequence], allocation: Allocation) -> float:
    """Mean criterion of an allocation's outputs; the full model's are known."""
    if allocation == full(engine.units.count):
        return statistics.fmean(original.quality for original in originals)
    config = engine.config
    # The likelihood of another sequence's references, computed with that metric, is not used here.
    same = {original.sequence.id: original.sequence for original in originals}
    metrics = [config.criterion] if config.criterion in config.model_metrics else []
    evaluator = Evaluator(engine, metrics=metrics, shuffled=same)
    values: list[float] = []
    for first in range(0, len(originals), BATCH):
        some = originals[first : first + BATCH]
        for original in some:
            evaluator.set_full_output(original.sequence, original.tokens)
        proposal = Proposal(allocation=allocation, family="unified")
        outcomes = evaluator.evaluate([(original.sequence, [proposal]) for original in some])
        values += [outcome.quality[config.criterion] for [outcome] in outcomes]
        for original in some:
            evaluator.close(original.sequence)
    return statistics.fmean(values)
