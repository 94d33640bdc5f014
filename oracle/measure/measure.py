"""Measures a stored run: loads its model once and writes tables that are later read without it."""

from collections.abc import Sequence as Seq
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import torch

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
from oracle.pipeline.prompts import rendered_anew
from oracle.pipeline.reload import SearchedSequence, model_of, require_same_decoding, searched_sequences, spread
from oracle.store import Run
from oracle.store.derived import DerivedTables, key_of, origin_of
from oracle.store.hidden import HiddenStore
from oracle.store.lock import Lock
from oracle.types import RunPath
from oracle.utils.machine import Machine, resolve_device, resolve_dtype
from oracle.utils.progress import Watch, automatic, note
from oracle.utils.text import nearest_hint

__all__ = ["due", "machine_of", "measure_run"]

DEPENDS_ON: dict[str, tuple[str, ...]] = {
    "similarity": ("budgets",),
    "features": (),
    "throughput": ("new_tokens", "rounds", "batches", "speedups", "policies"),
}
"""The sizes that each table depends on, besides the number of sequences: a table of more of them is as good."""


def due(
    run: Run,
    *,
    only: Seq[str] = (),
    again: bool = False,
    sizes: Sizes | None = None,
    machine: Machine | None = None,
    originals: Seq[SearchedSequence] | None = None,
) -> list[str]:
    """The tables to measure: of those asked for the ones that are missing, or of something else or fewer sequences.

    Args:
        run: the run.
        only: the tables asked for; all by default.
        again: measure them even so.
        sizes: how much is to be measured.
        originals: the run's sequences, if already read.
        machine: where throughput is measured; None for this machine with the run's settings.

    Raises:
        InputError: if there is no such table, or a table of more sequences would be replaced by one of fewer.
    """
    for name in only:
        if name not in TABLES:
            raise InputError(f"unknown table '{name}': the tables are {', '.join(TABLES)}{nearest_hint(name, TABLES)}")
    wanted = [name for name in TABLES if name in only or not only]
    originals, sizes = searched_sequences(run) if originals is None else originals, sizes or Sizes()
    machine = machine or machine_of(run)
    tables = {name: _tables(run, name, originals, sizes, machine) for name in wanted}
    return [name for name in wanted if again or _is_due(tables[name], name, sizes, len(originals))]


def machine_of(run: Run, device: str | None = None) -> Machine:
    """This machine, with the run's dtype and device or another device."""
    config = SearchConfig.from_dict(run.manifest["config"])
    place = resolve_device(config.device if device is None else device)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", torch.cuda.current_device())  # as a loaded model names it
    return Machine.of(place, resolve_dtype(config.dtype, place) or torch.get_default_dtype())


def _is_due(tables: DerivedTables, name: str, sizes: Sizes, sequences: int) -> bool:
    """Whether a table is missing, of something else, or of too few of the run's sequences.

    Raises:
        InputError: if it has more sequences of the same run than the one that would replace it.
    """
    found = tables.read(name, TABLES[name], any_key=True)
    if found is None:
        return True
    about, wanted = found[1], _measured_sequences(name, sizes, sequences)
    # Tables of earlier versions name only the most that they could have.
    has = about.get("measured") or _measured_sequences(name, Sizes(**about["sizes"]), sequences)
    if about["key"] == tables.key:
        return has < wanted
    if has > wanted and all(about.get(key) == value for key, value in tables.origin.items()):
        raise InputError(
            f"'{tables.path(name)}' holds {has} sequences and would be replaced by {wanted} with other settings; "
            f"give --sequences {has}, or --again to replace it"
        )
    return True


def _measured_sequences(name: str, sizes: Sizes, sequences: int) -> int:
    """How many of a run's sequences a table has."""
    return sequences if name == "features" else min(sizes.sequences, sequences)


def measure_run(
    folder: RunPath,
    *,
    model: LanguageModel | None = None,
    only: Seq[str] = (),
    again: bool = False,
    sizes: Sizes | None = None,
    store: HiddenStore | None = None,
    watch: Watch = automatic,
) -> dict[str, Path]:
    """Measures the missing tables of a run and writes them into `RUN/measures/`.

    Args:
        folder: the run.
        model: the run's model, if already loaded; otherwise loaded by the name in the run, if needed.
        only: tables of `TABLES` to measure; empty for all.
        again: whether to repeat valid measurements.
        sizes: sizes of the measurements.
        store: hidden states, including those of the search.
        watch: shows progress.

    Returns:
        The path of every table asked for.

    Raises:
        InputError: if the run has no evaluations, the model is not the run's, or another process is writing the run.
    """
    run, sizes = Run.open(folder), sizes or Sizes()
    originals = searched_sequences(run)
    place = None if model is None else model.machine
    missing = due(run, only=only, again=again, sizes=sizes, machine=place, originals=originals)
    if missing:
        lock = Lock(run.folder / "lock")
        try:
            model = model_of(run, model)
            note(watch, model.headline())
            if line := rendered_anew(run):
                note(watch, line)
            engine = Engine(model, SearchConfig.from_dict(run.manifest["config"]), store)
            require_same_decoding(engine, run.manifest)
            for name in missing:
                table = _measured(name, engine, originals, sizes, run, watch)
                tables = _tables(run, name, originals, sizes, model.machine)
                tables.write(name, table, _about(name, engine, sizes, len(originals)))
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


def _tables(run: Run, name: str, originals: Seq[SearchedSequence], sizes: Sizes, machine: Machine) -> DerivedTables:
    """The store of a table, whose key has all that it depends on but the number of its sequences.

    Of the machine only times depend; other numbers do in their last digits.
    """
    ids = [original.sequence.id for original in originals]
    matter = {size: getattr(sizes, size) for size in DEPENDS_ON[name]}
    place = [machine.to_dict()] if name == "throughput" else []
    origin = origin_of(run.manifest)
    return DerivedTables(run.folder / FOLDER, key=key_of(VERSION, origin, ids, matter, *place), origin=origin)


def _about(name: str, engine: Engine, sizes: Sizes, sequences: int) -> dict[str, object]:
    """What the metadata of a table says beside what the run says."""
    machine, measured = engine.model.machine, _measured_sequences(name, sizes, sequences)
    about = {"table": name, "sizes": asdict(sizes), "measured": measured}
    return {**about, "device": machine.place, "machine": machine.to_dict()}
