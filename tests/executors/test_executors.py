"""Workers on a Ray cluster: the same results as in this process, even if workers are killed."""

import os
import signal
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from pathlib import Path

import pytest

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.executors import Event, Item, Workers
from oracle.executors.work import split_work
from oracle.pipeline.run import run_search
from oracle.search import Memory
from oracle.store import Run

ray = pytest.importorskip("ray", reason="Ray has no wheel for this platform")

from oracle.executors.ray_cluster import Cluster, Worker, count_local_workers  # noqa: E402

Search = Callable[..., Run]


class Deadly(Worker):
    """A worker that is killed in the middle of sequence s3, as often as there are bullets."""

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | dict[str, int]]:
        """Dies after the first event of that sequence."""
        for event in super().search(items, memory):
            yield event
            bullets = sorted(Path(os.environ["LAYER_ORACLE_TEST_BULLETS"]).iterdir())
            if not isinstance(event, dict) and event.sequence == "s3" and bullets:
                bullets[0].unlink()
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("count", "workers", "sizes"),
    [
        (8, 2, [4, 4]),
        (32, 2, [8, 8, 8, 8]),
        (32, 3, [5, 5, 6, 5, 5, 6]),
        (20, 1, [6, 7, 7]),
        (2, 3, [1, 1]),
        (0, 3, []),
    ],
)
def test_work_is_split_into_large_equal_parts(count: int, workers: int, sizes: list[int]) -> None:
    found = list(split_work(range(count), workers))
    assert [len(share) for share in found] == sizes
    assert [item for share in found for item in share] == list(range(count))


def test_one_worker_per_core_or_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    wanted = [Workers(kind="ray"), Workers(kind="ray", threads=4), Workers(kind="ray", count=2)]
    assert [count_local_workers(workers, "cpu") for workers in wanted] == [16, 4, 2]
    assert [count_local_workers(workers, "cuda") for workers in wanted] == [2, 2, 2]
    # A GPU with a number is shared.
    assert [count_local_workers(workers, "cuda:1") for workers in wanted] == [16, 4, 2]
    with pytest.raises(InputError, match="--workers needs at most 2, the number of GPUs, not 3"):
        count_local_workers(Workers(kind="ray", count=3), "cuda")
    # Another machine may have more.
    assert count_local_workers(Workers(kind="ray", count=3, address="auto"), "cuda") == 3


@pytest.fixture
def clustered(search: Search, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Run]:
    """The same search on two workers, which are killed `deaths` times."""
    monkeypatch.setattr(Cluster, "worker", Deadly)
    # A worker does not find this module by its name.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)

    def run(deaths: int, config: dict[str, object]) -> Run:
        bullets = tmp_path / "bullets"
        bullets.mkdir()
        for number in range(deaths):
            (bullets / str(number)).touch()
        monkeypatch.setenv("LAYER_ORACLE_TEST_BULLETS", str(bullets))
        return run_search(SearchConfig.from_dict(config), tmp_path / "run", workers=Workers(kind="ray", count=2))

    return run


def rows(run: Run) -> list[dict[str, str]]:
    return run.evaluations().drop(columns="margin").map(repr).to_dict("records")


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [0, 2])
def test_workers_find_what_one_finds_even_if_they_die(
    search: Search, clustered: Callable[..., Run], deaths: int
) -> None:
    here = search(strategy="auto")
    there = clustered(deaths, here.manifest["config"])
    assert rows(there) == rows(here)
    assert there.certificates().sort_values("sequence").to_dict("records") == here.certificates().sort_values(
        "sequence"
    ).to_dict("records")
    assert there.summary()["set_aside"] == {}


@pytest.mark.slow
def test_a_sequence_that_kills_its_workers_is_set_aside_and_named(
    search: Search, clustered: Callable[..., Run]
) -> None:
    here = search(strategy="auto")
    there = clustered(99, here.manifest["config"])
    assert there.summary()["set_aside"] == {"s3": "3 workers died on it"}
    assert [row for row in rows(there) if row["sequence"] != "'s3'"] == [
        row for row in rows(here) if row["sequence"] != "'s3'"
    ]


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(InputError, match="--executor needs one of local, ray, not 'dask'"):
        Workers(kind="dask")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--workers needs at least 1, not 0"):
        Workers(kind="ray", count=0)
