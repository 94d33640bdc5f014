"""The one composition root: sequences -> engine <-> search -> store -> analysis -> verification."""

import resource
import sys
import time
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

import analysis
from oracle.config import SearchConfig
from oracle.draw import draw
from oracle.engine import Engine, Evaluator
from oracle.errors import InputError
from oracle.models import LanguageModel, load_model
from oracle.progress import Watch, silent
from oracle.quality import METRICS, get_metric
from oracle.rounds import open_search, search_together
from oracle.search import Memory, Space
from oracle.sequences import check_sequences, data_hash, load_sequences
from oracle.store import Run, RunWriter, check_free, git_commit, versions
from oracle.types import Allocation, Outcome, Sequence

__all__ = ["run_search"]

ROWS_PER_PART = 2048
"""Evaluations kept in memory before they are written as one part."""

SIDE_BY_SIDE = 8
"""Sequences searched at a time: enough rows for a batch while strategies learn from what came before."""

MIB = 2**20


def run_search(config: SearchConfig, out: Path | str, *, watch: Watch = silent) -> Run:
    """Searches the layer allocations of every sequence and writes a run folder.

    Args:
        config: what to do.
        out: the run folder, which must not exist yet.
        watch: shows progress.

    Raises:
        InputError: for bad input; whatever can be checked is checked before anything is computed or written.
    """
    began, out = time.monotonic(), Path(out)
    check_free(out)
    sequences = _load(config)
    model = load_model(
        config.model, dtype=config.dtype, device=config.device, trust_remote_code=config.trust_remote_code
    )
    engine = Engine(model, config)
    prompt_tokens = _check_prompts(engine, sequences)
    _check_continuations(engine, sequences, prompt_tokens)
    model_mib = psutil.Process().memory_info().rss / MIB
    writer = RunWriter(out, _manifest(config, model, sequences))
    writer.write_sequences(sequences, prompt_tokens)
    search_began = time.monotonic()
    _search_all(engine, config, sequences, prompt_tokens, writer, watch)
    search_seconds = time.monotonic() - search_began
    experiment = analysis.load(out)
    summary = analysis.summarise(experiment)
    verification = _verify(engine, experiment, summary, watch)
    for name, table in {"minimal_budgets": summary.minimal, "assignment": summary.assignment}.items():
        writer.write_result(name, table)
    writer.write_result("verification", verification)
    peak_mib = _peak_mib()
    writer.write_summary(
        {
            "strategy": config.strategy,
            **summary.to_dict(),
            "verified": int(verification["agrees"].sum()),
            "verified_of": len(verification),
            "unverified": sorted(set(verification.loc[~verification["agrees"], "sequence"])),
            "search_seconds": round(search_seconds, 2),
            "seconds": round(time.monotonic() - began, 2),
            "peak_memory_mib": round(peak_mib),
            "memory_above_model_mib": round(peak_mib - model_mib),
        }
    )
    # Last: the run is complete, whatever becomes of its pictures.
    draw(experiment, out / "figures", summary=summary, watch=watch)
    return Run.open(out)


def _load(config: SearchConfig) -> list[Sequence]:
    sequences = load_sequences(
        config.data,
        columns=config.columns,
        reference_files=config.reference_files,
        tasks=config.tasks,
        limit=config.limit,
    )
    for name in dict.fromkeys((config.criterion, *config.metrics)):
        check_sequences(sequences, get_metric(name))
    return sequences


def _check_prompts(engine: Engine, sequences: Seq[Sequence]) -> list[int]:
    """Lengths of the prompts in tokens, once all of them are known to fit."""
    lengths = []
    for sequence in sequences:
        try:
            lengths.append(len(engine.encode(sequence.prompt)))
        except InputError as error:
            raise InputError(f"sequence '{sequence.id}': {error}") from error
    return lengths


def _check_continuations(engine: Engine, sequences: Seq[Sequence], prompt_tokens: Seq[int]) -> None:
    """Makes sure that every text whose likelihood is wanted has tokens and fits behind its prompt."""
    config, model = engine.config, engine.model
    partners = _partners(sequences, config.seed)
    for sequence, length in zip(sequences, prompt_tokens, strict=True):
        scored: list[tuple[str, str]] = []
        if "log_likelihood" in config.model_metrics:
            scored += [("reference", text) for text in sequence.references]
            scored += [("reference (another sequence's, for the null)", t) for t in partners[sequence.id].references]
        if "choice_accuracy" in config.model_metrics:
            scored += [("choice", text) for text in sequence.choices]
        for kind, text in scored:
            count = len(model.tokenizer(text, add_special_tokens=False)["input_ids"])
            if not count:
                raise InputError(f"sequence '{sequence.id}': a {kind} of at least one token is required; remove it")
            if model.context is not None and length + count > model.context:
                raise InputError(
                    f"sequence '{sequence.id}': a prompt of {length} tokens and a {kind} of {count} do not fit the "
                    f"model's context of {model.context} tokens; shorten them or leave them out"
                )


def _manifest(config: SearchConfig, model: LanguageModel, sequences: Seq[Sequence]) -> dict[str, Any]:
    return {
        "config": config.to_dict(),
        "model": model.describe(),
        "data": {"source": config.data, "hash": data_hash(sequences), "sequences": len(sequences)},
        "versions": versions(),
        "commit": git_commit(),
        "seed": config.seed,
    }


