"""Executor selection: this process, or workers on a Ray cluster."""

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.executors.base import Executor, Workers
from oracle.executors.local import Local
from oracle.executors.searcher import Searcher
from oracle.search import Space

__all__ = ["create_executor"]


def create_executor(workers: Workers, engine: Engine, config: SearchConfig, space: Space) -> Executor:
    """The executor for a choice of workers.

    Args:
        workers: where to search.
        engine: engine of this process; Ray workers load their own.
        config: settings of the search.
        space: the search space.

    Raises:
        InputError: if the workers cannot be started.
    """
    if workers.kind == "local":
        return Local(Searcher(engine, config, space))
    from oracle.executors.ray_cluster import Cluster

    return Cluster(workers, config, space, engine.hidden.store)
