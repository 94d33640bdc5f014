"""Sequences with the full model's outputs, and what drafts of them get accepted: computed once, and kept on disk.

In shapes, X is verified prefixes.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oracle.draft.rounds import Length
from oracle.engine import DraftEngine, VerifiedOutput
from oracle.engine.schedule import as_masks
from oracle.store.derived import DerivedTables
from oracle.types import Allocation

__all__ = ["Acceptance", "Accepted", "Drafting"]

WRITE_EVERY = 20.0
"""Seconds after which new results are written."""

OPEN = 32
"""Outputs whose keys and values are kept in memory."""

PARTS = pa.schema(
    [
        ("sequence", pa.string()),
        ("mask", pa.list_(pa.int16())),
        ("lengths", pa.list_(pa.int16())),
        ("near", pa.int32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Drafting:
    """A sequence whose output is drafted.

    Attributes:
        id: of the sequence.
        task: its task.
        prompt_ids: the prompt.
        tokens: the full model's output, at least two tokens.
        length: of the output.
    """

    id: str
    task: str
    prompt_ids: tuple[int, ...]
    tokens: tuple[int, ...]
    length: Length


@dataclass(frozen=True, kw_only=True, eq=False)
class Accepted:
    """What drafts of one mask get accepted on one sequence.

    Attributes:
        sequence: its id.
        mask: over sublayers.
        lengths_X: accepted tokens per prefix.
        near: prefixes at which a near-tie decided.
    """

    sequence: str
    mask: Allocation
    lengths_X: NDArray[np.int16]
    near: int


@dataclass(kw_only=True)
class Acceptance:
    """Accepted lengths of masks, from every verified prefix of every sequence.

    Masks are allocations over sublayers. What is computed is written in parts, from which an interrupted command
    continues.

    Args:
        engine: runs drafts.
        sequences: the sequences, by id.
        most: draft length.
        tables: folder of the parts.
    """

    engine: DraftEngine
    sequences: dict[str, Drafting]
    most: int
    tables: DerivedTables
    _known: dict[tuple[str, Allocation], tuple[NDArray[np.int16], int]] = field(default_factory=dict)
    _outputs: OrderedDict[str, VerifiedOutput] = field(default_factory=OrderedDict)
    _unwritten: list[Accepted] = field(default_factory=list)
    _parts: int = 0
    _written: float = field(default_factory=monotonic)
    _collecting: bool = False

    def __post_init__(self) -> None:
        while (found := self.tables.read(self._part(), PARTS)) is not None:
            for row in found[0].to_pylist():
                lengths_X = np.array(row["lengths"], dtype=np.int16)
                self._known[row["sequence"], tuple(row["mask"])] = (lengths_X, row["near"])
            self._parts += 1

    def _part(self) -> str:
        return f"acceptance-{self._parts:05}"

    def output(self, name: str) -> VerifiedOutput:
        """The output of a sequence with its keys and values."""
        if name not in self._outputs:
            one = self.sequences[name]
            self._outputs[name] = self.engine.verified(one.prompt_ids, one.tokens)
            if len(self._outputs) > OPEN:
                self._outputs.popitem(last=False)
        self._outputs.move_to_end(name)
        return self._outputs[name]

    def lengths(self, name: str, masks: Seq[Allocation]) -> list[NDArray[np.int16]]:
        """Accepted tokens per prefix (X) of each mask."""
        # Masks of equal beginnings stand together, so that these are run once.
        if missing := sorted(self.missing(name, masks)):
            found = self.engine.accepted(self.output(name), as_masks(missing, self.engine.sublayers), self.most)
            self.keep(
                [
                    Accepted(sequence=name, mask=mask, lengths_X=lengths_X, near=int(near_X.sum()))
                    for mask, lengths_X, near_X in zip(missing, found.lengths_AX, found.near_AX, strict=True)
                ]
            )
        return [self._known[name, mask][0] for mask in masks]

    def missing(self, name: str, masks: Iterable[Allocation]) -> list[Allocation]:
        """Those masks that are not computed for a sequence."""
        return [mask for mask in dict.fromkeys(masks) if (name, mask) not in self._known]

    def keep(self, found: Iterable[Accepted]) -> None:
        """Takes over what was computed, here or in another process; writes it now and then."""
        for one in found:
            self._known[one.sequence, one.mask] = (one.lengths_X, one.near)
            self._unwritten.append(one)
        if not self._collecting and monotonic() - self._written > WRITE_EVERY:
            self.flush()

    @contextmanager
    def collecting(self) -> Iterator[list[Accepted]]:
        """What is computed in this context goes into a list, for `keep`, and not to the disk."""
        before, self._unwritten, self._collecting = self._unwritten, [], True
        try:
            yield self._unwritten
        finally:
            self._unwritten, self._collecting = before, False

    def near(self, name: str, mask: Allocation) -> int:
        """Prefixes of a computed mask at which a near-tie decided what was accepted."""
        return self._known[name, mask][1]

    def common(self, ids: Iterable[str]) -> list[Allocation]:
        """Masks that are computed for all of these sequences."""
        of_each = [{mask for name, mask in self._known if name == wanted} for wanted in ids]
        return sorted(set.intersection(*of_each)) if of_each else []

    def flush(self) -> None:
        """Writes what is new."""
        if self._unwritten:
            rows = [
                {"sequence": one.sequence, "mask": one.mask, "lengths": one.lengths_X.tolist(), "near": one.near}
                for one in self._unwritten
            ]
            self.tables.write(self._part(), pa.Table.from_pylist(rows, schema=PARTS))
            self._parts += 1
            self._unwritten = []
        self._written = monotonic()
