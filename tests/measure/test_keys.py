"""Which measurements are still valid: those of the same run, sizes and machine, and of at least as many sequences."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from oracle.errors import InputError
from oracle.measure import Sizes, due, machine_of, measure_run
from oracle.models import LanguageModel
from oracle.store import Run
from oracle.store.index import index_all

ALL = ["similarity", "features", "throughput"]


@pytest.fixture
def measured(run: Run, tiny_model: LanguageModel, small: Sizes) -> Run:
    measure_run(run.folder, model=tiny_model, sizes=small)
    return run


def edited(run: Run, entry: str, name: str) -> Run:
    path = run.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    assert name in manifest[entry]
    manifest[entry][name] = {"tolerance": 0.5, "max_new_tokens": 9}.get(name, "sequence" if name == "scope" else "x")
    path.write_text(json.dumps(manifest))
    index_all(run.folder)
    return Run.open(run.folder)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("model", "fingerprint"),
        ("data", "hash"),
        ("prompts", "hash"),
        ("config", "tolerance"),
        ("config", "scope"),
        ("config", "max_new_tokens"),
        ("config", "system"),
    ],
)
def test_tables_of_another_run_are_due(measured: Run, small: Sizes, entry: str, name: str) -> None:
    assert due(measured, sizes=small) == []
    assert due(edited(measured, entry, name), sizes=small) == ALL


def test_a_table_of_more_sequences_is_as_good_and_is_not_replaced_by_one_of_fewer(
    measured: Run, tiny_model: LanguageModel, small: Sizes
) -> None:
    assert due(measured, sizes=replace(small, sequences=2)) == []
    assert due(measured, sizes=replace(small, sequences=500)) == [], "the run has six"
    path = measured.folder / "measures" / "similarity.parquet"
    whole = path.read_bytes()
    fewer = replace(small, sequences=2, budgets=2)
    with pytest.raises(
        InputError, match=r"holds 6 sequences and would be replaced by 2 .* give --sequences 6, or --again"
    ):
        measure_run(measured.folder, model=tiny_model, sizes=fewer, only=["similarity"])
    assert path.read_bytes() == whole
    measure_run(measured.folder, model=tiny_model, sizes=fewer, only=["similarity"], again=True)
    assert due(measured, sizes=fewer, only=["similarity"]) == []
    assert due(measured, sizes=replace(small, budgets=2), only=["similarity"]) == ["similarity"], "six now"


def test_times_are_those_of_one_machine(measured: Run, small: Sizes) -> None:
    here = machine_of(measured)
    assert due(measured, sizes=small, machine=here) == []
    for change in ({"processor": "another"}, {"threads": here.threads + 1}, {"device": "cuda:0"}):
        assert due(measured, sizes=small, machine=replace(here, **change)) == ["throughput"]


def test_tables_of_earlier_versions_are_due_and_replaced(
    measured: Run, small: Sizes, tiny_model: LanguageModel
) -> None:
    import pyarrow.parquet as pq

    from oracle.store.files import write_table

    path: Path = measured.folder / "measures" / "similarity.parquet"
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"provenance"])
    del about["measured"]
    write_table(path, table.replace_schema_metadata({b"provenance": json.dumps({**about, "key": "old"}).encode()}))
    assert due(measured, sizes=small) == ["similarity"]
    with pytest.raises(InputError, match="holds 6 sequences"):
        due(measured, sizes=replace(small, sequences=3))
