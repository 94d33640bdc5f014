"""Searches on the workers of a Ray cluster, each with a model of its own; whoever dies is replaced."""

import itertools
import logging
import os
from collections import Counter, deque
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.executors.base import Event, Found, Item, Note, SetAside, Workers
from oracle.executors.searcher import SIDE_BY_SIDE, Searcher
from oracle.search import Memory, Space
from oracle.store.hidden import HiddenStore
from oracle.utils.machine import resolve_device

__all__ = ["Cluster", "Worker", "count_here", "shares"]

One = TypeVar("One")

DEATHS = 3
"""A sequence whose workers died so often is set aside."""


@dataclass(kw_only=True)
class _Work:
    """Sequences for one worker, by id, with how often workers died over them."""

    items: dict[str, Item]
    deaths: int = 0

    def take(self, event: Event) -> None:
        """Keeps what is found: whoever takes over begins with it."""
        item = self.items[event.sequence]
        if isinstance(event, Found):
            self.items[event.sequence] = replace(item, known=item.known + event.outcomes)
        else:
            del self.items[event.sequence]


@dataclass(kw_only=True)
class _Hand:
    """A worker, and what it is at: the stream of what it finds."""

    actor: Any
    work: _Work = field(default_factory=lambda: _Work(items={}))
    stream: Any = None
    hidden: dict[str, int] = field(default_factory=dict)


