"""Which layer executions a batch of allocations needs, in one order that suits them all."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from oracle.config import Unit
from oracle.errors import InputError
from oracle.models.decoder import Decoder
from oracle.models.layer_call import Call, Part
from oracle.types import Allocation

__all__ = ["Mask", "Schedule", "Units", "as_masks", "check_allocation"]

Mask = NDArray[np.bool_]
"""Allocations as rows of booleans (A U): whether a unit runs."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps that every allocation is a part of.

    Attributes:
        calls: the layer execution of each step; a layer may stand in several.
        runs_AI: whether an allocation runs a step.
    """

    calls: tuple[Call, ...]
    runs_AI: Mask

    @classmethod
    def of(cls, calls: Seq[tuple[Call, ...]]) -> "Schedule":
        """The steps of some allocations, few of them, such that as many as possible run together.

        Always the shallowest execution that some allocation waits for comes next. For rising allocations there is then
        one step per execution; layer paths meet again after a repeat.
        """
        places = [0] * len(calls)
        steps: list[Call] = []
        runs_IA: list[list[int]] = []
        waiting = {index for index, mine in enumerate(calls) if mine}
        while waiting:
            call = min(calls[index][places[index]] for index in waiting)
            rows = [index for index in waiting if calls[index][places[index]] == call]
            steps.append(call)
            runs_IA.append(rows)
            for index in rows:
                places[index] += 1
                if places[index] == len(calls[index]):
                    waiting.discard(index)
        runs_AI = np.zeros((len(calls), len(steps)), dtype=np.bool_)
        for step, rows in enumerate(runs_IA):
            runs_AI[rows, step] = True
        return cls(calls=tuple(steps), runs_AI=runs_AI)

    def of_rows(self, rows: NDArray[np.int64]) -> "Schedule":
        """The same steps for some of the allocations."""
        return Schedule(calls=self.calls, runs_AI=self.runs_AI[rows])


class Units:
    """What allocations are made of: layers, or attention and MLP apart.

    Unit u of `sublayer` is the attention (even u) or the MLP (odd u) of layer u // 2.

    Args:
        decoder: the model.
        unit: `layer` or `sublayer`.

    Attributes:
        count: units of the model: L layers or 2L sublayers.

    Raises:
        InputError: if the model's attention and MLP cannot be skipped apart.
    """

    def __init__(self, decoder: Decoder, unit: Unit) -> None:
        self._apart = unit == "sublayer"
        self.count = decoder.layers * (2 if self._apart else 1)
        self._serial = self._apart and decoder.sublayers.serial

    @property
    def sequential(self) -> bool:
        """Whether units run one after the other; attention and MLP of a parallel block do not."""
        return not self._apart or self._serial

    def calls(self, allocation: Allocation) -> tuple[Call, ...]:
        """The layer executions of one allocation."""
        if not self._apart:
            return tuple(Call(layer) for layer in allocation)
        apart = [Call(unit // 2, (Part.ATTENTION, Part.MLP)[unit % 2]) for unit in allocation]
        if self._serial:
            return tuple(apart)
        # In a parallel block both parts read the same hidden state: a layer that runs both runs whole.
        merged: list[Call] = []
        for call in apart:
            if call.part == Part.MLP and merged and merged[-1] == Call(call.layer, Part.ATTENTION):
                merged[-1] = Call(call.layer)
            else:
                merged.append(call)
        return tuple(merged)

    def schedule(self, runs_AU: Mask) -> Schedule:
        """The steps of skip masks given as booleans (A U), any number of them."""
        if not self._apart:
            return Schedule(calls=tuple(Call(layer) for layer in range(self.count)), runs_AI=runs_AU)
        layers = range(self.count // 2)
        attention_AL, mlp_AL = runs_AU[:, ::2], runs_AU[:, 1::2]
        if self._serial:
            parts = {Part.ATTENTION: attention_AL, Part.MLP: mlp_AL}
        else:
            both_AL = attention_AL & mlp_AL
            parts = {Part.WHOLE: both_AL, Part.ATTENTION: attention_AL & ~both_AL, Part.MLP: mlp_AL & ~both_AL}
        runs_AI = np.stack(list(parts.values()), axis=2).reshape(len(runs_AU), -1)
        return Schedule(calls=tuple(Call(layer, part) for layer in layers for part in parts), runs_AI=runs_AI)

    def steps(self, allocations: Seq[Allocation]) -> Schedule:
        """The steps of any allocations, layer paths included."""
        if not all(_rises(allocation) for allocation in allocations):
            return Schedule.of([self.calls(allocation) for allocation in allocations])
        return self.schedule(as_masks(allocations, self.count))

    def check(self, allocation: Allocation, *, rising: bool) -> None:
        """Makes sure that an allocation can run.

        Raises:
            InputError: if a unit does not exist, or if the allocation must rise and does not.
        """
        check_allocation(allocation, self.count, rising=rising)


def check_allocation(allocation: Allocation, count: int, *, rising: bool) -> None:
    """Checks that an allocation can run on `count` units.

    Raises:
        InputError: if a unit does not exist, or if the allocation must rise and does not.
    """
    if any(not 0 <= unit < count for unit in allocation):
        raise InputError(f"an allocation of units 0 to {count - 1} is required, not {allocation}")
    if rising and not _rises(allocation):
        raise InputError(
            "in scope 'decode' an allocation must be a rising subset of the layers, since the prompt has run each "
            f"layer once, in order; {allocation} repeats or reorders them: use scope 'sequence'"
        )


def as_masks(allocations: Seq[Allocation], units: int) -> Mask:
    """Rising allocations as booleans (A U)."""
    runs_AU = np.zeros((len(allocations), units), dtype=np.bool_)
    for row, allocation in enumerate(allocations):
        runs_AU[row, list(allocation)] = True
    return runs_AU


def _rises(allocation: Allocation) -> bool:
    return all(a < b for a, b in pairwise(allocation))
