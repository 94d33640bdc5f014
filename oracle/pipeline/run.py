"""The composition root: sequences -> engine <-> search -> store -> analysis -> verification."""

import os
import resource
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

import analysis
from oracle.config import SearchConfig
from oracle.errors import FOREIGN, ForeignError, InputError, Interrupted, reason_of
from oracle.executors import DEFAULT_WORKERS, Plan, Pool, Searcher, Workers, create_executor, plan_workers
from oracle.loggers import Logger, Loggers
from oracle.pipeline.data import with_task_settings
from oracle.pipeline.resume import KnownOutcomes, authorised, differences, with_dtype_of
from oracle.pipeline.scheduler import Scheduler, Stop, never
from oracle.pipeline.settings_check import check_settings
from oracle.pipeline.setup import Setup
from oracle.pipeline.vacuous import vacuous, vacuous_line
from oracle.pipeline.verify import explain, verify
from oracle.store import Run, RunWriter, check_free, versions
from oracle.store.hidden import HiddenStore
from oracle.store.resuming import resume_command
from oracle.types import RunPath
from oracle.utils.progress import Watch, automatic, note

__all__ = ["resume_search", "run_search"]

MIB = 2**20

Summarised = Callable[[analysis.Experiment, analysis.Summary], None]
"""Called with the experiment and its summary, so that figures need not compute them again."""


def run_search(
    config: SearchConfig,
    out: Path | str,
    *,
    prior: RunPath | None = None,
    workers: Workers = DEFAULT_WORKERS,
    store: HiddenStore | None = None,
    watch: Watch = automatic,
    stop: Stop = never,
    summarised: Summarised | None = None,
    loggers: Seq[Logger] = (),
    figures: bool = True,
) -> Run:
    """Searches the layer allocations of every sequence and writes a run folder.

    Args:
        config: settings; the manifest stores the dtype that `auto` stood for.
        out: the run folder, which must not exist yet.
        prior: a run of the same model and scope, from whose outcomes the search of each sequence starts. Its dtype
            replaces `auto`.
        workers: where to search.
        store: hidden states shared between searches.
        watch: progress display.
        stop: called after every batch; true stops the search.
        summarised: see `Summarised`.
        loggers: receive numbers while the search runs; see `oracle.loggers.Logger`.
        figures: whether the command line draws the run when it resumes it; kept in the manifest. Nothing is drawn here.

    Raises:
        InputError: for bad input, checked as far as possible before anything is computed or written.
        Interrupted: if it was stopped; `resume_search` continues it.
    """
    if not isinstance(out, str | os.PathLike):
        raise InputError(f"out needs the path of a new run folder, not {out!r:.80}")
    session, out = _Session(workers, watch, stop, summarised, loggers), Path(out)
    check_settings(config)
    check_free(out)
    config = with_task_settings(config)
    before = None if prior is None else KnownOutcomes.read(Run.open(prior))
    config = with_dtype_of(before.run, config) if before else config
    with session.planned(config):
        setup = Setup.load(config, store, before.run if before else None)
        manifest = setup.manifest() | {"machine": session.machine(setup, len(setup.sequences))}
        if not figures:
            manifest["figures"] = False
        if before:
            before = before.begin(manifest, setup.sequences)
            if (begun := before.evaluations["sequence"].nunique()) < len(setup.sequences):
                have = f"'{before.run.folder}' has outcomes of {begun} of the {len(setup.sequences)} sequences"
                note(watch, f"{have}; others start anew")
            earlier = {name: before.run.manifest.get(name) for name in ("seed", "commit")}
            manifest["continues"] = {"run": str(before.run.folder), **earlier}
        items = setup.items(before)
        with RunWriter(out, manifest) as writer:
            writer.write_sequences(setup.sequences, setup.prompt_tokens, setup.scored_tokens)
            if before:
                rows = [(item.sequence.id, n, outcome) for item in items for n, outcome in enumerate(item.prior)]
                writer.append(rows, setup.config.quality_columns)
                counts = [(item.sequence.id, len(item.prior), item.exhausted) for item in items]
                writer.write_result("prior", pd.DataFrame(counts, columns=["sequence", "evaluations", "exhausted"]))
            scheduler = Scheduler(config=setup.config, space=setup.space, items=items)
            return session.search(setup, scheduler, writer)


