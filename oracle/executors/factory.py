"""Executor selection: this machine, or workers on a Ray cluster."""

from oracle.config import SearchConfig
from oracle.executors.base import Executor, Workers
from oracle.executors.local import Local, Pool
from oracle.search import Space

__all__ = ["create_executor"]


def create_executor(workers: Workers, pool: Pool, config: SearchConfig, space: Space, *, parts: int) -> Executor:
    """The executor for a choice of workers.

    Args:
        workers: where to search.
        pool: workers on this machine; those of Ray load a model of their own.
        config: settings of the search.
        space: the search space.
        parts: see `Local`.

    Raises:
        InputError: if the workers cannot be started.
    """
    if workers.kind == "local":
        return Local(pool, parts)
    from oracle.executors.ray_cluster import Cluster

    return Cluster(workers, config, space, pool.searcher.engine.hidden.store)
