"""What controllers are compared on: a run, its model, and its sequences with the full model's outputs."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

import analysis
from oracle.config import SearchConfig
from oracle.controllers.base import Controller, Output, Scored
from oracle.controllers.lessons import Lesson, Opened
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.metrics import agreement, get_metric, score_text
from oracle.models import LanguageModel
from oracle.pipeline.reload import model_of, spread, subjects_of
from oracle.store import Run
from oracle.types import Sequence
from oracle.utils.progress import Watch, note, silent

__all__ = ["Subject"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A run as a controller meets it.

    Attributes:
        run: the run.
        engine: runs its model under its settings.
        experiment: its evaluations, in layers.
        sequences: those that are looked at.
        lessons: the same with their prompts run, by id.
    """

    run: Run
    engine: Engine
    experiment: analysis.Experiment
    sequences: Seq[Sequence]
    lessons: dict[str, Lesson]

    @classmethod
    def open(
        cls, folder: Path | str, *, model: LanguageModel | None = None, limit: int | None = None, watch: Watch = silent
    ) -> Self:
        """Loads a run's model and runs its prompts.

        Args:
            folder: the run; its search has to have ended.
            model: the run's model, if it is loaded already.
            limit: sequences at most, spread evenly; None for all.
            watch: shows progress.

        Raises:
            InputError: if there are fewer than two sequences, or the run or the model are not what they have to be.
        """
        run = Run.open(folder)
        run.summary()  # or says that the search did not end
        found = subjects_of(run)
        chosen = spread(found, limit) if limit is not None else found
        if len(chosen) < 2:
            raise InputError(
                f"a comparison needs at least 2 sequences, some to learn from and some to judge by, not {len(chosen)}"
            )
        engine = Engine(model_of(run, model), SearchConfig.from_dict(run.manifest["config"]))
        note(watch, engine.model.headline())
        lessons = {}
        with watch("prompts", len(chosen)) as advance:
            for one in chosen:
                prompt = Opened.of(engine, one.sequence.prompt)
                lessons[one.sequence.id] = Lesson(id=one.sequence.id, prompt=prompt, tokens=one.tokens)
                advance(1, "")
        return cls(
            run=run,
            engine=engine,
            experiment=_only(analysis.load(folder, costs="layers"), list(lessons)),
            sequences=[one.sequence for one in chosen],
            lessons=lessons,
        )

    @property
    def units(self) -> int:
        """How many layers (or sublayers) there are."""
        return self.engine.units.count

    @property
    def metric(self) -> str:
        """The run's criterion."""
        return self.experiment.metric

    @property
    def ids(self) -> list[str]:
        """Of the sequences."""
        return [sequence.id for sequence in self.sequences]

    def quality(self, controller: Controller, sequences: Seq[Sequence], outputs: Seq[Output]) -> list[Scored]:
        """The run's metric of what a controller made of some sequences: of its outputs, or of texts that it read."""
        kind = get_metric(self.metric).kind
        if kind == "text":
            pairs = zip(sequences, outputs, strict=True)
            return [Scored(score_text(self.metric, output.text, one.references)) for one, output in pairs]
        if kind == "tokens":
            pairs = zip(sequences, outputs, strict=True)
            return [Scored(agreement(output.tokens, self.lessons[one.id].tokens)) for one, output in pairs]
        if kind == "likelihood":
            read = [self._read(controller, one, one.references) for one in sequences]
            return [max(scores, key=lambda score: score.value) for scores in read]
        read = [self._read(controller, one, one.choices) for one in sequences]
        return [_answered(scores, one.answer) for scores, one in zip(read, sequences, strict=True)]

    def _read(self, controller: Controller, sequence: Sequence, texts: Seq[str]) -> list[Scored]:
        tokenizer, prompt = self.engine.model.tokenizer, self.lessons[sequence.id].prompt
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return controller.score([prompt] * len(ids), ids)


def _answered(scores: Seq[Scored], answer: int | None) -> Scored:
    """Whether the likeliest choice is the right one; all are read, and cost what they cost on average."""
    chosen = int(np.argmax([score.value for score in scores]))
    cost, flops = (_mean([getattr(score, name) for score in scores]) for name in ("cost", "flops"))
    return Scored(float(chosen == answer), cost, flops)


def _mean(values: Seq[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _only(experiment: analysis.Experiment, ids: list[str]) -> analysis.Experiment:
    """The experiment of some of its sequences."""
    if len(ids) == len(experiment.sequences):
        return experiment
    rows = {
        name: table[table["sequence"].isin(ids)].reset_index(drop=True)
        for name, table in (("sequences", experiment.sequences), ("evaluations", experiment.evaluations))
    }
    return replace(experiment, sequences=rows["sequences"], evaluations=rows["evaluations"])