def resume_search(
    folder: RunPath,
    *,
    settings: dict[str, Any] | None = None,
    workers: Workers = DEFAULT_WORKERS,
    store: HiddenStore | None = None,
    watch: Watch = automatic,
    stop: Stop = never,
    summarised: Summarised | None = None,
    loggers: Seq[Logger] = (),
) -> Run:
    """Continues a run that was interrupted or lost a part; the results are those of an uninterrupted run.

    Stored outcomes are not computed again: the deterministic strategies propose them again, and they are read back. A
    limit in seconds starts anew for unfinished sequences.

    Args:
        folder: the run folder.
        settings: expected settings of `SearchConfig`; `batch_rows`, `memory`, `device` and `study` may differ from the
            run's and then replace them. The dtype `auto` is that of the run. `trust_remote_code` is never taken from
            the run, and requires `model`; a `study` outside the run must be given again.
        workers: as for `run_search`.
        store: as for `run_search`.
        watch: as for `run_search`.
        stop: as for `run_search`.
        summarised: as for `run_search`.
        loggers: as for `run_search`.

    Raises:
        InputError: if the model, the data or a setting is not the run's, or another process is writing it.
        Interrupted: if it was stopped again.
    """
    session, run = _Session(workers, watch, stop, summarised, loggers), Run.open(folder)
    config = SearchConfig.from_dict(run.manifest["config"])
    wanted = with_dtype_of(run, authorised(run, settings or {}))
    if differing := differences(config, wanted):
        moved = ""
        if (wanted.model, wanted.data) != (config.model, config.data):
            moved = f", from its outcomes if it is the same one elsewhere: --from {shlex.quote(str(folder))}"
        raise InputError(
            f"'{folder}' cannot be resumed with {', '.join(differing)}; omit that or start a new run{moved}"
        )
    with RunWriter.reopen(run.folder) as writer:
        if KnownOutcomes.read(run).complete:
            return run
        with session.planned(wanted):
            setup = Setup.load(wanted, store, run, same=True)
            writer.begin_again()
            writer.write_sequences(setup.sequences, setup.prompt_tokens, setup.scored_tokens)
            prior, known = KnownOutcomes.read(run).split()
            scheduler = Scheduler(
                config=setup.config, space=setup.space, items=setup.items(prior, known), ended=known.exhausted
            )
            return session.search(setup, scheduler, writer)


