"""The plan of a search: the number of processes and threads, from the free cores, the memory and what is asked for."""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

from oracle.errors import InputError
from oracle.executors.base import Workers
from oracle.utils.cores import Cores, forks, free_memory, threads_wanted
from oracle.utils.machine import resolve_device
from oracle.utils.process_pool import forked_map

__all__ = ["Plan", "over_cores", "plan_workers"]

Given = TypeVar("Given")
Result = TypeVar("Result")

MIB = 2**20

PROCESS_MIB = 256
"""Memory of a forked worker besides the engine's: copied pages of Python objects, allocator slack."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Use of the cores of this machine.

    Attributes:
        processes: number of workers; 1 for this process alone.
        threads: number of threads per process; None for torch's own choice.
        parts: number of parts into which a wave of sequences is split at least.
        cores: the cores when the plan was made.
        asked: whether the number of processes is the user's.
        reason: why there are fewer workers than cores; empty otherwise.
    """

    processes: int
    threads: int | None
    parts: int
    cores: Cores
    asked: bool = False
    reason: str = ""

    def fitted(self, *, sequences: int, memory_mib: int) -> "Plan":
        """The plan with no more workers than there are sequences or memory for.

        Args:
            sequences: number of sequences to search.
            memory_mib: most that an engine may use beyond the loaded model.
        """
        if self.processes == 1:
            return self
        fitting = max(1, free_memory() // MIB // (memory_mib + PROCESS_MIB))
        found = self
        if not self.asked and fitting < found.processes:
            reason = f"memory: each may use {memory_mib} MiB beyond the model, --memory"
            found = replace(found, processes=fitting, reason=reason)
        if sequences < found.processes:
            reason = f"{sequences} sequence{'' if sequences == 1 else 's'}"
            found = replace(found, processes=max(1, sequences), reason=reason)
        return found

    def describe(self) -> str:
        """The plan as text, for the progress display."""
        plural = "" if self.processes == 1 else "es"
        text = f"{self.processes} process{plural} on {self.cores.available} cores"
        return f"{text} ({self.reason})" if self.reason else text

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values, for a manifest."""
        return {
            "workers": self.processes,
            "parts": self.parts,
            "cores": self.cores.available,
            "busy": self.cores.busy,
        }

    @contextmanager
    def threads_set(self) -> Iterator[None]:
        """Sets the threads of torch and BLAS in this process, and so in workers forked from it; restores them."""
        if self.threads is None:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with threadpool_limits(self.threads, user_api="blas"):
                yield
        finally:
            torch.set_num_threads(before)


def plan_workers(workers: Workers, *, device: str, study: bool = False) -> Plan:
    """The plan for a choice of workers, before a model is loaded.

    On Linux and a CPU: one process of one thread per core, unless the user set the number of workers or of threads
    (OMP_NUM_THREADS). Elsewhere this process, with the threads of torch.

    Args:
        workers: the choice; a Ray cluster is planned by Ray, and this machine then verifies.
        device: as in `SearchConfig`.
        study: whether optuna stores trials, in a data base that need not allow several writers.

    Raises:
        InputError: if the device does not exist, or the workers cannot be had.
    """
    cores, count = Cores.now(), workers.count if workers.kind == "local" else None
    threads = workers.threads if workers.kind == "local" and workers.threads else threads_wanted()
    cpu = resolve_device(device).type == "cpu"
    if not cpu or not forks():
        if (count or 1) > 1:
            what = "the CPU" if not cpu else "Linux"
            raise InputError(f"--workers {count} needs {what} for --executor local; omit it, or use --executor ray")
        return Plan(processes=1, threads=None if cpu or not threads else threads, parts=1, cores=cores)
    if count is None and (threads or 1) > 1:
        # Processes of several threads cannot be forked: GNU OpenMP would wait for threads that only the parent has.
        return Plan(processes=1, threads=threads, parts=1, cores=cores, reason=f"OMP_NUM_THREADS={threads}")
    parts = max(cores.available, count or 1)
    if study:
        return Plan(processes=1, threads=1, parts=parts, cores=cores, reason="--study has one writer")
    if count is not None:
        return Plan(processes=count, threads=1, parts=parts, cores=cores, asked=True)
    reason = f"about {cores.busy:.0f} other processes are running" if cores.workers < cores.available else ""
    return Plan(processes=cores.workers, threads=1, parts=parts, cores=cores, reason=reason)


def over_cores(
    task: Callable[[Given], Result], given: Seq[Given], *, device: torch.device, memory_mib: int
) -> Iterator[tuple[int, Result]]:
    """The result of a task per item on all free cores, with one thread each; see `forked_map`.

    Args:
        task: computes one item with the loaded model.
        given: the items.
        device: of the model.
        memory_mib: most that a task may use beyond the loaded model.
    """
    plan = plan_workers(Workers(), device=str(device)).fitted(sequences=len(given), memory_mib=memory_mib)
    with plan.threads_set():
        yield from forked_map(task, given, plan.processes)