def shares(items: Seq[One], hands: int) -> Iterator[Seq[One]]:
    """Work for so many workers: as large as is searched side by side, and as many for the one as for the other."""
    rounds = -(-len(items) // (hands * SIDE_BY_SIDE))
    count = min(len(items), rounds * hands)
    ends = [len(items) * place // count for place in range(count + 1)] if count else [0]
    for start, end in itertools.pairwise(ends):
        yield items[start:end]


def count_here(workers: Workers, device: str) -> int:
    """How many workers a cluster on this machine has: as asked for, or one a processor core, or one a GPU.

    Raises:
        InputError: if there are not as many GPUs; Ray would wait for them forever.
    """
    if device != "cuda":
        return workers.count or max(1, (os.cpu_count() or 1) // workers.threads)
    there = torch.cuda.device_count()
    if workers.address is None and (workers.count or 0) > there:
        raise InputError(
            f"--workers needs at most {there}, as many as there are GPUs, not {workers.count}; or use --device cpu"
        )
    return workers.count or there


class Worker:
    """What runs on the cluster: a model of its own that searches."""

    def __init__(self, config: SearchConfig, space: Space, store: HiddenStore | None, threads: int) -> None:
        from oracle.engine import Engine
        from oracle.models import load_model

        torch.set_num_threads(threads)
        model = load_model(
            config.model, dtype=config.dtype, device=config.device, trust_remote_code=config.trust_remote_code
        )
        self._searcher = Searcher(Engine(model, config, store), config, space)

    def ready(self) -> int:
        """Process id, once the model is loaded."""
        return os.getpid()

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note | dict[str, int]]:
        """See `Searcher.search`; at the end come hits, misses and damage of the store of hidden states so far."""
        yield from self._searcher.search(items, memory)
        yield self._searcher.engine.hidden.counts()


class Cluster:
    """Workers on a Ray cluster: one that is there, or one that is started on this machine and ends with the search.

    A worker that dies is replaced, and its sequences go on elsewhere, each alone, from what was found by then. A
    sequence over which workers die three times is set aside.

    Args:
        workers: how many, and where.
        config: what to do.
        space: what may be allocated.
        store: of hidden states, in a folder that all workers reach.

    Raises:
        InputError: if Ray is not installed, the cluster cannot be reached, or a worker cannot start.
    """

    worker: ClassVar[type[Worker]] = Worker

    def __init__(self, workers: Workers, config: SearchConfig, space: Space, store: HiddenStore | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own way of setting no GPU aside hides them all.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise InputError("--executor ray needs Ray; install it with: pip install 'layer-oracle[ray]'") from error
        self._ray = ray
        self._memory: Any = None
        local = Path(config.model)
        # A worker stands elsewhere, and computes on what this process does: its results are to be the same.
        model = str(local.resolve()) if local.exists() else config.model
        self._config = replace(config, model=model, device=str(resolve_device(config.device)))
        self._space, self._store, self._threads = space, store, workers.threads
        quiet: dict[str, Any] = {"include_dashboard": False} if workers.address is None else {}
        count = count_here(workers, self._config.device)
        try:
            ray.init(
                address=workers.address or "local",
                num_cpus=None if workers.address else count * workers.threads,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **quiet,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"no Ray cluster at --address {workers.address} ({reason}); start one: ray start --head; if it is "
                "there and wants a token, set RAY_AUTH_MODE=token"
            ) from error
        if workers.address and workers.count is None:
            count = self._count_there(workers)
        self._hands = [_Hand(actor=actor) for actor in self._hire(count)]

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note]:
        """Searches some sequences; yields what is found as it comes, from whichever worker."""
        self._memory = self._ray.put(memory)
        waiting = deque(
            _Work(items={item.sequence.id: item for item in share}) for share in shares(items, len(self._hands))
        )
        try:
            while True:
                for hand in self._hands:
                    if hand.stream is None and waiting:
                        self._give(hand, waiting.popleft())
                busy = {hand.stream: hand for hand in self._hands if hand.stream is not None}
                if not busy:
                    break
                [stream], _ = self._ray.wait(list(busy), num_returns=1)
                yield from self._next(busy[stream], waiting)
        finally:
            for hand in self._hands:
                if hand.stream is not None:
                    # Left in the middle: nobody reads on.
                    self._ray.kill(hand.actor)
                    hand.stream = None

    def hidden(self) -> dict[str, int]:
        """Hits, misses and damage of the store of hidden states, of all workers; what the dead ones counted is lost."""
        total = Counter({"hits": 0, "misses": 0, "damaged": 0})
        for hand in self._hands:
            total.update(hand.hidden)
        return dict(total)

    def close(self) -> None:
        """Leaves the cluster; the one that was started ends."""
        self._ray.shutdown()

    @property
    def _gpus(self) -> int:
        """GPUs that Ray sets aside for each worker; a GPU with a number is shared by all."""
        return int(self._config.device == "cuda")

    def _count_there(self, workers: Workers) -> int:
        """As many workers as a running cluster has GPUs, or processor cores."""
        resources = self._ray.cluster_resources()
        if not self._gpus:
            return max(1, int(resources.get("CPU", 1)) // workers.threads)
        if not resources.get("GPU"):
            raise InputError(
                f"the Ray cluster at --address {workers.address} has no GPU, but this machine has; use --device cpu"
            )
        return int(resources["GPU"])

    def _hire(self, count: int) -> list[Any]:
        ray = self._ray
        remote = ray.remote(self.worker).options(num_cpus=self._threads, num_gpus=self._gpus, max_restarts=0)
        actors = [remote.remote(self._config, self._space, self._store, self._threads) for _ in range(count)]
        try:
            ray.get([actor.ready.remote() for actor in actors])
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"a worker of the Ray cluster cannot start: {reason}") from error
        return actors

    def _give(self, hand: _Hand, work: _Work) -> None:
        hand.work = work
        search = hand.actor.search.options(num_returns="streaming")
        hand.stream = search.remote(list(work.items.values()), self._memory)

    def _next(self, hand: _Hand, waiting: deque[_Work]) -> Iterator[Event | Note]:
        """The next of what a worker finds; where it died, its work waits again."""
        try:
            event = self._ray.get(next(hand.stream))
        except StopIteration:
            hand.stream = None
        except self._ray.exceptions.RayActorError:
            hand.stream = None
            yield from self._mourn(hand, waiting)
        except self._ray.exceptions.RayTaskError as error:
            # Its own message is the worker's whole traceback.
            raise error.cause if isinstance(error.cause, InputError) else error from None
        else:
            if isinstance(event, dict):
                hand.hidden = event
                return
            if not isinstance(event, Note):
                hand.work.take(event)
            yield event

    def _mourn(self, hand: _Hand, waiting: deque[_Work]) -> Iterator[Event]:
        deaths = hand.work.deaths + 1
        for name, item in hand.work.items.items():
            if deaths < DEATHS:
                waiting.appendleft(_Work(items={name: item}, deaths=deaths))
            else:
                yield SetAside(sequence=name, reason=f"{deaths} workers died over it")
        [hand.actor] = self._hire(1)
