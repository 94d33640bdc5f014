"""The one composition root: sequences -> engine <-> search -> store -> analysis -> verification."""

import math
import os
import resource
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

import analysis
from oracle.campaign import Campaign, Stop, never
from oracle.config import SearchConfig
from oracle.engine import Difference, Engine
from oracle.errors import InputError, Interrupted
from oracle.executors import HERE, Workers, create_executor
from oracle.job import Job
from oracle.store import Run, RunWriter, check_free, versions
from oracle.store.hidden import HiddenStore
from oracle.stored import Stored, differences, with_dtype_of
from oracle.utils.progress import Watch, note, silent

__all__ = ["resume_search", "run_search"]

MIB = 2**20

FAR = 100
"""Leads beyond this many near-tie thresholds are not put down to rounding."""


def run_search(
    config: SearchConfig,
    out: Path | str,
    *,
    prior: Path | str | None = None,
    workers: Workers = HERE,
    store: HiddenStore | None = None,
    watch: Watch = silent,
    stop: Stop = never,
) -> Run:
    """Searches the layer allocations of every sequence and writes a run folder.

    Args:
        config: what to do; the manifest has the dtype that `auto` stood for.
        out: the run folder, which must not exist yet.
        prior: a run of the same model and scope: the search of each sequence goes on from what is known there. It
            also says the dtype, where the config leaves it to `auto`.
        workers: who searches.
        store: keeps hidden states from search to search.
        watch: shows progress.
        stop: asked after every batch whether to stop.

    Raises:
        InputError: for bad input; whatever can be checked is checked before anything is computed or written.
        Interrupted: if it was asked to stop; `resume_search` goes on.
    """
    session, out = _Session(workers, watch, stop), Path(out)
    check_free(out)
    before = None if prior is None else Stored.read(Run.open(prior))
    job = Job.load(with_dtype_of(before.run, config) if before else config, store)
    manifest = job.manifest()
    if before:
        before = before.begin(manifest, job.sequences)
        manifest["continues"] = {"run": str(prior), **{name: before.run.manifest[name] for name in ("seed", "commit")}}
    items = job.items(before)
    with RunWriter(out, manifest) as writer:
        job.write_sequences(writer)
        if before:
            rows = [(item.sequence.id, n, outcome) for item in items for n, outcome in enumerate(item.prior)]
            writer.append(rows, job.config.quality_columns)
            counts = [(item.sequence.id, len(item.prior), item.exhausted) for item in items]
            writer.write_result("prior", pd.DataFrame(counts, columns=["sequence", "evaluations", "exhausted"]))
        campaign = Campaign(config=job.config, space=job.space, items=items)
        return session.search(job, campaign, writer)


def resume_search(
    folder: Path | str,
    *,
    settings: dict[str, Any] | None = None,
    workers: Workers = HERE,
    store: HiddenStore | None = None,
    watch: Watch = silent,
    stop: Stop = never,
) -> Run:
    """Goes on with a run that was interrupted, or that lost a part; it ends with what it would have ended with.

    Outcomes that were written are not computed again; the strategies, which are deterministic, propose them again on
    their way to where they were. A limit in seconds counts anew for sequences that had not ended.

    Args:
        folder: the run.
        settings: settings of `SearchConfig` that it is expected to have; `batch_rows`, `memory` and `device` may
            differ, and then count. The dtype `auto` is that of the run.
        workers: who searches.
        store: keeps hidden states from search to search.
        watch: shows progress.
        stop: asked after every batch whether to stop.

    Raises:
        InputError: if the model, the data or a setting is not what the run began with, or somebody is writing it.
        Interrupted: if it was asked to stop again.
    """
    session, run = _Session(workers, watch, stop), Run.open(folder)
    config = SearchConfig.from_dict(run.manifest["config"])
    wanted = with_dtype_of(run, replace(config, **settings or {}))
    if differing := differences(config, wanted):
        raise InputError(f"'{folder}' cannot be resumed with {', '.join(differing)}; leave that out or begin a new run")
    with RunWriter.reopen(run.folder) as writer:
        if Stored.read(run).complete:
            return run
        job = Job.load(wanted, store, run.manifest)
        job.write_sequences(writer)
        prior, known = Stored.read(run).split()
        campaign = Campaign(config=job.config, space=job.space, items=job.items(prior, known), ended=known.exhausted)
        return session.search(job, campaign, writer)


