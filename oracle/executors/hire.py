"""Who searches."""

from dataclasses import dataclass
from typing import Literal, get_args

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.executors.local import Local
from oracle.executors.searcher import Searcher
from oracle.executors.work import Executor
from oracle.search import Space

__all__ = ["HERE", "Workers", "hire"]

Kind = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who searches.

    Attributes:
        kind: `local`, in this process, or `ray`.
        count: how many workers; None for one a processor core, or one a GPU. One if local.
        address: of a Ray cluster, such as `auto` or `ray://host:10001`; None to start one on this machine.
        threads: of each Ray worker.
    """

    kind: Kind = "local"
    count: int | None = None
    address: str | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"--executor needs one of {', '.join(get_args(Kind))}, not '{self.kind}'")
        if self.kind == "local" and (self.count not in (None, 1) or self.address is not None):
            raise InputError("--workers and --address need --executor ray: the local executor is this process")
        if min(1 if self.count is None else self.count, self.threads) < 1:
            raise InputError(f"--workers needs at least 1, not {self.count}")


HERE = Workers()


def hire(workers: Workers, engine: Engine, config: SearchConfig, space: Space) -> Executor:
    """The executor of these workers.

    Args:
        workers: who.
        engine: of this process; workers elsewhere load their own.
        config: what to do.
        space: what may be allocated.

    Raises:
        InputError: if they cannot be had.
    """
    if workers.kind == "local":
        return Local(Searcher(engine, config, space))
    from oracle.executors.cluster import Cluster

    return Cluster(workers, config, space, engine.hidden.store)
