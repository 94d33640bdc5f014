"""Checks a stored run: whether it is whole, consistent, and reproduces; and which versions wrote it."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

import analysis
from analysis.formatting import counted
from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.metrics import METRICS, agreement, get_metric, load_function
from oracle.models import LanguageModel
from oracle.pipeline.reload import model_of
from oracle.pipeline.verify import MAX_ROUNDING, explain, rerun
from oracle.sequences import data_hash
from oracle.store import Run
from oracle.store.checks import check_manifest, parse_json
from oracle.store.index import INDEX, MANIFEST, UNLISTED, Index, digest, index_all
from oracle.store.lock import Lock
from oracle.store.resuming import resume_command
from oracle.store.run import EVALUATIONS
from oracle.store.schema import EVALUATION, prompts_hash, sequence_of
from oracle.tasks import text_quality
from oracle.types import RunPath, Sequence
from oracle.utils.progress import Watch, silent

__all__ = ["RunCheck", "check_run", "recompute", "renew"]

COMPARED = ("upper", "lower", "certified", "number", "quality", "full_quality")
"""Columns of the minimal budgets that follow from the evaluations."""

CLOSE = 1e-9
"""Relative difference up to which two numbers of equal origin count as equal."""


@dataclass(kw_only=True)
class RunCheck:
    """What a check found.

    Attributes:
        problems: what is missing, edited or inconsistent; one line each.
        notes: what is worth knowing, but wrong with no result.
        files: number of listed files.
        bytes: their total size.
        writers: who wrote how many files: `versions`, `commit`, `files`.
        recomputed: number of outcomes computed again.
        equal: number of them that are equal.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    writers: list[dict[str, Any]] = field(default_factory=list)
    recomputed: int = 0
    equal: int = 0


def check_run(folder: RunPath) -> RunCheck:
    """Checks every file of a run against the index, and the results against the evaluations. Needs no model.

    Args:
        folder: the run folder.

    Raises:
        InputError: if there is no such folder.
    """
    found, folder = RunCheck(), Path(folder)
    try:
        run = Run.open(folder)
        index = Index.read(folder)
    except InputError as error:
        if not folder.exists():
            raise
        found.problems.append(str(error))
        return found
    if index is None:
        found.notes.append(
            f"written by an earlier version, without {INDEX}: files are checked by their own digests only; list them "
            f"with 'oracle check {folder} --renew'"
        )
    else:
        _check_files(index, found)
    try:
        for problem in _inconsistencies(run):
            found.problems.append(problem)
    except InputError as error:
        if str(error) not in found.problems:
            found.problems.append(str(error))
    if not run.complete:
        found.notes.append(f"the search has not ended; continue with '{resume_command(folder)}'")
    return found


def renew(folder: RunPath) -> int:
    """Writes a new index of a run, which accepts all its files as they are; returns their number.

    Raises:
        InputError: if it is not a run, or another process is writing it.
    """
    folder = Path(folder)
    try:
        manifest = parse_json(folder / MANIFEST)
    except (OSError, ValueError) as error:
        raise InputError(f"a run folder is required, but '{folder}' has no readable {MANIFEST}") from error
    if not isinstance(manifest, dict):
        raise InputError(f"a run folder is required, but '{folder / MANIFEST}' is not an object")
    check_manifest(manifest, folder / MANIFEST, "delete the run and search again")
    lock = Lock(folder / "lock")
    try:
        for part in folder.glob("*/part-*.parquet"):
            # Its name states its digest.
            part.rename(part.with_stem(f"{part.stem.rpartition('-')[0]}-{digest(part)}"))
        index_all(folder)
    except OSError as error:
        raise InputError(f"cannot write to '{folder}' ({error.strerror}); make it writable") from error
    finally:
        lock.release()
    index = Index.read(folder)
    assert index is not None
    return len(index.files)


