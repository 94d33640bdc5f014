"""What stands between the units while some tokens run an allocation.

Shapes: S states (before the first execution and after each), U units, T tokens, D hidden width.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from oracle.errors import InputError
from oracle.types import Allocation

__all__ = ["States", "Trace"]


class Trace:
    """The states of some tokens under an allocation. Nothing is read or computed until it is asked for.

    Attributes:
        allocation: the units that ran on these tokens.
        units: U.
    """

    def __init__(self, allocation: Allocation, units: int, read: Callable[[slice], Tensor]) -> None:
        self.allocation = allocation
        self.units = units
        self._read = read

    def executed(self) -> Tensor:
        """The states before the first execution and after each (S T D)."""
        return self._read(slice(None))

    def after(self, depth: int) -> Tensor:
        """The state after so many of the model's units, skipped ones included (T D); 0 is that of the embeddings.

        One read of just that state, if it is stored.
        """
        if not 0 <= depth <= self.units:
            raise InputError(f"a depth of 0 to {self.units} units is required, not {depth}")
        place = self._place(depth)
        return self._read(slice(place, place + 1))[0]

    def every(self) -> Tensor:
        """The states before the first unit and after each, one that is skipped leaving them as they are (U+1 T D)."""
        return self._read(slice(None))[[self._place(depth) for depth in range(self.units + 1)]]

    def _place(self, depth: int) -> int:
        if list(self.allocation) != sorted(set(self.allocation)):
            raise InputError(f"states by depth need a rising allocation, not {self.allocation}; see `executed`")
        return bisect_left(self.allocation, depth)


@dataclass(frozen=True, kw_only=True)
class States:
    """The states of a sequence under an allocation.

    Attributes:
        prompt: of the prompt's tokens; in scope `decode` under the full allocation.
        generated: of the tokens after it, under the allocation.
    """

    prompt: Trace
    generated: Trace