class _Session:
    """Searches and completes a run within one process, measuring its time."""

    def __init__(
        self, workers: Workers, watch: Watch, stop: Stop, summarised: Summarised | None, loggers: Seq[Logger]
    ) -> None:
        if not isinstance(workers, Workers):
            raise InputError(f"workers needs oracle.executors.Workers, such as Workers(count=2), not {workers!r:.80}")
        for name, called in {"watch": watch, "stop": stop}.items():
            if not callable(called):
                raise InputError(f"{name} needs a function, not {called!r:.80}")
        self._began = time.monotonic()
        self._workers, self._watch, self._stop, self._summarised = workers, watch, stop, summarised
        self._loggers = loggers
        self._plan: Plan | None = None

    @contextmanager
    def planned(self, config: SearchConfig) -> Iterator[None]:
        """Plans the use of the cores, and sets the threads of this process, before anything is loaded."""
        self._plan = plan_workers(self._workers, device=config.device, study=config.study is not None)
        with self._plan.threads_set():
            yield

    def machine(self, setup: Setup, sequences: int) -> dict[str, Any]:
        """The machine for a manifest, with the use of its cores by a search of so many sequences."""
        assert self._plan is not None
        self._plan = self._plan.fitted(sequences=sequences, memory_mib=setup.config.memory)
        return {**setup.model.machine.to_dict(), **self._plan.to_dict()}

    def search(self, setup: Setup, scheduler: Scheduler, writer: RunWriter) -> Run:
        """Searches the outstanding sequences, then summarises and verifies."""
        for line in setup.data.lines():
            note(self._watch, f"Data: {line}")
        for line in [setup.model.headline(), *setup.engine.remarks()]:
            note(self._watch, line)
        for line in setup.prompts.notes:
            note(self._watch, line)
            writer.log.warning("prompts", note=line)
        for reason, ids in vacuous(setup.config, setup.sequences, setup.scored_tokens).items():
            line = vacuous_line(reason, len(ids), len(setup.sequences))
            note(self._watch, line)
            writer.log.warning("vacuous", reason=reason, note=line, sequences=ids)
        model_mib = psutil.Process().memory_info().rss / MIB
        if remarks := setup.engine.remarks():
            writer.log.info("generation", remarks=remarks)
        machine = self.machine(setup, len(scheduler.items) - len(scheduler.ended))
        assert self._plan is not None
        if self._workers.kind == "local":
            note(self._watch, self._plan.describe())
        # Before anything else starts a thread in this process.
        pool = Pool(Searcher(setup.engine, scheduler.config, scheduler.space), self._plan.processes)
        try:
            about = {"versions": versions(), "machine": machine}
            writer.log.info("began", process=os.getpid(), ended=len(scheduler.ended), **about)
            loggers = Loggers(self._loggers, lambda name, why: self._logger_failed(writer, name, why))
            loggers.begin(writer.folder, scheduler.config.to_dict())
            summary: dict[str, Any] = {}
            try:
                run = self._complete(setup, scheduler, writer, pool, model_mib, loggers)
                summary = run.summary()
            finally:
                loggers.end(summary)
            return run
        finally:
            pool.close()

    def _logger_failed(self, writer: RunWriter, name: str, why: str) -> None:
        note(self._watch, f"Logging by {name} ended ({why}); the search goes on")
        writer.log.warning("logger failed", logger=name, error=why)

    def _complete(
        self,
        setup: Setup,
        scheduler: Scheduler,
        writer: RunWriter,
        pool: Pool,
        model_mib: float,
        loggers: Loggers,
    ) -> Run:
        assert self._plan is not None
        executor = create_executor(self._workers, pool, scheduler.config, scheduler.space, parts=self._plan.parts)
        search_began = time.monotonic()
        try:
            scheduler.run(executor, writer, self._watch, self._stop, loggers)
        except Interrupted:
            writer.log.info("stopped")
            raise
        except FOREIGN as error:
            raise _failed(writer, error) from error
        finally:
            executor.close()
        search_seconds = time.monotonic() - search_began
        experiment = analysis.load(writer.folder)
        summary = analysis.summarise(experiment)
        verification = verify(pool, experiment, summary, writer.log, self._watch)
        for name, table in {"minimal_budgets": summary.minimal, "assignment": summary.assignment}.items():
            writer.write_result(name, table)
        unverified = explain(setup.engine, experiment, verification, writer.log)
        for entry in unverified:
            writer.log.info("not verified", **entry)
        writer.write_result("verification", verification)
        peak_mib, failed = (
            max(_peak_mib(), model_mib + pool.growth_mib()),
            Run.open(writer.folder).certificates().dropna(subset="set_aside"),
        )
        writer.write_summary(
            {
                "strategy": scheduler.config.strategy,
                **summary.to_dict(),
                "set_aside": dict(zip(failed["sequence"], failed["set_aside"], strict=True)),
                "verified": int(verification["agrees"].sum()),
                "verified_of": len(verification),
                "hidden_states": executor.hidden(),
                "unverified": sorted(set(verification.loc[~verification["agrees"], "sequence"])),
                "differences": unverified,
                "rounding": setup.engine.rounding(),
                "search_seconds": round(search_seconds, 2),
                "seconds": round(time.monotonic() - self._began, 2),
                "peak_memory_mib": round(peak_mib),
                "memory_above_model_mib": round(peak_mib - model_mib),
            }
        )
        if self._summarised:
            self._summarised(experiment, summary)
        writer.log.info("completed", seconds=round(time.monotonic() - self._began, 2))
        return Run.open(writer.folder)


def _failed(writer: RunWriter, error: BaseException) -> InputError:
    """The error of a search that an exception ended; the log holds its traceback."""
    writer.log.warning("failed", error=reason_of(error), traceback=traceback.format_exception(error))
    again = f"what was found so far is kept; continue with: {resume_command(writer.folder)}"
    if isinstance(error, InputError):
        return InputError(f"{error}; {again}")
    return ForeignError(f"the search stopped ({reason_of(error)}); {again}", log=writer.folder / "log.jsonl")


def _peak_mib() -> float:
    """Peak resident memory of this process, without its workers, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)
