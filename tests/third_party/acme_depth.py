"""A small package of another author: a metric, a strategy, a controller and a reader, found by entry point."""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import Any

from oracle.controllers import Prompt, SequenceController
from oracle.engine import Engine
from oracle.search import Strategy
from oracle.types import Allocation


def length(references: tuple[str, ...], output: str, record: Mapping[str, Any]) -> float:
    """How near the output's length is to that which the row wants, from 0 to 1."""
    wanted = int(record.get("length", len(references[0])))
    return 1 / (1 + abs(len(output) - wanted))


class Halves(Strategy):
    """Halves of the free units, then quarters, and so on."""

    name = "acme-halves"
    hint = "the first and the last part of the units, in falling size"

    def _candidates(self, count: int) -> Iterable[Allocation]:
        space = self.problem.space
        free, size = list(space.free), len(space.free)
        while size:
            size //= 2
            for kept in (free[:size], free[len(free) - size :]):
                yield tuple(sorted({*space.fixed, *kept}))


class Ends(SequenceController):
    """The first and the last layers."""

    name = "acme-ends"

    def __init__(self, engine: Engine, *, each: int) -> None:
        super().__init__(engine)
        self.each = each

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        return [{"each": 1}, {"each": 2}]

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        units = self.engine.units.count
        kept = {*range(min(self.each, units)), *range(max(0, units - self.each), units)}
        return [tuple(sorted(kept))] * len(prompts)


def numbers(text: str) -> Iterator[dict[str, Any]]:
    """Rows about the first numbers."""
    for number in range(int(text)):
        yield {"prompt": f"Say {number}.", "references": [str(number)], "length": number}
