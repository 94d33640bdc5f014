"""Forked workers: whatever they do, their parent learns of it and goes on."""

import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from oracle.errors import InputError, WorkerError
from oracle.utils.cores import forks
from oracle.utils.process_pool import DIED, ProcessPool

pytestmark = pytest.mark.skipif(not forks(), reason="processes are forked on Linux only")


def behaves(request: object) -> Iterator[object]:
    """What a worker of the tests below is asked."""
    if request == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if request == "leave":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if request == "refuse":
        raise InputError("not enough memory for a single row")
    if request == "fail":
        raise OSError("no space left")
    if request == "files":
        yield sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    else:
        yield os.getpid()
        yield request


@pytest.fixture
def pool() -> Iterator[ProcessPool]:
    made = ProcessPool(2, behaves)
    yield made
    made.close()


def given(pool: ProcessPool, *requests: object) -> list[tuple[object, object]]:
    return [(job, event) for job, _, event in pool.run(deque(requests), lambda job: job)]


class TestProcessPool:
    """Forked workers, whatever they do."""

    def test_answers_each_job_with_all_its_events(self, pool: ProcessPool) -> None:
        found = given(pool, "a", "b", "c", "d")
        assert sorted(event for _, event in found if isinstance(event, str)) == ["a", "b", "c", "d"]
        processes = {event for _, event in found if isinstance(event, int)}
        assert len(processes) <= 2 and os.getpid() not in processes
        assert set(pool.growth) == processes
        assert all(growth < 100 for growth in pool.growth.values()), "MiB of a worker that computes nothing"

    @pytest.mark.parametrize("how", ["die", "leave"])
    def test_says_who_died_and_goes_on(self, pool: ProcessPool, how: str) -> None:
        waiting: deque[str] = deque([how, "a"])
        died = []
        answered = []
        for job, _, event in pool.run(waiting, lambda job: job):
            if event is DIED:
                died.append(job)
                if job != how:
                    waiting.append(job)  # it was beside the nursery's end
            else:
                answered.append(event)
        assert how in died and "a" in answered
        assert "b" in [event for _, event in given(pool, "b")]

    def test_hands_on_what_a_user_can_mend(self, pool: ProcessPool) -> None:
        with pytest.raises(InputError, match="not enough memory for a single row"):
            given(pool, "a", "refuse")
        assert ("b", "b") in given(pool, "b")

    def test_raises_another_error_with_its_traceback(self, pool: ProcessPool) -> None:
        with pytest.raises(WorkerError, match=r"a worker process failed \(OSError: no space left.*\)") as failure:
            given(pool, "fail")
        assert "in behaves" in "".join(traceback.format_exception(failure.value))

    def test_keeps_no_file_of_its_parent(self, tmp_path: Path) -> None:
        with (tmp_path / "lock").open("w"):
            pool = ProcessPool(2, behaves)
            try:
                [(_, files)] = given(pool, "files")
            finally:
                pool.close()
        assert isinstance(files, list)
        assert not any(str(tmp_path / "lock") in str(name) for name in files)

    def test_closed_in_the_middle_ends_its_workers(self, pool: ProcessPool) -> None:
        events = pool.run(deque(["a"]), lambda job: job)
        _, process, _ = next(events)
        worker = psutil.Process(process)
        events.close()
        pool.close()
        assert psutil.wait_procs([worker], timeout=10)[1] == []
