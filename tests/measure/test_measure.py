"""When a run is measured, what is kept, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_llama, tiny_tokenizer

from analysis import measurements as measures
from oracle.errors import InputError
from oracle.measure import Sizes, due, measure_run
from oracle.models import LanguageModel
from oracle.store import Run
from oracle.store.hidden import HiddenStore
from oracle.store.index import index_all
from oracle.store.lock import Lock

pytestmark = pytest.mark.slow

Command = Callable[..., tuple[int, str, str]]


def test_what_is_there_and_valid_is_not_measured_again(run: Run, tiny_model: LanguageModel, small: Sizes) -> None:
    assert due(run, sizes=small) == ["similarity", "features", "throughput"]
    paths = measure_run(run.folder, model=tiny_model, sizes=small)
    before = {name: path.read_bytes() for name, path in paths.items()}
    assert due(run, sizes=small) == []
    # No model is given, and none could be loaded by this name: none is needed.
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert measure_run(run.folder, sizes=small) == paths
    assert {name: path.read_bytes() for name, path in paths.items()} == before
    assert due(run, sizes=small, again=True, only=["features"]) == ["features"]
    assert due(run, sizes=replace(small, budgets=2)) == ["similarity"]
    assert due(run, sizes=replace(small, rounds=2)) == ["throughput"]
    manifest["config"]["max_new_tokens"] = 9
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    index_all(run.folder)
    assert due(Run.open(run.folder), sizes=small) == ["similarity", "features", "throughput"]


def test_damaged_tables_are_named_and_measured_again(run: Run, tiny_model: LanguageModel, small: Sizes) -> None:
    path = measure_run(run.folder, model=tiny_model, sizes=small, only=["features"])["features"]
    whole = measures.features(run.folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"features\.parquet' is damaged; measure it again"):
        measures.features(run.folder)
    measure_run(run.folder, model=tiny_model, sizes=small, only=["features"])
    assert measures.features(run.folder).drop(columns="prompt_state").equals(whole.drop(columns="prompt_state"))


def test_tables_say_where_they_came_from(run: Run, tiny_model: LanguageModel, small: Sizes) -> None:
    assert measures.similarity(run.folder) is None
    measure_run(run.folder, model=tiny_model, sizes=small, only=["similarity"])
    found = measures.similarity(run.folder).attrs["provenance"]
    assert found["model"] == run.manifest["model"]
    assert found["config"] == run.manifest["config"]
    assert found["sizes"]["budgets"] == 3
    assert found["versions"].keys() >= {"python", "torch"}
    assert (found["device"], found["machine"]) == (tiny_model.machine.place, tiny_model.machine.to_dict())
    assert measures.throughput(run.folder) is None


def test_states_of_the_store_are_used_and_change_nothing(
    run: Run, tiny_model: LanguageModel, small: Sizes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = ["similarity", "features"]
    measure_run(run.folder, model=tiny_model, sizes=small, only=tables, store=HiddenStore(tmp_path / "hidden"))
    first = {name: (run.folder / "measures" / f"{name}.parquet").read_bytes() for name in tables}
    monkeypatch.setattr("oracle.engine.hidden_states.Hidden._run", lambda *_: pytest.fail("computed again"))
    again = HiddenStore(tmp_path / "hidden")
    measure_run(run.folder, model=tiny_model, sizes=small, only=tables, store=again, again=True)
    assert {name: (run.folder / "measures" / f"{name}.parquet").read_bytes() for name in tables} == first


def test_another_model_is_refused(run: Run, small: Sizes) -> None:
    other = LanguageModel(name="other", network=tiny_llama(seed=1), tokenizer=tiny_tokenizer())
    with pytest.raises(InputError, match="restore the run's model"):
        measure_run(run.folder, model=other, sizes=small)
    assert not (run.folder / "measures").exists()


def test_a_run_that_is_being_written_is_left_alone(run: Run, tiny_model: LanguageModel, small: Sizes) -> None:
    lock = Lock(run.folder / "lock")
    with pytest.raises(InputError, match="is being written by process"):
        measure_run(run.folder, model=tiny_model, sizes=small, only=["features"])
    lock.release()
    measure_run(run.folder, model=tiny_model, sizes=small, only=["features"])


@pytest.mark.parametrize("sizes", [{"budgets": 1}, {"rounds": 0}, {"batches": ()}, {"speedups": (0,)}])
def test_sizes_that_measure_nothing_are_refused(sizes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(sizes))} needs"):
        Sizes(**sizes)


def test_the_command_measures_once(run: Run, command: Command) -> None:
    small = ["--quiet", "--no-cache", "--budgets", 2, "--rounds", 1, "--batches", 1, "--speedups", 2]
    code, out, err = command("measure", run.folder, *small, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["measured"] == [*answer["tables"]] == ["similarity", "features", "throughput"]
    assert all(Path(path).is_file() for path in answer["tables"].values())
    code, out, _ = command("measure", run.folder, *small)
    assert (code, out.count("still valid")) == (0, 3)
    code, _, err = command("measure", run.folder, "--only", "simlarity")
    assert code == 2
    assert "nearest: 'similarity'" in err


def test_sublayers_and_costs_are_measured_too(
    search: Callable[..., Run], tiny_model: LanguageModel, small: Sizes
) -> None:
    run = search(unit="sublayer", cost="flops", evaluations=3, limit=2)
    measure_run(run.folder, model=tiny_model, sizes=small)
    assert measures.similarity(run.folder)["budget"].unique().tolist() == [0, 5, 10]
    table = measures.throughput(run.folder)
    # The vocabulary head is paid for by every allocation.
    assert table["cost"].iloc[0] == pytest.approx(sum(run.costs["units"]) + run.costs["overhead"])
    assert 0.5 < table["fraction"].iloc[-1] < 0.99
    shutil.rmtree(run.folder)
