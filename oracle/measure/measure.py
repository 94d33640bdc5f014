"""Measures a stored run: loads its model once, writes tables that nobody needs the model for again."""

from collections.abc import Sequence as Seq
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from oracle.config import SearchConfig
from oracle.costs import Costs
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.measure.features import measure_features
from oracle.measure.similarity import budget_grid, measure_similarity
from oracle.measure.sizes import Sizes
from oracle.measure.tables import TABLES, key_of, path_of, still_valid, write
from oracle.measure.throughput import measure_throughput, steps
from oracle.models import LanguageModel
from oracle.pipeline.reload import Subject, model_of, spread, subjects_of
from oracle.store import Run
from oracle.store.hidden import HiddenStore
from oracle.store.lock import Lock
from oracle.utils.progress import Watch, note, silent
from oracle.utils.text import nearest_hint

__all__ = ["due", "measure_run"]

MATTERS: dict[str, tuple[str, ...]] = {
    "similarity": ("budgets", "sequences"),
    "features": (),
    "throughput": ("sequences", "new_tokens", "rounds", "batches", "speedups"),
}
"""The sizes that each table depends on."""


def due(run: Run, *, only: Seq[str] = (), again: bool = False, sizes: Sizes | None = None) -> list[str]:
    """The tables that are to be measured: of those asked for the ones that are not there, or of something else.

    Args:
        run: the run.
        only: the tables asked for; all by default.
        again: measure them even so.
        sizes: how much is to be measured.

    Raises:
        InputError: if there is no such table.
    """
    for name in only:
        if name not in TABLES:
            raise InputError(f"unknown table '{name}': the tables are {', '.join(TABLES)}{nearest_hint(name, TABLES)}")
    wanted = [name for name in TABLES if name in only or not only]
    subjects, sizes = subjects_of(run), sizes or Sizes()
    return [name for name in wanted if again or not still_valid(run.folder, name, _key(run, name, subjects, sizes))]


def measure_run(
    folder: Path | str,
    *,
    model: LanguageModel | None = None,
    only: Seq[str] = (),
    again: bool = False,
    sizes: Sizes | None = None,
    store: HiddenStore | None = None,
    watch: Watch = silent,
) -> dict[str, Path]:
    """Measures what a run lacks and writes it into `RUN/measures/`.

    Args:
        folder: the run.
        model: the run's model, if it is loaded already; otherwise it is loaded by the name in the run, if it is needed.
        only: tables of `TABLES` to measure; all by default.
        again: measure also what is there and still valid.
        sizes: how much is measured.
        store: keeps hidden states; those of the search are found there.
        watch: shows progress.

    Returns:
        The path of every table asked for.

    Raises:
        InputError: if the run has no evaluations, the model is not the run's, or somebody is writing the run.
    """
    run, sizes = Run.open(folder), sizes or Sizes()
    missing = due(run, only=only, again=again, sizes=sizes)
    if missing:
        lock = Lock(run.folder / "lock")
        try:
            model = model_of(run, model)
            note(watch, model.headline())
            engine = Engine(model, SearchConfig.from_dict(run.manifest["config"]), store)
            subjects = subjects_of(run)
            for name in missing:
                table = _measured(name, engine, subjects, sizes, run, watch)
                write(run, name, table, _about(name, engine, _key(run, name, subjects, sizes), sizes))
        finally:
            lock.release()
    return {name: path_of(run.folder, name) for name in TABLES if name in only or not only}


def _measured(name: str, engine: Engine, subjects: list[Subject], sizes: Sizes, run: Run, watch: Watch) -> pa.Table:
    if name == "features":
        with watch("Reading features", len(subjects)) as advance:
            return measure_features(engine, subjects, advance)
    some = spread(subjects, sizes.sequences)
    if name == "similarity":
        with watch("Comparing states", len(some)) as advance:
            return measure_similarity(engine, some, budget_grid(engine.units.count, sizes.budgets), advance)
    costs = Costs.from_dict(run.costs) if run.costs else None
    with watch("Timing", steps(sizes)) as advance:
        return measure_throughput(engine, some, sizes, costs, advance)


def _key(run: Run, name: str, subjects: Seq[Subject], sizes: Sizes) -> str:
    ids = [subject.sequence.id for subject in subjects]
    return key_of(run, ids, {size: getattr(sizes, size) for size in MATTERS[name]})


def _about(name: str, engine: Engine, key: str, sizes: Sizes) -> dict[str, object]:
    """What the metadata of a table says beside what the run says."""
    machine = engine.model.machine
    about = {"table": name, "key": key, "sizes": asdict(sizes)}
    return {**about, "device": machine.place, "machine": machine.to_dict()}
