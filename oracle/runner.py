"""The one composition root: sequences -> engine <-> search -> store -> analysis -> verification."""

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
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
from oracle.search import Spread, Strategy
from oracle.sequences import check_sequences, data_hash, load_sequences
from oracle.store import Run, RunWriter, check_free, git_commit, versions
from oracle.types import Outcome, Sequence

__all__ = ["run_search"]

ROWS_PER_PART = 2048
"""Evaluations kept in memory before they are written as one part."""

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
    _evaluate_all(engine, config, sequences, writer, watch)
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


def _evaluate_all(
    engine: Engine, config: SearchConfig, sequences: Seq[Sequence], writer: RunWriter, watch: Watch
) -> None:
    """The loop ask -> engine -> store -> tell, over as many sequences at a time as fill a batch."""
    evaluator = Evaluator(engine, metrics=config.model_metrics, shuffled=_partners(sequences, config.seed))
    pending: list[tuple[str, int, Outcome]] = []
    columns = _quality_columns(config)
    seeds = np.random.SeedSequence(config.seed).generate_state(len(sequences)).tolist()
    planned = min(config.allocations, 2**engine.units.count)
    together = max(1, config.batch_rows // planned)
    try:
        with watch("Searching", len(sequences) * planned) as advance:
            for start in range(0, len(sequences), together):
                group = sequences[start : start + together]
                searches = [
                    Spread(engine.units.count, config.allocations, seed) for seed in seeds[start : start + together]
                ]
                for outcomes in _search_group(evaluator, group, searches, config.batch_rows):
                    pending += outcomes
                    advance(len(outcomes), outcomes[-1][0])
                if len(pending) >= ROWS_PER_PART:
                    writer.append(pending, columns)
                    pending = []
    finally:
        if pending:
            writer.append(pending, columns)


def _search_group(
    evaluator: Evaluator, sequences: Seq[Sequence], searches: Seq[Strategy], rows: int
) -> Iterator[list[tuple[str, int, Outcome]]]:
    """Searches some sequences side by side; yields the outcomes of each round."""
    numbers = [0] * len(sequences)
    while active := [index for index, strategy in enumerate(searches) if not strategy.done]:
        work = [(sequences[index], searches[index].ask(max(1, rows // len(active)))) for index in active]
        found: list[tuple[str, int, Outcome]] = []
        for index, outcomes in zip(active, evaluator.evaluate(work), strict=True):
            searches[index].tell(outcomes)
            found += [(sequences[index].id, numbers[index] + i, outcome) for i, outcome in enumerate(outcomes)]
            numbers[index] += len(outcomes)
        yield found
    for sequence in sequences:
        evaluator.close(sequence)


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
