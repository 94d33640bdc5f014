"""Under which conditions a cost is meant."""

from dataclasses import dataclass
from typing import get_args

from oracle.config import Unit
from oracle.errors import InputError

__all__ = ["Conditions"]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a generated token finds, and how often its time is taken.

    Attributes:
        unit: what allocations are made of: `layer`, or `sublayer` (attention and MLP apart).
        context: tokens that a generated token attends to, itself included.
        batch: sequences that are decoded together.
        rounds: how often everything is timed.
    """

    unit: Unit = "layer"
    context: int = 128
    batch: int = 1
    rounds: int = 30

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise InputError(f"--unit needs one of {', '.join(get_args(Unit))}, not '{self.unit}'")
        for name in ("context", "batch", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} needs at least 1, not {getattr(self, name)}")

    def check_fits(self, longest: int | None) -> None:
        """Makes sure that a model takes inputs of this length.

        Args:
            longest: the model's context in tokens; None where it names none.

        Raises:
            InputError: if it does not.
        """
        if longest is not None and self.context > longest:
            raise InputError(f"--context needs at most the model's {longest} tokens, not {self.context}")
