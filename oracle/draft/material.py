"""What is drafted, with what it costs, and how fast a draft is expected to be.

In shapes, X is verified prefixes.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oracle.draft.acceptance import Acceptance, Accepted, Drafting
from oracle.draft.plan import Plan
from oracle.draft.rounds import Played, Times, play
from oracle.engine import DraftEngine
from oracle.engine.schedule import as_masks
from oracle.executors import over_cores
from oracle.store.derived import DerivedTables
from oracle.types import Allocation

__all__ = ["Material", "Policy"]

Result = TypeVar("Result")

WORTH_A_PROCESS = 100
"""Drafts, of a sequence's masks from its prefixes, above which they are computed beside those of other sequences."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """Drafts of one sequence.

    Attributes:
        masks: over sublayers: one for all prefixes, or one each.
        length: draft length.
        lengths_X: accepted tokens per prefix, where masks differ by prefix.
        near: prefixes at which a near-tie decided that; likewise.
    """

    masks: list[Allocation]
    length: int
    lengths_X: NDArray[np.int16] | None = None
    near: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """The outputs of a study, with everything that drafts of them are judged by.

    Attributes:
        plan: settings of the study.
        engine: runs drafts.
        sequences: what is drafted, by id.
        halves: ids of each half: what is learned on one is judged on the other.
        acceptance: how many tokens of a mask's drafts are accepted.
        times: the cost model.
        layers: L.
        separable: whether attention and MLP can be skipped apart.
        parts: what has been computed, for a study that is interrupted.
    """

    plan: Plan
    engine: DraftEngine
    sequences: dict[str, Drafting]
    halves: list[list[str]]
    acceptance: Acceptance
    times: Times
    layers: int
    separable: bool
    parts: DerivedTables

    def side_by_side(self, task: Callable[[str], Result], ids: Seq[str]) -> Iterator[tuple[str, Result]]:
        """The result of a task per sequence, on all free cores, as (id, result) in the order of completion.

        Args:
            task: computes one sequence; what drafts get accepted meanwhile is kept, and nothing else.
            ids: the sequences.
        """

        def collected(name: str) -> tuple[Result, list[Accepted]]:
            with self.acceptance.collecting() as accepted:
                return task(name), accepted

        device, memory = self.engine.model.network.device, self.engine.config.memory
        for place, (result, accepted) in over_cores(collected, ids, device=device, memory_mib=memory):
            self.acceptance.keep(accepted)
            yield ids[place], result

    def stored_side_by_side(
        self,
        tables: DerivedTables,
        kind: str,
        schema: pa.Schema,
        task: Callable[[str], list[dict[str, Any]]],
        advance: Callable[[int, str], None] = lambda count, remark: None,
    ) -> dict[str, list[dict[str, Any]]]:
        """Rows by sequence id: those of an interrupted study are read, the others computed `side_by_side` and written.

        Args:
            tables: where they are stored.
            kind: of the rows, the beginning of their files' names.
            schema: of the rows.
            task: computes the rows of one sequence.
            advance: reports progress, in sequences.
        """
        files = {name: f"{kind}-{number:05}" for number, name in enumerate(self.sequences)}
        rows = {}
        for name, file in files.items():
            if (stored := tables.read(file, schema)) is not None:
                rows[name] = stored[0].to_pylist()
        advance(len(rows), "")
        for name, found in self.side_by_side(task, [name for name in files if name not in rows]):
            tables.write(files[name], pa.Table.from_pylist(found, schema=schema))
            rows[name] = found
            advance(1, name)
        return {name: rows[name] for name in files}

    def compute(self, masks: Seq[Allocation], ids: Seq[str]) -> None:
        """Computes what drafts of these masks get accepted on each of these sequences, on all free cores."""
        wanted = {name: self.acceptance.missing(name, masks) for name in ids}
        some = [name for name in ids if len(wanted[name]) * self.sequences[name].length.tokens > WORTH_A_PROCESS]
        for _ in self.side_by_side(lambda name: len(self.acceptance.lengths(name, wanted[name])), some):
            pass

    def played(self, name: str, lengths_X: NDArray[np.int16], draft: int) -> Played:
        """Decoding of one sequence with this draft length.

        Args:
            name: its id.
            lengths_X: accepted tokens per prefix.
            draft: draft length.
        """
        return play(lengths_X, self.sequences[name].length, draft)

    def speedup(self, ids: Seq[str], lengths: Seq[NDArray[np.int16]], draft_ms: Seq[Any]) -> tuple[float, int]:
        """Expected speed-up over some sequences at the best common draft length, and that length."""
        best = (-1.0, 1)
        for draft in range(1, self.plan.length + 1):
            played = [self.played(name, one, draft) for name, one in zip(ids, lengths, strict=True)]
            ms = sum(one.ms(each, self.times) for one, each in zip(played, draft_ms, strict=True))
            tokens = sum(one.tokens for one in played)
            best = max(best, (tokens * self.times.token / ms, -draft))
        return best[0], abs(best[1])

    def of_masks(self, masks: Seq[Allocation], ids: Seq[str]) -> list[tuple[float, int]]:
        """`speedup` of each mask, the same for all of these sequences."""
        if len(ids) > 1:
            self.compute(masks, ids)
        by_id = [self.acceptance.lengths(name, masks) for name in ids]
        return [
            self.speedup(ids, [one[place] for one in by_id], [self.draft_ms(mask)] * len(ids))
            for place, mask in enumerate(masks)
        ]

    def draft_ms(self, mask: Allocation) -> float:
        """Expected time of a draft token of a mask."""
        return self.times.draft(as_masks([mask], 2 * self.layers)[0])

    def best(self, masks: Seq[Allocation], ids: Seq[str]) -> Policy:
        """The mask and draft length of highest expected speed-up; the cheapest of equal ones."""
        values = self.of_masks(masks, ids)
        place = min(range(len(masks)), key=lambda one: (-values[one][0], len(masks[one]), masks[one]))
        return Policy(masks=[masks[place]], length=values[place][1])
