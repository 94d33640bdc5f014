"""What it costs to write everything down."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from faults.ground import Fault, Ground, Tries
from oracle.config import SearchConfig
from oracle.pipeline.run import run_search
from oracle.store import RunWriter
from oracle.store.hidden import HiddenStore

__all__ = ["FAULTS"]

ALLOWED = 0.02
"""Of the time of the search."""

WRITING = {
    RunWriter: ("__init__", "write_sequences", "append", "certify", "write_result", "write_summary"),
    HiddenStore: ("put", "get"),
}

NAME = "writing takes 2 % of a search (embedded model)"


def measured(ground: Ground, times: int) -> Tries:
    """Searches some bundled sequences as the demo does, and takes the time of all that is read and written."""
    config = SearchConfig(limit=2 * times)
    spent = [0.0]

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **settings: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments, **settings)
            finally:
                spent[0] += time.perf_counter() - began

        return act

    with pytest.MonkeyPatch.context() as patch:
        for kind, names in WRITING.items():
            for name in names:
                patch.setattr(kind, name, timed(getattr(kind, name)))
        run = run_search(config, ground.place() / "run", store=HiddenStore(ground.place()))
    seconds = run.summary()["search_seconds"]
    ground.notes[NAME] = f"{spent[0]:.2f} s of {seconds:.1f} s: {100 * spent[0] / seconds:.2f} %"
    yield None if spent[0] < ALLOWED * seconds else ground.notes[NAME]


FAULTS = [Fault(name=NAME, tries=measured, times=1, quick=0)]
