"""Local workers: the same bits as one process, whichever of them dies."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from oracle.config import SearchConfig
from oracle.errors import InputError, Interrupted
from oracle.executors import Workers
from oracle.executors.searcher import Searcher
from oracle.pipeline.run import resume_search, run_search
from oracle.store import Run
from oracle.utils.cores import forks

pytestmark = pytest.mark.skipif(not forks(), reason="processes are forked on Linux only")

Search = Callable[..., Run]


@pytest.fixture
def searched(search: Search, tmp_path: Path) -> Callable[..., Run]:
    """Searches six sequences on some workers."""
    config = search(limit=2, evaluations=4).manifest["config"]

    def run(workers: int, name: str = "", **changes: object) -> Run:
        how = {key: changes.pop(key) for key in ("stop", "watch") if key in changes}
        settings = {**config, "limit": None, "strategy": "auto", "evaluations": 20, **changes}
        folder = tmp_path / (name or f"run{workers}")
        return run_search(SearchConfig.from_dict(settings), folder, workers=Workers(count=workers), **how)  # type: ignore[arg-type]

    return run


def stored(run: Run) -> list[list[dict[str, str]]]:
    """Everything computed that a run stores, to the last bit."""
    evaluations = run.evaluations().map(repr).to_dict("records")
    certificates = run.certificates().map(repr).to_dict("records")
    tables = [
        run.table(name).map(repr).to_dict("records") for name in ("minimal_budgets", "assignment", "verification")
    ]
    return [evaluations, certificates, *tables]


def files(run: Run) -> dict[str, bytes]:
    """The parts and tables as they are on disk; a search as short as these writes one part."""
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in run.folder.rglob("*.parquet")}


NOT_RESULTS = {"search_seconds", "seconds", "peak_memory_mib", "memory_above_model_mib", "hidden_states"}


def results(run: Run) -> dict[str, object]:
    return {name: value for name, value in run.summary().items() if name not in NOT_RESULTS}


def test_any_number_of_workers_stores_the_same_bits(searched: Callable[..., Run]) -> None:
    # Three parts, as on a machine of three cores.
    runs = [searched(3, "three"), searched(3, "again")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oracle.utils.cores._allowed", lambda: 3)
        patch.setattr("oracle.utils.cores._processor_limits", lambda: iter(()))
        runs += [searched(1), searched(2)]
    for run in runs[1:]:
        assert stored(run) == stored(runs[0])
        assert files(run) == files(runs[0])
        assert results(run) == results(runs[0])
    assert [run.manifest["machine"]["workers"] for run in runs] == [3, 3, 1, 2]
    assert [run.manifest["machine"]["threads"] for run in runs] == [1, 1, 1, 1]


class Bullets:
    """Kills the worker that searches s3, after its first event, as often as there are bullets."""

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir()
        for number in range(count):
            (folder / str(number)).touch()
        self.parent, self.folder, self.search = os.getpid(), folder, Searcher.search

    def __call__(self, searcher: Searcher, items: list, memory: object) -> Iterator[object]:
        for event in self.search(searcher, items, memory):  # type: ignore[arg-type]
            yield event
            bullets = sorted(self.folder.iterdir())
            if getattr(event, "sequence", None) == "s3" and bullets:
                assert os.getpid() != self.parent
                bullets[0].unlink()
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def killed(searched: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Run]:
    def run(deaths: int) -> Run:
        bullets = Bullets(tmp_path / "bullets", deaths)
        monkeypatch.setattr(Searcher, "search", lambda *arguments: bullets(*arguments))
        return searched(2, "killed")

    return run


def without_margins(run: Run) -> list[dict[str, str]]:
    """A replacement finds known outcomes and evaluates the rest in other batches."""
    return run.evaluations().drop(columns="margin").map(repr).to_dict("records")


def test_a_dead_worker_is_replaced(searched: Callable[..., Run], killed: Callable[[int], Run]) -> None:
    whole, run = searched(2), killed(2)
    assert without_margins(run) == without_margins(whole)
    assert run.summary()["set_aside"] == {}
    deaths = [line for line in (run.folder / "log.jsonl").read_text().splitlines() if "a worker died" in line]
    assert len(deaths) == 2 and all("s3" in line for line in deaths)


def test_a_sequence_that_kills_its_workers_is_set_aside(
    searched: Callable[..., Run], killed: Callable[[int], Run]
) -> None:
    whole, run = searched(2), killed(99)
    assert run.summary()["set_aside"] == {"s3": "3 workers died on it"}
    found, expected = ([row for row in without_margins(one) if row["sequence"] != "'s3'"] for one in (run, whole))
    assert found == expected


def test_an_interrupted_search_leaves_no_process_and_no_lock(searched: Callable[..., Run], tmp_path: Path) -> None:
    # Other tests' libraries may keep processes of their own, such as matplotlib a TeX.
    before, seen = set(psutil.Process().children(recursive=True)), list[psutil.Process]()

    def stop() -> bool:
        seen.extend(set(psutil.Process().children(recursive=True)) - before)
        return True

    with pytest.raises(Interrupted):
        searched(2, "stopped", stop=stop)
    assert len(seen) >= 2
    assert psutil.wait_procs(seen, timeout=10)[1] == []
    resumed = resume_search(tmp_path / "stopped", workers=Workers(count=2))
    assert without_margins(resumed) == without_margins(searched(2))


def test_ctrl_c_ends_the_workers(searched: Callable[..., Run]) -> None:
    # Other tests' libraries may keep processes of their own, such as matplotlib a TeX.
    before, seen = set(psutil.Process().children(recursive=True)), list[psutil.Process]()

    def stop() -> bool:
        seen.extend(set(psutil.Process().children(recursive=True)) - before)
        for one in seen:
            # As a terminal does; only this process decides what it means.
            one.send_signal(signal.SIGINT)
        assert all(one.is_running() for one in seen)
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        searched(2, "stopped", stop=stop)
    assert len(seen) >= 2
    assert psutil.wait_procs(seen, timeout=10)[1] == []


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(InputError, match="--address auto needs --executor ray"):
        Workers(address="auto")
    with pytest.raises(InputError, match="--workers needs at least 1, not 0"):
        Workers(count=0)
