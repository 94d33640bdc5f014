"""The training part of a run."""

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
        quality_table: quality per allocation and sequence.
        seed: seed of every random choice.
        checkpoint: file from which interrupted training continues; None for no checkpoints.
        watch: reports progress.
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
