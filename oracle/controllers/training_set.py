"""The training part of a run: what a controller may learn from."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path

from oracle.controllers.prompts import Example
from oracle.controllers.quality_table import QualityTable
from oracle.utils.progress import Watch, silent

__all__ = ["TrainingSet"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSet:
    """The training part of a run; no controller is evaluated on the sequences it was trained on.

    Attributes:
        examples: the sequences.
        quality_table: qualities of allocations on them.
        seed: of every random choice.
        checkpoint: a file from which training goes on if it was interrupted; None for none.
        watch: shows progress.
    """

    examples: Seq[Example]
    quality_table: QualityTable
    seed: int = 0
    checkpoint: Path | None = None
    watch: Watch = silent

    @property
    def ids(self) -> list[str]:
        """Ids of the sequences."""
        return [example.id for example in self.examples]
