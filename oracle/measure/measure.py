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
from oracle.measure.tables import FOLDER, TABLES, VERSION
from oracle.measure.throughput import measure_throughput, steps
from oracle.models import LanguageModel
from oracle.pipeline.reload import SearchedSequence, model_of, searched_sequences, spread
from oracle.store import Run
from oracle.store.derived import DerivedTables, key_of, origin_of
from oracle.store.hidden import HiddenStore
from oracle.store.lock import Lock
from oracle.utils.progress import Watch, note, silent
from oracle.utils.text import nearest_hint

__all__ = ["due", "measure_run"]

MATTERS: dict[str, tuple[str, ...]] = {
    "similarity": ("budgets", "sequences"),
    "features": (),
    "throughput": ("sequences", "new_tokens", "rounds", "batches", "speedups", "policies"),
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
    originals, sizes = searched_sequences(run), sizes or Sizes()
    return [name for name in wanted if again or _tables(run, name, originals, sizes).read(name, TABLES[name]) is None]


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
            originals = searched_sequences(run)
            for name in missing:
                table = _measured(name, engine, originals, sizes, run, watch)
                _tables(run, name, originals, sizes).write(name, table, _about(name, engine, sizes))
        finally:
            lock.release()
    return {name: run.folder / FOLDER / f"{name}.parquet" for name in TABLES if name in only or not only}


def _measured(
    name: str, engine: Engine, originals: list[SearchedSequence], sizes: Sizes, run: Run, watch: Watch
) -> pa.Table:
    if name == "features":
        with watch("Reading features", len(originals)) as advance:
            return measure_features(engine, originals, advance)
    some = spread(originals, sizes.sequences)
    if name == "similarity":
        with watch("Comparing states", len(some)) as advance:
            return measure_similarity(engine, some, budget_grid(engine.units.count, sizes.budgets), advance)
    costs = Costs.from_dict(run.costs) if run.costs else None
    with watch("Timing", steps(sizes)) as advance:
        return measure_throughput(engine, some, sizes, costs, advance)


def _tables(run: Run, name: str, originals: Seq[SearchedSequence], sizes: Sizes) -> DerivedTables:
    """The store of a table, whose key has all that it depends on but the machine."""
    ids = [original.sequence.id for original in originals]
    matter = {size: getattr(sizes, size) for size in MATTERS[name]}
    key = key_of(VERSION, run.manifest["model"], run.manifest["config"], run.manifest.get("data"), ids, matter)
    return DerivedTables(run.folder / FOLDER, key=key, origin=origin_of(run.manifest))


def _about(name: str, engine: Engine, sizes: Sizes) -> dict[str, object]:
    """What the metadata of a table says beside what the run says."""
    machine = engine.model.machine
    return {"table": name, "sizes": asdict(sizes), "device": machine.place, "machine": machine.to_dict()}
