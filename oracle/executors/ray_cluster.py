"""Search on the workers of a Ray cluster, each with its own copy of the model; dead workers are replaced."""

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.executors.base import Event, Item, Note, Workers
from oracle.executors.searcher import Searcher
from oracle.executors.work import Work, requeue, split_work
from oracle.search import Memory, Space
from oracle.store.hidden import HiddenStore
from oracle.utils.machine import resolve_device

__all__ = ["Cluster", "Worker", "count_local_workers"]


@dataclass(kw_only=True)
class _WorkerSlot:
    """A worker with its current work and its stream of events."""

    actor: Any
    work: Work = field(default_factory=lambda: Work(items={}))
    stream: Any = None
    hidden: dict[str, int] = field(default_factory=dict)


def count_local_workers(workers: Workers, device: str) -> int:
    """Number of workers of a cluster on this machine: as requested, or one per processor core or GPU.

    Raises:
        InputError: if there are fewer GPUs; Ray would wait for them forever.
    """
    if device != "cuda":
        return workers.count or max(1, (os.cpu_count() or 1) // (workers.threads or 1))
    gpus = torch.cuda.device_count()
    if workers.address is None and (workers.count or 0) > gpus:
        raise InputError(
            f"--workers needs at most {gpus}, the number of GPUs, not {workers.count}; or use --device cpu"
        )
    return workers.count or gpus


class Worker:
    """Remote worker: loads the model and searches."""

    def __init__(self, config: SearchConfig, space: Space, store: HiddenStore | None, threads: int) -> None:
        from oracle.engine import Engine
        from oracle.models import load_model

        torch.set_num_threads(threads)
        model = load_model(
            config.model, dtype=config.dtype, device=config.device, trust_remote_code=config.trust_remote_code
        )
        self._searcher = Searcher(Engine(model, config, store), config, space)

    def ready(self) -> int:
        """Process id; returns once the model is loaded."""
        return os.getpid()

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note | dict[str, int]]:
        """See `Searcher.search`; finally yields the hidden-state counts of `Executor.hidden`."""
        yield from self._searcher.search(items, memory)
        yield self._searcher.engine.hidden.counts()


class Cluster:
    """Executor on a Ray cluster, either a running one or one started on this machine for the duration of the search.

    A dead worker is replaced; its sequences are requeued one by one and continue from the outcomes so far. A sequence
    on which workers die three times is set aside.

    Args:
        workers: number and address of the workers.
        config: settings of the search.
        space: the search space.
        store: hidden states, in a folder that all workers can access.

    Raises:
        InputError: if Ray is not installed, the cluster cannot be reached, or a worker cannot start.
    """

    worker: ClassVar[type[Worker]] = Worker

    def __init__(self, workers: Workers, config: SearchConfig, space: Space, store: HiddenStore | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # By default Ray hides all GPUs from workers that reserve none.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise InputError("--executor ray needs Ray; install it with: pip install 'layer-oracle[ray]'") from error
        self._ray = ray
        self._memory: Any = None
        local = Path(config.model)
        # Workers have another working directory, and must use this process's kind of device for equal results.
        model = str(local.resolve()) if local.exists() else config.model
        self._config = replace(config, model=model, device=str(resolve_device(config.device)))
        self._space, self._store, self._threads = space, store, workers.threads or 1
        quiet: dict[str, Any] = {"include_dashboard": False} if workers.address is None else {}
        count = count_local_workers(workers, self._config.device)
        try:
            ray.init(
                address=workers.address or "local",
                num_cpus=None if workers.address else count * self._threads,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **quiet,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"no Ray cluster at --address {workers.address} ({reason}); start one: ray start --head; if it is "
                "running and requires a token, set RAY_AUTH_MODE=token"
            ) from error
        if workers.address and workers.count is None:
            count = self._cluster_size(workers)
        self._slots = [_WorkerSlot(actor=actor) for actor in self._start_workers(count)]

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note]:
        """See `Executor.search`; events of all workers are interleaved."""
        self._memory = self._ray.put(memory)
        waiting = deque(map(Work.of, split_work(items, len(self._slots))))
        try:
            while True:
                for slot in self._slots:
                    if slot.stream is None and waiting:
                        self._assign(slot, waiting.popleft())
                busy = {slot.stream: slot for slot in self._slots if slot.stream is not None}
                if not busy:
                    break
                [stream], _ = self._ray.wait(list(busy), num_returns=1)
                yield from self._next(busy[stream], waiting)
        finally:
            for slot in self._slots:
                if slot.stream is not None:
                    # The iterator was closed early: the rest of the stream is not read.
                    self._ray.kill(slot.actor)
                    slot.stream = None

    def hidden(self) -> dict[str, int]:
        """See `Executor.hidden`; sums over all workers, without the counts of dead ones."""
        total = Counter({"hits": 0, "misses": 0, "damaged": 0})
        for slot in self._slots:
            total.update(slot.hidden)
        return dict(total)

    def close(self) -> None:
        """Disconnects from the cluster; a cluster started here is shut down."""
        self._ray.shutdown()

    @property
    def _gpus(self) -> int:
        """GPUs that Ray reserves per worker; none for `cuda:N`, which all workers share."""
        return int(self._config.device == "cuda")

    def _cluster_size(self, workers: Workers) -> int:
        """Number of workers for a running cluster: its GPUs, or its processor cores over the threads per worker."""
        resources = self._ray.cluster_resources()
        if not self._gpus:
            return max(1, int(resources.get("CPU", 1)) // self._threads)
        if not resources.get("GPU"):
            raise InputError(
                f"the Ray cluster at --address {workers.address} has no GPU, but this machine has one; use --device cpu"
            )
        return int(resources["GPU"])

    def _start_workers(self, count: int) -> list[Any]:
        ray = self._ray
        remote = ray.remote(self.worker).options(num_cpus=self._threads, num_gpus=self._gpus, max_restarts=0)
        actors = [remote.remote(self._config, self._space, self._store, self._threads) for _ in range(count)]
        try:
            ray.get([actor.ready.remote() for actor in actors])
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"a worker of the Ray cluster cannot start: {reason}") from error
        return actors

    def _assign(self, slot: _WorkerSlot, work: Work) -> None:
        slot.work = work
        search = slot.actor.search.options(num_returns="streaming")
        slot.stream = search.remote(list(work.items.values()), self._memory)

    def _next(self, slot: _WorkerSlot, waiting: deque[Work]) -> Iterator[Event | Note]:
        """The next event of a worker; if it died, its work is queued again."""
        try:
            event = self._ray.get(next(slot.stream))
        except StopIteration:
            slot.stream = None
        except self._ray.exceptions.RayActorError:
            slot.stream = None
            yield from requeue(slot.work, waiting)
            [slot.actor] = self._start_workers(1)
        except self._ray.exceptions.RayTaskError as error:
            # The error's own message is the worker's whole traceback.
            raise error.cause if isinstance(error.cause, InputError) else error from None
        else:
            if isinstance(event, dict):
                slot.hidden = event
                return
            if not isinstance(event, Note):
                slot.work.take(event)
            yield event
