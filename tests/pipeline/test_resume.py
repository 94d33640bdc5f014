"""Runs that are interrupted, damaged or continued."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from oracle.engine import Engine
from oracle.errors import InputError, Interrupted
from oracle.executors import Workers
from oracle.pipeline.run import resume_search
from oracle.pipeline.scheduler import waves
from oracle.sequences import Columns
from oracle.store import Run
from oracle.store.index import index_all

Search = Callable[..., Run]

TIMES = {"hidden_states", "seconds", "search_seconds", "peak_memory_mib", "memory_above_model_mib"}


@pytest.fixture(autouse=True, scope="module")
def small_steps() -> Iterator[None]:
    """Small rounds and parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oracle.executors.search_loop.ASK", 5)
        patch.setattr("oracle.pipeline.scheduler.ROWS_PER_PART", 12)
        yield


def stops_after(rounds: int) -> Callable[[], bool]:
    """Returns true at the given call."""
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) == rounds

    return stop


def rows(run: Run) -> pd.DataFrame:
    """Evaluations but for the margins, whose last digits are rounding."""
    return run.evaluations(whole=False).drop(columns="margin").map(repr)


def numbers(run: Run) -> dict[str, object]:
    return {name: value for name, value in run.summary().items() if name not in TIMES}


@pytest.fixture(scope="module", params=["spread", "auto", "local"])
def whole(request: pytest.FixtureRequest, search: Search) -> Run:
    """A search that nothing interrupted."""
    return search(strategy=request.param)


def again(run: Run, search: Search, **settings: object) -> Run:
    """A search of the same settings."""
    return search(strategy=run.manifest["config"]["strategy"], **settings)


@pytest.mark.parametrize("rounds", [1, 5, 14])
def test_a_resumed_search_ends_as_one_that_was_never_interrupted(
    whole: Run, search: Search, tmp_path: Path, rounds: int
) -> None:
    with pytest.raises(Interrupted, match=str(tmp_path / "run")):
        again(whole, search, out=tmp_path / "run", stop=stops_after(rounds))
    stopped = Run.open(tmp_path / "run")
    assert not stopped.complete
    kept = len(stopped.evaluations(whole=False))
    run = resume_search(tmp_path / "run")
    assert 0 < kept <= len(run.evaluations())
    assert rows(run).equals(rows(whole))
    assert run.certificates().sort_values("sequence").equals(whole.certificates().sort_values("sequence"))
    assert numbers(run) == numbers(whole)


