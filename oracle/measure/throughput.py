"""Measured tokens per second and quality of early exit, SkipDecode and unified skipping.

The table of Liu et al. 2024 (arXiv 2404.06954), for any model and data. All three are zero-shot: the published numbers
are of models trained or fine-tuned for their method.
"""

import statistics
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice

import numpy as np
import pyarrow as pa

from oracle.allocations import early_exit, full, published_unified, skip_decode
from oracle.costs import Costs
from oracle.engine import Engine, Evaluator, FixedLengthEngine, PromptState, TableGate
from oracle.measure.sizes import Sizes
from oracle.measure.tables import THROUGHPUT
from oracle.metrics import agreement, choice_score, get_metric
from oracle.pipeline.reload import SearchedSequence
from oracle.tasks import continuation_quality, continuations_of, text_quality
from oracle.types import Allocation, Proposal, Sequence
from oracle.utils.progress import Advance

__all__ = ["measure_throughput", "policies_of", "steps"]

BATCH = 32
"""Sequences generated as one batch where quality is measured."""


@dataclass(frozen=True, kw_only=True)
class _Policy:
    """A policy at a speed-up.

    Attributes:
        name: as in `THROUGHPUT`.
        speedup: the nominal one.
        by_token: number of fed tokens of an output to the units that each runs; the same for all but `skipdecode`.
    """

    name: str
    speedup: int
    by_token: Callable[[int], list[Allocation]]

    @property
    def fixed(self) -> Allocation | None:
        """The units of every token; None if they differ."""
        [first, *rest] = self.by_token(8)
        return first if all(one == first for one in rest) else None

    def gate(self, engine: Engine, count: int) -> TableGate:
        """The same decisions for `count` requests. Skipped states are not read: each token's units are its successor's
        too, or more."""
        table_TL = np.zeros((max(1, engine.config.max_new_tokens - 1), engine.units.count), dtype=np.bool_)
        for row, allocation in zip(table_TL, self.by_token(len(table_TL)), strict=True):
            row[list(allocation)] = True
        return TableGate([table_TL] * count, policy="omit")


def _same(allocation: Allocation, tokens: int) -> list[Allocation]:
    return [allocation] * tokens