class _Session:
    """One sitting at a run."""

    def __init__(self, workers: Workers, watch: Watch, stop: Stop) -> None:
        self._began = time.monotonic()
        self._workers, self._watch, self._stop = workers, watch, stop

    def search(self, job: Job, campaign: Campaign, writer: RunWriter) -> Run:
        """Searches what is not known yet, then sums up and verifies."""
        note(self._watch, job.model.headline())
        model_mib = psutil.Process().memory_info().rss / MIB
        about = {"versions": versions(), "machine": job.model.machine.to_dict()}
        writer.log.info("began", process=os.getpid(), ended=len(campaign.ended), **about)
        executor = create_executor(self._workers, job.engine, campaign.config, campaign.space)
        search_began = time.monotonic()
        try:
            campaign.run(executor, writer, self._watch, self._stop)
        except Interrupted:
            writer.log.info("stopped")
            raise
        finally:
            executor.close()
        search_seconds = time.monotonic() - search_began
        experiment = analysis.load(writer.folder)
        summary = analysis.summarise(experiment)
        verification = _verify(job.engine, experiment, summary, self._watch)
        for name, table in {"minimal_budgets": summary.minimal, "assignment": summary.assignment}.items():
            writer.write_result(name, table)
        unverified = _explain(job.engine, experiment, verification)
        for entry in unverified:
            writer.log.info("not verified", **entry)
        writer.write_result("verification", verification)
        peak_mib, aside = _peak_mib(), Run.open(writer.folder).certificates().dropna(subset="set_aside")
        writer.write_summary(
            {
                "strategy": campaign.config.strategy,
                **summary.to_dict(),
                "set_aside": dict(zip(aside["sequence"], aside["set_aside"], strict=True)),
                "verified": int(verification["agrees"].sum()),
                "verified_of": len(verification),
                "hidden_states": executor.hidden(),
                "unverified": sorted(set(verification.loc[~verification["agrees"], "sequence"])),
                "differences": unverified,
                "rounding": job.engine.rounding(),
                "search_seconds": round(search_seconds, 2),
                "seconds": round(time.monotonic() - self._began, 2),
                "peak_memory_mib": round(peak_mib),
                "memory_above_model_mib": round(peak_mib - model_mib),
            }
        )
        writer.log.info("completed", seconds=round(time.monotonic() - self._began, 2))
        return Run.open(writer.folder)


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


def _explain(engine: Engine, experiment: analysis.Experiment, verification: pd.DataFrame) -> list[dict[str, Any]]:
    """For each allocation that did not verify: the token, the margin, the rounding it is held against, and a remedy."""
    failed = verification.loc[~verification["agrees"], ["sequence", "number"]]
    recorded = failed.merge(experiment.evaluations, on=["sequence", "number"], validate="one_to_one")
    prompts = experiment.sequences.set_index("sequence")["prompt"]
    entries = []
    for row in recorded.to_dict("records"):
        prompt = engine.open(prompts[row["sequence"]])
        found = engine.difference(prompt, tuple(row["allocation"].tolist()), row["tokens"].tolist())
        texts = (
            {
                f"{name}_text": None if token is None else engine.model.text([token])
                for name, token in (("recorded", found.recorded), ("plain", found.plain))
            }
            if found
            else {}
        )
        entries.append(
            {
                "sequence": row["sequence"],
                "number": int(row["number"]),
                "cost": float(row["cost"]),
                **(asdict(found) if found else {}),
                **texts,
                "near_tie": engine.rounding()["near_tie"],
                "rounding": engine.rounding()["logits"],
                "remedy": _remedy(engine, found),
            }
        )
    return entries


def _remedy(engine: Engine, found: Difference | None) -> str:
    """What the user of a run can do about an allocation that did not verify."""
    if found is None:
        return (
            "a second plain generation agrees with the recorded output, so that this machine does not repeat its own "
            "results: search again with OMP_NUM_THREADS=1"
        )
    if found.lead is not None and found.lead <= FAR * engine.tie < math.inf:
        return f"rounding turned the lead round: search again with --near-tie {max(4 * found.lead, 2 * engine.tie):.2g}"
    return (
        "rounding does not explain that: the stored output or the engine is wrong for this model; do not use this "
        "allocation, and report the run"
    )


def _peak_mib() -> float:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)