def test_nothing_that_was_written_is_computed_again(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        search(out=tmp_path / "run", stop=stops_after(9))
    stopped = Run.open(tmp_path / "run").evaluations(whole=False)
    computed: list[tuple[int, ...]] = []
    generate = Engine.generate

    def counting(self: Engine, requests: list, *args: object) -> list:
        computed.extend(allocation for _, allocation in requests)
        return generate(self, requests, *args)

    monkeypatch.setattr(Engine, "generate", counting)
    run = resume_search(tmp_path / "run", workers=Workers(count=1))  # what forked ones compute is not counted here
    assert len(computed) == len(run.evaluations()) - len(stopped)


def test_a_run_that_is_complete_is_left_as_it_is(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    run = search(limit=2)
    before = {path: path.read_bytes() for path in run.folder.rglob("*.parquet")}
    monkeypatch.setattr("oracle.pipeline.setup.load_model", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    assert resume_search(run.folder).summary() == run.summary()
    assert {path: path.read_bytes() for path in run.folder.rglob("*.parquet")} == before


@pytest.mark.parametrize("name", ["evaluations", "certificates"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-3], lambda data: data[:9] + b"?" + data[10:]])
def test_a_damaged_part_is_computed_again(search: Search, name: str, damage: Callable[[bytes], bytes]) -> None:
    run = search(limit=3)
    expected, summary = rows(run), numbers(run)
    part = max((run.folder / name).iterdir())
    part.write_bytes(damage(part.read_bytes()))
    with pytest.raises(InputError, match=r"is damaged.*continue with 'oracle search --resume"):
        run.evaluations()
    mended = resume_search(run.folder)
    assert rows(mended).equals(expected)
    assert numbers(mended) == summary


def test_another_setting_model_or_data_is_refused_by_name(search: Search, tmp_path: Path) -> None:
    data = tmp_path / "sequences.jsonl"
    lines = [json.dumps({"id": str(i), "prompt": f"Question {i}?", "references": [f"{i}"]}) + "\n" for i in range(3)]
    data.write_text("".join(lines))
    with pytest.raises(Interrupted):
        search(out=tmp_path / "run", data=str(data), stop=stops_after(2))
    for setting, value in {"criterion": "chrf", "scope": "sequence", "evaluations": 30, "seed": 9}.items():
        with pytest.raises(InputError, match=rf"cannot be resumed with {setting} {value} rather than"):
            resume_search(tmp_path / "run", settings={setting: value})
    other = {"columns": Columns(prompt="question", references=("a", "b"))}
    told = "columns prompt question rather than prompt, columns references a, b rather than none"
    with pytest.raises(InputError, match=f"cannot be resumed with {told};"):
        resume_search(tmp_path / "run", settings=other)
    with pytest.raises(
        InputError, match=r"cannot be resumed with model elsewhere .*new run, from its outcomes.*--from"
    ):
        resume_search(tmp_path / "run", settings={"model": "elsewhere"})
    data.write_text("".join(reversed(lines)))
    with pytest.raises(InputError, match=r"the run's data .* is required"):
        resume_search(tmp_path / "run")
    data.write_text("".join(lines))
    assert resume_search(tmp_path / "run", settings={"batch_rows": 7, "memory": 600}).complete


def test_another_model_is_refused(search: Search, tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(Interrupted):
        search(out=tmp_path / "run", stop=stops_after(2))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    manifest["model"]["fingerprint"] = "0" * 64
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    index_all(tmp_path / "run")
    with pytest.raises(InputError, match=r"the run's model .* is required"):
        resume_search(tmp_path / "run")


def test_a_search_goes_on_from_another_run(search: Search, tmp_path: Path) -> None:
    first = search(strategy="spread", evaluations=10)
    with pytest.raises(Interrupted):
        search(strategy="random", evaluations=8, prior=first.folder, out=tmp_path / "run", stop=stops_after(2))
    second = resume_search(tmp_path / "run")
    assert rows(second).equals(rows(search(strategy="random", evaluations=8, prior=first.folder)))
    old, new = first.evaluations(), second.evaluations()
    for name, mine in new.groupby("sequence"):
        theirs = old[old["sequence"] == name]
        assert mine["number"].tolist() == list(range(len(mine)))
        assert rows_of(mine[: len(theirs)]) == rows_of(theirs)
        assert not set(rows_of(mine[len(theirs) :])) & set(rows_of(theirs))
        assert len(mine) - len(theirs) <= 8
    assert len(new) > len(old)
    better = second.table("minimal_budgets")["upper"] <= first.table("minimal_budgets")["upper"]
    assert better.all()
    assert second.manifest["continues"]["run"] == str(first.folder)


def rows_of(table: pd.DataFrame) -> list[tuple[int, ...]]:
    return [tuple(allocation.tolist()) for allocation in table["allocation"]]


def test_a_run_of_another_kind_is_no_beginning(search: Search, tmp_path: Path) -> None:
    first = search(limit=2)
    with pytest.raises(InputError, match="has the max new tokens 6: a search that starts from it needs that, not 5"):
        search(limit=2, prior=first.folder, max_new_tokens=5, out=tmp_path / "run")
    with pytest.raises(InputError, match="has no values of log_likelihood"):
        search(limit=2, prior=first.folder, criterion="log_likelihood", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_outputs_dropped_under_one_criterion_count_under_it_only(search: Search) -> None:
    settings = {"limit": 2, "criterion": "agreement", "prove": 0}
    first = search(**settings, prune=True, evaluations=24)
    before = first.evaluations()
    assert before["dropped"].any()
    again = {**settings, "evaluations": 2, "strategy": "random", "prior": first.folder}
    same = search(**again, prune=True).table("prior")
    assert same["evaluations"].sum() == len(before)
    for changes in ({"criterion": "rougeL"}, {"tolerance": 0.5}):
        other = search(**{**again, **changes})
        assert other.table("prior")["evaluations"].sum() == (~before["dropped"]).sum()
        assert not other.evaluations()["dropped"].any()


def test_sequences_that_start_anew_are_counted(search: Search, tmp_path: Path) -> None:
    said: list[str] = []

    @contextmanager
    def watch(description: str, total: int) -> Iterator[Callable[[int, str], None]]:
        said.append(description)
        yield lambda count, remark: None

    first = search(limit=2, evaluations=3)
    search(limit=3, evaluations=2, strategy="random", prior=first.folder, watch=watch)
    assert f"'{first.folder}' has outcomes of 2 of the 3 sequences; others start anew" in said


def test_waves_double_and_hold_everything() -> None:
    sizes = [len(wave) for wave in waves(range(70))]
    assert sizes == [8, 8, 16, 32, 6]
    assert [one for wave in waves(range(21)) for one in wave] == list(range(21))


@pytest.mark.slow
def test_ctrl_c_stops_after_the_batch_and_says_how_to_go_on(
    tiny_folder: Path, sequences_file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "oracle", "search", "--model", str(tiny_folder), "--data", str(sequences_file)]
    settings = ["--evaluations", "1024", "--strategy", "random", "--max-new-tokens", "128", "--unit", "sublayer"]
    search = subprocess.Popen(
        [*command, *settings, "--out", "run", "--quiet"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    while not (tmp_path / "run" / "log.jsonl").exists() and time.monotonic() < began + 120:
        time.sleep(0.1)
    # Long enough for outcomes on a machine that takes so long to begin.
    time.sleep(max(1, (time.monotonic() - began) / 3))
    search.send_signal(signal.SIGINT)
    _, errors = search.communicate(timeout=120)
    assert search.returncode == 130
    assert "continue with: oracle search --resume run" in errors
    assert "Traceback" not in errors
    assert len(Run.open(tmp_path / "run").evaluations(whole=False)) > 0
    events = [json.loads(line)["event"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert (events[0], events[-1]) == ("began", "stopped")


def test_a_file_in_place_of_a_folder_of_parts_is_named(search: Search, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        search(out=tmp_path / "run", stop=stops_after(2))
    shutil.rmtree(tmp_path / "run" / "evaluations")
    (tmp_path / "run" / "evaluations").write_text("")
    with pytest.raises(InputError, match="evaluations' must be a folder, but is a file"):
        resume_search(tmp_path / "run")
