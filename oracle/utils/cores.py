"""Processor cores and memory that this process may use: affinity, container limits, other processes. Needs no torch."""

import os
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cores", "forks", "free_memory", "threads_wanted", "wait_passively"]

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
LOAD = Path("/proc/loadavg")

UNLIMITED = 2**60
"""Memory limits from this size on, in bytes, mean no limit: version 1 writes the largest number of pages."""

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Settings of GNU and LLVM OpenMP under which idle threads sleep. Spinning threads hold a core that another process
could use: with one busy process beside it a search of two threads takes four times as long."""


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets idle threads sleep rather than spin, unless the user has chosen; effective only before torch is loaded."""
    for name, value in PASSIVE.items():
        environment.setdefault(name, value)


def threads_wanted() -> int | None:
    """Number of threads that the user asked for by OMP_NUM_THREADS; None without a valid number."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Cores for this process, and the load on them.

    Attributes:
        available: number of cores that affinity and the cgroup's processor limit leave, at least 1.
        busy: number of them that other processes are estimated to use; may exceed `available`.
    """

    available: int
    busy: float

    @classmethod
    def now(cls) -> "Cores":
        """The cores at this moment."""
        available = _allowed()
        quota = min(_processor_limits(), default=float("inf"))
        # A share of a core is too little for a worker, unless it is all there is.
        available = max(1, min(available, int(quota + 0.01) if quota < UNLIMITED else available))
        return cls(available=available, busy=round(_busy() * available / (os.cpu_count() or 1), 2))

    @property
    def workers(self) -> int:
        """Number of busy processes among which each can expect at least half a core; at least 1.

        The scheduler divides the cores equally between all runnable processes, so taking one worker per core is fair
        while the others are no more than the cores; beyond that, more workers only crowd each other.
        """
        return max(1, min(self.available, int(2 * self.available - self.busy)))


def free_memory() -> int:
    """Bytes of memory that can still be used, within the machine and the limits of the cgroup."""
    import psutil  # not at the top, because every command imports this module

    return int(min(psutil.virtual_memory().available, *_memory_left(), UNLIMITED))


def _allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _busy() -> float:
    """Runnable processes on the whole machine, without this one: the lower of the last minute's mean and of now.

    The mean alone would count what has just ended, the moment alone what has just begun.
    """
    mean = os.getloadavg()[0]
    try:
        running = int(LOAD.read_text(encoding="ascii").split()[3].partition("/")[0]) - 1
    except (OSError, ValueError, IndexError):
        return max(0.0, mean - 1)
    return max(0.0, min(mean, float(running)))


def _folders(controller: str) -> Iterator[Path]:
    """Folders of this process's cgroup and of all its parents; version 2 for the empty controller."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if (controller in names.split(",")) if controller else (number == "0" and not names):
            mounts = [CGROUPS / names, CGROUPS / controller] if controller else [CGROUPS, CGROUPS / "unified"]
            for mount in dict.fromkeys(mounts):
                # Inside a container the path may be that of the host, and the container's own group is the mount.
                inner = mount / path.lstrip("/")
                yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(mount))


def _processor_limits() -> Iterator[float]:
    """Limits in cores."""
    for folder in _folders(""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)
    for folder in _folders("cpu"):
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal():  # the quota -1 is none
            yield int(quota) / int(period)


def _memory_left() -> Iterator[int]:
    """Bytes below each memory limit; cached files count as free because they can be dropped."""
    names = {
        "": ("memory.max", "memory.current", "inactive_file"),
        "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }
    for controller, (limit_name, used_name, cached_name) in names.items():
        for folder in _folders(controller):
            limit, used = _text(folder / limit_name), _text(folder / used_name)
            if limit.isdecimal() and used.isdecimal() and int(limit) < UNLIMITED:
                statistics = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
                yield max(0, int(limit) - int(used) + int(statistics.get(cached_name, 0)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def forks() -> bool:
    """Whether processes can be forked from one that has loaded torch: on Linux."""
    return sys.platform == "linux"
