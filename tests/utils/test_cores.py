"""The cores and the memory that a process may use: affinity, cgroups of both versions, load, environment."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from oracle.errors import InputError
from oracle.executors import Workers, plan_workers
from oracle.executors import plan as plans
from oracle.utils import cores
from oracle.utils.cores import Cores, forks, free_memory, threads_wanted, wait_passively

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 idle cores without cgroups, as files to change."""
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(cores, "LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(cores, "_allowed", lambda: 16)
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    busy(tmp_path, monkeypatch, 0)
    return tmp_path


def busy(machine: Path, monkeypatch: pytest.MonkeyPatch, others: int, mean: float | None = None) -> None:
    """Lets so many other processes run, now and on average."""
    monkeypatch.setattr("os.getloadavg", lambda: (float(others if mean is None else mean), 0.0, 0.0))
    (machine / "loadavg").write_text(f"0.00 0.00 0.00 {others + 1}/200 4711\n")


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


class TestCores:
    """How many cores there are for this process."""

    def test_all_without_limits(self, machine: Path) -> None:
        assert Cores.now() == Cores(available=16, busy=0)
        (machine / "membership").write_text("0::/user.slice\n")
        write(machine / "cgroup" / "user.slice", cpu__max="max 100000")
        assert Cores.now().workers == 16

    @pytest.mark.parametrize(("quota", "expected"), [("400000", 4), ("250000", 2), ("50000", 1), ("6400000", 16)])
    def test_as_version_2_limits(self, machine: Path, quota: str, expected: int) -> None:
        (machine / "membership").write_text("0::/a/b\n")
        write(machine / "cgroup" / "a" / "b", cpu__max="max 100000")
        write(machine / "cgroup" / "a", cpu__max=f"{quota} 100000")
        assert Cores.now().available == expected

    def test_as_version_2_limits_a_container_that_sees_the_path_of_its_host(self, machine: Path) -> None:
        (machine / "membership").write_text("0::/../../docker/4711\n")
        write(machine / "cgroup", cpu__max="300000 100000")
        assert Cores.now().available == 3

    @pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
    def test_as_version_1_limits(self, machine: Path, mount: str) -> None:
        (machine / "membership").write_text("5:memory:/\n4:cpu,cpuacct:/box\n0::/\n")
        folder = machine / "cgroup" / mount
        write(folder, cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
        write(folder / "box", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
        assert Cores.now().available == 2

    @pytest.mark.parametrize("damage", ["", "max", "x y", "100000 0x", "100000"])
    def test_ignores_what_it_cannot_read(self, machine: Path, damage: str) -> None:
        (machine / "membership").write_text("0::/a\nnonsense\n")
        write(machine / "cgroup" / "a", cpu__max=damage)
        (machine / "loadavg").write_text("")
        assert Cores.now().available == 16

    def test_as_affinity_allows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
        monkeypatch.setattr(cores, "_processor_limits", lambda: iter(()))
        assert Cores.now().available == 3

    @pytest.mark.parametrize(("others", "expected"), [(0, 16), (8, 16), (16, 16), (20, 12), (31, 1), (99, 1)])
    def test_each_worker_can_expect_half_a_core(
        self, machine: Path, monkeypatch: pytest.MonkeyPatch, others: int, expected: int
    ) -> None:
        busy(machine, monkeypatch, others)
        assert Cores.now().workers == expected

    def test_load_counts_if_it_lasts_and_is_there(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        busy(machine, monkeypatch, 30, mean=1.5)
        assert Cores.now().busy == 1.5
        busy(machine, monkeypatch, 2, mean=30)
        assert Cores.now().busy == 2
        # On a quarter of the machine a quarter of its load is expected.
        monkeypatch.setattr(cores, "_allowed", lambda: 4)
        assert Cores.now().busy == 0.5


class TestMemory:
    """How much memory is left."""

    def test_of_the_machine(self, machine: Path) -> None:
        assert 0 < free_memory() <= psutil.virtual_memory().total

    def test_of_version_2_without_cached_files(self, machine: Path) -> None:
        (machine / "membership").write_text("0::/a\n")
        stat = "anon 1\ninactive_file 1048576"
        write(machine / "cgroup" / "a", memory__max="10485760", memory__current="4194304", memory__stat=stat)
        assert free_memory() == 7 * 2**20

    def test_of_version_1(self, machine: Path) -> None:
        (machine / "membership").write_text("4:memory:/a\n")
        folder = machine / "cgroup" / "memory"
        write(folder, memory__limit_in_bytes=str(2**63 - 4096), memory__usage_in_bytes="1")
        usage = {"memory__limit_in_bytes": "10485760", "memory__usage_in_bytes": "10485761"}
        write(folder / "a", **usage, memory__stat="total_inactive_file 0")
        assert free_memory() == 0


@pytest.mark.skipif(not forks(), reason="processes are forked on Linux only")
class TestPlan:
    """The processes and threads that follow."""

    @pytest.fixture(autouse=True)
    def roomy(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plans, "free_memory", lambda: 64 * GIB)

    def test_one_process_of_one_thread_per_core(self) -> None:
        plan = plan_workers(Workers(), device="cpu").fitted(sequences=24, memory_mib=1024)
        assert (plan.processes, plan.threads, plan.parts, plan.reason) == (16, 1, 16, "")

    @pytest.mark.parametrize(("sequences", "memory", "expected"), [(3, 1024, 3), (24, 16384, 3), (24, 2**20, 1)])
    def test_fewer_for_little_work_or_memory(self, sequences: int, memory: int, expected: int) -> None:
        plan = plan_workers(Workers(), device="cpu").fitted(sequences=sequences, memory_mib=memory)
        # The parts stay, so that the results do not depend on it.
        assert (plan.processes, plan.parts) == (expected, 16)
        assert ("sequences" if sequences == 3 else "--memory") in plan.describe()

    def test_as_many_as_asked_for(self) -> None:
        found = [plan_workers(Workers(count=count), device="cpu") for count in (1, 2, 20)]
        assert [(plan.processes, plan.threads, plan.parts) for plan in found] == [(1, 1, 16), (2, 1, 16), (20, 1, 20)]
        assert found[1].fitted(sequences=24, memory_mib=2**20).processes == 2

    def test_threads_that_are_asked_for_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        plan = plan_workers(Workers(), device="cpu")
        assert (plan.processes, plan.threads, plan.reason) == (1, 4, "OMP_NUM_THREADS=4")
        # The number of workers, if given too, counts more.
        assert plan_workers(Workers(count=2), device="cpu").threads == 1
        assert plan_workers(Workers(threads=2), device="cpu").threads == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert plan_workers(Workers(), device="cpu").processes == 16

    def test_one_writer_per_study(self) -> None:
        plan = plan_workers(Workers(), device="cpu", study=True)
        assert (plan.processes, "--study" in plan.describe()) == (1, True)

    @pytest.mark.parametrize("place", ["another system", "cuda"])
    def test_one_process_where_none_can_be_forked(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plans, "forks", lambda: place != "another system")
        monkeypatch.setattr(plans, "resolve_device", lambda device: torch.device("cuda" if place == "cuda" else "cpu"))
        plan = plan_workers(Workers(), device="auto")
        assert (plan.processes, plan.threads) == (1, None)
        with pytest.raises(InputError, match=r"--workers 2 needs (the CPU|Linux) for --executor local; omit it"):
            plan_workers(Workers(count=2), device="auto")

    def test_threads_are_set_and_set_back(self) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            with plan_workers(Workers(), device="cpu").threads_set():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)


@pytest.mark.parametrize(("given", "found"), [("3", 3), ("4,2", 4), ("0", None), ("x", None), ("", None), (None, None)])
def test_the_number_of_threads_is_read(given: str | None, found: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert threads_wanted() == found


def test_threads_wait_passively_unless_chosen() -> None:
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    wait_passively(environment)
    assert environment == {"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "0"}


def test_the_command_line_chooses_before_torch_is_loaded() -> None:
    source = """
import os, sys
from oracle.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
assert "torch" not in sys.modules and "numpy" not in sys.modules
print(os.environ["OMP_WAIT_POLICY"], file=sys.stderr)
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "PASSIVE")
