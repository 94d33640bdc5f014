"""Input of a controller comparison: a run, its model, and its sequences with the full model's outputs."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Self

import analysis
from oracle.config import SearchConfig
from oracle.controllers.prompts import Example, Prompt
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.pipeline.prompts import rendered_anew
from oracle.pipeline.reload import model_of, require_same_decoding, searched_sequences, spread
from oracle.store import Run
from oracle.types import RunPath, Sequence
from oracle.utils.progress import Watch, note, silent

__all__ = ["RunContext"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContext:
    """A run with its model loaded and its prompts evaluated.

    Attributes:
        run: the run.
        engine: the run's model under the run's settings.
        experiment: its evaluations, with costs in layers.
        sequences: the selected sequences.
        examples: the same with their prompt states, by id.
    """

    run: Run
    engine: Engine
    experiment: analysis.Experiment
    sequences: Seq[Sequence]
    examples: dict[str, Example]

    @classmethod
    def open(
        cls, folder: RunPath, *, model: LanguageModel | None = None, limit: int | None = None, watch: Watch = silent
    ) -> Self:
        """Loads a run's model and runs its prompts.

        Args:
            folder: a run whose search has ended.
            model: the run's model, if already loaded.
            limit: maximum number of sequences, evenly spaced over the run; None for all.
            watch: reports progress.

        Raises:
            InputError: if there are fewer than two sequences, or the run or the model is not valid.
        """
        run = Run.open(folder)
        run.summary()  # raises if the search has not ended
        experiment = analysis.load(folder, costs="layers")
        found = searched_sequences(run, experiment.evaluations)
        chosen = spread(found, limit) if limit is not None else found
        if len(chosen) < 2:
            raise InputError(
                f"a comparison requires at least 2 sequences, but there are {len(chosen)}; "
                "give a larger --limit or search more sequences"
            )
        engine = Engine(model_of(run, model), SearchConfig.from_dict(run.manifest["config"]))
        require_same_decoding(engine, run.manifest)
        note(watch, engine.model.headline())
        if line := rendered_anew(run):
            note(watch, line)
        examples = {}
        with watch("prompts", len(chosen)) as advance:
            for one in chosen:
                prompt = Prompt.of(engine, one.sequence)
                examples[one.sequence.id] = Example(id=one.sequence.id, prompt=prompt, tokens=one.tokens)
                advance(1, "")
        return cls(
            run=run,
            engine=engine,
            experiment=experiment.only(examples),
            sequences=[one.sequence for one in chosen],
            examples=examples,
        )

    @property
    def units(self) -> int:
        """Number of units: layers or sublayers."""
        return self.engine.units.count

    @property
    def metric(self) -> str:
        """Name of the run's criterion metric."""
        return self.experiment.metric

    @property
    def ids(self) -> list[str]:
        """Ids of the sequences."""
        return [sequence.id for sequence in self.sequences]