def recompute(
    folder: RunPath,
    count: int,
    found: RunCheck,
    *,
    model: LanguageModel | str | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    watch: Watch = silent,
) -> None:
    """Computes a random sample of a run's outcomes again, alone and by plain generation, and adds what differs.

    Args:
        folder: the run folder.
        count: number of outcomes.
        found: to which problems and notes are added.
        model, device, trust_remote_code: see `oracle.pipeline.reload.model_of`.
        watch: reports progress.

    Raises:
        InputError: if the model is not the run's, or the run cannot be read.
    """
    run = Run.open(folder)
    experiment = analysis.load(folder)
    loaded = model_of(run, model, device=device, trust_remote_code=trust_remote_code)
    engine = Engine(loaded, SearchConfig.from_dict(run.manifest["config"]))
    rows = experiment.evaluations
    places = np.random.default_rng().permutation(len(rows))[:count]
    sample = rows.iloc[np.sort(places)]
    with watch("Recomputing", len(sample)) as advance:
        verification = rerun(engine, experiment, sample, advance)
    sequences = {row["sequence"]: sequence_of(row) for row in experiment.sequences.to_dict("records")}
    outputs = rows[rows["number"] == 0].set_index("sequence")["tokens"]
    scored, unscored = _scored_again(engine.config)
    equal = 0
    for row in sample.loc[verification.index[verification["agrees"]]].to_dict("records"):
        wrong = list(_wrong_scores(engine, row, sequences[row["sequence"]], outputs[row["sequence"]].tolist(), scored))
        found.problems += wrong
        equal += not wrong
    if unscored:
        found.notes.append(
            f"outputs and other metrics are computed again, but not {', '.join(unscored)}: they need the model's "
            "likelihoods, or code that is not trusted here (--trust-code)"
        )
    for entry in explain(engine, experiment, verification):
        line = f"'{entry['sequence']}' number {entry['number']}: another output by plain generation; {entry['remedy']}"
        near = entry.get("lead") is not None and entry["lead"] <= MAX_ROUNDING * engine.tie
        (found.notes if near else found.problems).append(line)
    found.recomputed, found.equal = len(verification), equal


def _scored_again(config: SearchConfig) -> tuple[list[str], list[str]]:
    """The metrics on request that follow from texts, and those that are not computed again."""
    scored, unscored = list[str](), list[str]()
    for metric in map(get_metric, config.asked_metrics):
        known = metric.kind in ("text", "function")
        if metric.foreign:
            try:
                load_function(metric.name)
            except InputError:
                known = False
        (scored if known else unscored).append(metric.name)
    return scored, unscored


def _wrong_scores(
    engine: Engine, row: dict[Any, Any], sequence: Sequence, full: list[int], scored: list[str]
) -> Iterator[str]:
    """Stored text and qualities that do not follow from the tokens, and for agreement from the full model's."""
    where = f"'{row['sequence']}' number {row['number']}"
    text = engine.text(row["tokens"].tolist())
    if text != row["text"]:
        yield f"{where}: the stored text is not that of the stored tokens"
        return
    always = [name for name, metric in METRICS.items() if metric.kind == "text"]
    for name in dict.fromkeys(["agreement", *always, *scored]):
        if name not in row or np.isnan(row[name]):
            continue
        if name == "agreement":
            value = agreement(row["tokens"].tolist(), full)
        else:
            value = text_quality(name, text, sequence, engine.config)
        if not np.isclose(value, row[name], rtol=CLOSE, atol=CLOSE):
            yield f"{where}: {name}: found {row[name]:.6g}, expected {value:.6g}"