def _search_all(
    engine: Engine,
    config: SearchConfig,
    sequences: Seq[Sequence],
    prompt_tokens: Seq[int],
    writer: RunWriter,
    watch: Watch,
) -> None:
    """Searches the sequences, as many side by side as fill a batch, and writes what was found and what is proven."""
    evaluator = _Evaluating(engine, metrics=config.model_metrics, shuffled=_partners(sequences, config.seed))
    space, memory = Space.of(engine.units.count, paths=config.paths), Memory()
    seeds = np.random.SeedSequence(config.seed).generate_state(len(sequences)).tolist()
    pending: list[tuple[str, int, Outcome]] = []
    proven: list[dict[str, Any]] = []
    columns = _quality_columns(config)
    try:
        with watch("Searching", len(sequences) * config.evaluations) as advance:
            for start in range(0, len(sequences), SIDE_BY_SIDE):
                here = range(start, min(start + SIDE_BY_SIDE, len(sequences)))
                searches = [
                    open_search(
                        sequences[index],
                        space,
                        config,
                        seed=seeds[index],
                        memory=memory,
                        prompt_tokens=prompt_tokens[index] if config.scope == "sequence" else 0,
                    )
                    for index in here
                ]
                for found in search_together(evaluator, searches, config):
                    pending += [
                        (search.sequence.id, len(search.outcomes) - len(outcomes) + place, outcome)
                        for search, outcomes in found
                        for place, outcome in enumerate(outcomes)
                    ]
                    advance(sum(len(outcomes) for _, outcomes in found), found[-1][0].sequence.id)
                    if len(pending) >= ROWS_PER_PART:
                        writer.append(pending, columns)
                        pending = []
                for search in searches:
                    # A strategy may end early, and a proof may add to what was planned.
                    advance(config.evaluations - len(search.outcomes), search.sequence.id)
                    memory.learn(search.archive)
                    proven.append({"sequence": search.sequence.id, "exhausted": search.archive.exhausted_below})
                    evaluator.close(search.sequence)
    finally:
        if pending:
            writer.append(pending, columns)
    writer.write_result("certificates", pd.DataFrame(proven))


class _Evaluating(Evaluator):
    """The engine as the search sees it: in its terms, without tensors."""

    def structure(self, sequence: Sequence, space: Space) -> tuple[tuple[float, ...], Mapping[float, Allocation]]:
        """Block influence of each unit, and the masks of dynamic programming by cost; none in parallel blocks."""
        if not self.engine.units.sequential:
            return (), {}
        states = self.hidden_states(sequence)
        found = states.influence(), states.skips(space.costs, space.free)
        self.engine.executions += states.executions
        return found

    def exhaust(self, sequence: Sequence, count: int, space: Space) -> list[Outcome]:
        """Of all masks of so many free units those that give the full model's output."""
        runs_NU = np.zeros((comb(len(space.free), count), space.units), dtype=np.bool_)
        runs_NU[:, sorted(space.fixed)] = True
        chosen = np.array(list(combinations(space.free, count)), dtype=np.int64).reshape(-1, count)
        np.put_along_axis(runs_NU, chosen, True, axis=1)
        # Neighbours share most of what is computed.
        runs_NU = runs_NU[np.lexsort(runs_NU.T[::-1])]
        return self.reproduces(sequence, runs_NU)


def _partners(sequences: Seq[Sequence], seed: int) -> Mapping[str, Sequence]:
    """Another sequence for each, along one random cycle through all of them."""
    order = np.random.default_rng(seed).permutation(len(sequences))
    return {sequences[a].id: sequences[b] for a, b in zip(order, np.roll(order, -1), strict=True)}


def _quality_columns(config: SearchConfig) -> list[str]:
    columns = [name for name, metric in METRICS.items() if metric.kind in ("text", "tokens")]
    extra = {
        "log_likelihood": ("log_likelihood", "null_log_likelihood"),
        "choice_accuracy": ("choice_accuracy", "choice"),
    }
    return columns + [column for name in config.model_metrics for column in extra[name]]


def _verify(engine: Engine, experiment: analysis.Experiment, summary: analysis.Summary, watch: Watch) -> pd.DataFrame:
    """Runs every allocation that is reported again, alone, by plain generation on the cut model.

    Reported are the full model (the threshold), the minimal allocation and the oracle's choice of each sequence.
    """
    evaluations = experiment.evaluations
    reported = pd.concat(
        [
            summary.minimal[["sequence", "number"]],
            summary.assignment[["sequence", "number"]],
            evaluations.loc[evaluations["number"] == 0, ["sequence", "number"]],
        ]
    ).drop_duplicates()
    recorded = reported.merge(evaluations, on=["sequence", "number"], validate="one_to_one")
    prompts = experiment.sequences.set_index("sequence")["prompt"]
    agrees = []
    with watch("Verifying", len(recorded)) as advance:
        for name, group in recorded.groupby("sequence", sort=False):
            prompt = engine.open(prompts[name])
            for allocation, tokens in zip(group["allocation"], group["tokens"], strict=True):
                agrees.append(engine.alone(prompt, tuple(allocation.tolist())) == tuple(tokens.tolist()))
                advance(1, str(name))
    ordered = pd.concat([group for _, group in recorded.groupby("sequence", sort=False)])
    return ordered[["sequence", "number", "allocation", "cost"]].assign(agrees=agrees)


def _peak_mib() -> float:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)