def policies_of(engine: Engine, sizes: Sizes) -> list[_Policy]:
    """The full model, then each policy at each speed-up.

    Without `skipdecode` where units are sublayers, and in scope `decode-last`, in which gates do not run.
    """
    units = engine.units.count
    found = [_Policy(name="full", speedup=1, by_token=partial(_same, full(units)))]
    for name in sizes.policies:
        for speedup in sizes.speedups:
            by_token: Callable[[int], list[Allocation]]
            if name == "unified":
                by_token = partial(_same, published_unified(units, speedup))
            elif name == "early-exit":
                by_token = partial(_same, early_exit(units, units // speedup))
            elif engine.config.unit == "layer" and engine.config.scope != "decode-last":
                by_token = partial(skip_decode, units, speedup)
            else:
                continue
            found.append(_Policy(name=name, speedup=speedup, by_token=by_token))
    return found


def steps(sizes: Sizes) -> int:
    """Number of steps that `measure_throughput` reports to `advance`, at most."""
    return (1 + len(sizes.policies) * len(sizes.speedups)) * (sizes.rounds * len(sizes.batches) + 1)


def measure_throughput(
    engine: Engine, originals: Seq[SearchedSequence], sizes: Sizes, costs: Costs | None, advance: Advance
) -> pa.Table:
    """Tokens per second and quality of the full model and of each policy; see `oracle.measure.tables`.

    Every row of a batch has a prompt of its own (repeated if there are too few, and run as if distinct) and generates
    the same number of tokens. Prompts are run beforehand in scope `decode`, whose first token comes with them and is
    not counted; in scope `sequence` they are part of the timing, at full depth under `skipdecode`; in `decode-last`
    their last token is. Every round times all policies in turn, and the median of the rounds counts, so that a slow
    first round has no effect. `costs` are the run's; None for units.
    """
    policies = policies_of(engine, sizes)
    rates = _rates(engine, originals, policies, sizes, advance)
    rows = []
    for place, policy in enumerate(policies):
        quality = _quality(engine, originals, policy)
        advance(1, f"quality of {policy.name} {policy.speedup}x")
        ran = policy.by_token(max(1, engine.config.max_new_tokens - 1))
        cost = statistics.fmean(costs.of(one) if costs else len(one) for one in ran)
        rows += [
            {
                "policy": policy.name,
                "speedup": policy.speedup,
                "batch": batch,
                "cost": cost,
                "fraction": cost / (costs.total if costs else engine.units.count),
                "tokens_per_second": rates[place, batch],
                "quality": quality,
                "sequences": len(originals),
            }
            for batch in sizes.batches
        ]
    return pa.Table.from_pylist(rows, schema=THROUGHPUT)


def _rates(
    engine: Engine, originals: Seq[SearchedSequence], policies: Seq[_Policy], sizes: Sizes, advance: Advance
) -> dict[tuple[int, int], float]:
    """Tokens per second by policy (its index) and batch, the median of the rounds."""
    timed = FixedLengthEngine(engine.model, replace(engine.config, max_new_tokens=sizes.new_tokens))
    prompts = [timed.open(original.sequence) for original in originals[: max(sizes.batches)]]
    counted = sizes.new_tokens - prompts[0].given
    found: dict[tuple[int, int], list[float]] = {}
    for _ in range(sizes.rounds):
        for batch in sizes.batches:
            for place, policy in enumerate(policies):
                seconds = _seconds(timed, prompts, batch, policy)
                found.setdefault((place, batch), []).append(batch * counted / seconds)
                advance(1, f"{policy.name} {policy.speedup}x, batch {batch}")
    return {key: statistics.median(rates) for key, rates in found.items()}


def _seconds(engine: Engine, prompts: Seq[PromptState], batch: int, policy: _Policy) -> float:
    """Time of one batch. Its results are Python values, so no computation is pending."""
    # A copy is a distinct prompt: the engine runs equal rows as one.
    rows = [replace(prompt) for prompt in islice(cycle(prompts), batch)]
    allocation, gate = policy.fixed, policy.gate(engine, batch)
    began = time.perf_counter()
    if allocation is not None:
        lengths = [len(one.tokens) for one, _ in engine.generate([(prompt, allocation) for prompt in rows])]
    else:
        lengths = [len(one.generation.tokens) for one in engine.generate_gated(rows, gate)]
    seconds = time.perf_counter() - began
    assert set(lengths) == {engine.config.max_new_tokens}
    return seconds


def _quality(engine: Engine, originals: Seq[SearchedSequence], policy: _Policy) -> float:
    """Mean criterion of a policy's outputs; the full model's are known."""
    allocation = policy.fixed
    if allocation == full(engine.units.count):
        return statistics.fmean(original.quality for original in originals)
    if allocation is None:
        return statistics.fmean(_gated_quality(engine, originals, policy))
    config = engine.config
    # The likelihood of another sequence's references, computed with that metric, is not used here.
    same = {original.sequence.id: original.sequence for original in originals}
    metrics = [config.criterion] if config.criterion in config.asked_metrics else []
    evaluator = Evaluator(engine, metrics=metrics, shuffled=same)
    values: list[float] = []
    for first in range(0, len(originals), BATCH):
        some = originals[first : first + BATCH]
        for original in some:
            evaluator.set_full_output(original.sequence, original.tokens)
        proposal = Proposal(allocation=allocation, family=policy.name)
        outcomes = evaluator.evaluate([(original.sequence, [proposal]) for original in some])
        values += [outcome.quality[config.criterion] for [outcome] in outcomes]
        for original in some:
            evaluator.close(original.sequence)
    return statistics.fmean(values)


def _gated_quality(engine: Engine, originals: Seq[SearchedSequence], policy: _Policy) -> list[float]:
    """Criterion per sequence where tokens run different units."""
    criterion, kind = engine.config.criterion, get_metric(engine.config.criterion).kind
    values: list[float] = []
    for first in range(0, len(originals), BATCH):
        some = originals[first : first + BATCH]
        prompts = [engine.open(original.sequence) for original in some]
        if kind in ("likelihood", "choice", "continuations"):
            values += [
                _scored(engine, prompt, one.sequence, policy, kind) for prompt, one in zip(prompts, some, strict=True)
            ]
            continue
        found = engine.generate_gated(prompts, policy.gate(engine, len(prompts)))
        for one, original in zip(found, some, strict=True):
            tokens = one.generation.tokens
            values.append(
                text_quality(criterion, engine.text(tokens), original.sequence, engine.config)
                if kind in ("text", "function")
                else agreement(tokens, original.tokens)
            )
    return values


def _scored(engine: Engine, prompt: PromptState, sequence: Sequence, policy: _Policy, kind: str) -> float:
    """The likeliest reference's log-likelihood in nats/token, the metric of scored continuations, or whether the
    likeliest choice is the right one.
    """
    if kind == "likelihood":
        tokenizer = engine.model.tokenizer
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in sequence.references]
    elif kind == "continuations":
        ids = continuations_of(sequence)
    else:
        ids = [engine.encode_choice(sequence, choice) for choice in sequence.choices]
    scores = engine.score_gated([prompt] * len(ids), policy.gate(engine, len(ids)), ids)
    means = [float(score.log_likelihoods_T.mean()) for score in scores]
    if kind == "likelihood":
        return max(means)
    if kind == "continuations":
        results = [(mean * len(tokens), score.greedy) for mean, tokens, score in zip(means, ids, scores, strict=True)]
        return continuation_quality(engine.config.criterion, results, sequence, engine.config)
    values = [
        choice_score(engine.config.choice_score, mean, len(tokens), choice)
        for mean, tokens, choice in zip(means, ids, sequence.choices, strict=True)
    ]
    return float(int(np.argmax(values)) == sequence.answer)