def _check_files(index: Index, found: RunCheck) -> None:
    missing = index.missing()
    found.problems += [f"'{index.folder / name}' is missing" for name in missing]
    writers: Counter[str] = Counter()
    for name, entries in index.files.items():
        path = index.folder / name
        if path.is_symlink():
            found.problems.append(f"'{path}' is a link; replace it by the file")
        elif path.is_file() and (reason := index.difference(name)):
            found.problems.append(f"'{path}' is damaged ({reason})")
        found.bytes += entries[-1].size
        writers[json.dumps(dict(entries[-1].writer), sort_keys=True)] += 1
    found.files = len(index.files)
    found.writers = [{**json.loads(writer), "files": count} for writer, count in writers.most_common()]
    for path in sorted(index.folder.rglob("*")):
        name = path.relative_to(index.folder).as_posix()
        if name in index.files or name in UNLISTED or (path.is_dir() and not path.is_symlink()):
            continue
        if path.suffix in (".parquet", ".json") and not path.name.endswith(".damaged"):
            found.problems.append(f"'{path}' is not listed in {INDEX}")
        else:
            found.notes.append(f"'{path}' is not one of the run's files")


def _inconsistencies(run: Run) -> Iterator[str]:
    """Results that do not follow from the evaluations, and sequences that are not those of the manifest."""
    if run.has("sequences"):
        yield from _wrong_sequences(run)
    ended = run.complete
    run.evaluations(whole=ended)
    wrong = sum(_wrong_costs(part) for part in run.parts(EVALUATIONS, EVALUATION))
    if wrong:
        yield f"evaluations: cost differs from the length of the allocation in {counted(wrong, 'row')}"
    if not ended:
        return
    run.summary(whole=True)
    experiment = analysis.load(run.folder)
    yield from _wrong_budgets(run.table("minimal_budgets"), analysis.budgets(experiment))
    known = experiment.evaluations.set_index(["sequence", "number"])
    for name in ("assignment", "verification"):
        table = run.table(name)
        rows = known.reindex(pd.MultiIndex.from_frame(table[["sequence", "number"]]))
        same = [_listed(a) == _listed(b) for a, b in zip(rows["allocation"], table["allocation"], strict=True)]
        if not all(same):
            yield f"{name}.parquet: no such evaluation of {counted(same.count(False), 'row')}"


def _wrong_costs(part: pa.Table) -> int:
    """Number of rows whose stored cost is not the number of units of their allocation."""
    lengths = pc.list_value_length(part.column("allocation"))
    return int(pc.sum(pc.not_equal(lengths, part.column("cost"))).as_py() or 0)


def _wrong_sequences(run: Run) -> Iterator[str]:
    sequences, data = run.sequences(), run.manifest.get("data", {})
    if "sequences" in data and data["sequences"] != len(sequences):
        yield f"manifest.json: data.sequences: found {data['sequences']}, expected {len(sequences)}, as in the table"
    read = [sequence_of(row) for row in sequences.to_dict("records")]
    if "hash" in data:
        found = data_hash(read)
        if found != data["hash"]:
            yield f"manifest.json: data.hash: found {data['hash']}, expected {found}, as of the table of sequences"
    if (hash_of_prompts := run.manifest.get("prompts", {}).get("hash")) is not None:
        found = prompts_hash(read)
        if found != hash_of_prompts:
            yield f"manifest.json: prompts.hash: found {hash_of_prompts}, expected {found}, as of the sequences"


def _wrong_budgets(stored: pd.DataFrame, computed: pd.DataFrame) -> Iterator[str]:
    if stored["sequence"].tolist() != computed["sequence"].tolist():
        yield "minimal_budgets.parquet: other sequences than in the evaluations"
        return
    for name in COMPARED:
        if name in stored.columns:
            mine, theirs = stored[name].to_numpy(float), computed[name].to_numpy(float)
            wrong = ~np.isclose(mine, theirs, rtol=CLOSE, atol=CLOSE, equal_nan=True)
            if wrong.any():
                place = int(wrong.argmax())
                yield (
                    f"minimal_budgets.parquet: {name} of '{stored['sequence'][place]}': found {mine[place]:g}, "
                    f"expected {theirs[place]:g}; {int(wrong.sum())} rows differ"
                )


def _listed(allocation: Any) -> list[int] | None:
    return allocation.tolist() if hasattr(allocation, "tolist") else None
