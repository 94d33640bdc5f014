"""Decoding speed of a controller, timed in turns with the full model."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from itertools import cycle, islice

from oracle.config import SearchConfig
from oracle.controllers.base import Controller
from oracle.controllers.methods.fixed import Full
from oracle.controllers.prompts import Prompt
from oracle.engine import FixedLengthEngine
from oracle.models import LanguageModel

__all__ = ["BATCHES", "Speed", "Stopwatch"]

ROUNDS = {1: 2, 8: 1, 32: 1}
"""Batch size to number of timed rounds; the fastest round counts, because other load on the machine only slows it."""

BATCHES = tuple(ROUNDS)

NEW_TOKENS = 8
"""Tokens of every timed output; the first one comes from the prompt's pass and is not counted."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One speed measurement.

    Attributes:
        batch: number of prompts decoded together.
        tokens_per_second: generated tokens per second; includes decisions, excludes the prompts' passes.
        full: the full model's tokens per second, measured in turns.
        fraction: mean fraction of layers that ran while timed.
    """

    batch: int
    tokens_per_second: float
    full: float
    fraction: float


class Stopwatch:
    """Times controllers on the same prompts.

    Args:
        model: the model.
        config: the run's settings.
        prompts: prompts to decode; repeated to fill larger batches.
    """

    def __init__(self, model: LanguageModel, config: SearchConfig, prompts: Seq[Prompt]) -> None:
        self._engine = FixedLengthEngine(model, replace(config, max_new_tokens=NEW_TOKENS))
        self._prompts = prompts
        self._full = Full(self._engine)

    def measure(self, controller: Controller) -> list[Speed]:
        """Measures tokens per second at each batch size."""
        timed, found = controller.on(self._engine), []
        for batch, rounds in ROUNDS.items():
            prompts = list(islice(cycle(self._prompts), batch))
            pairs = [(self._rate(self._full, prompts), self._rate(timed, prompts)) for _ in range(rounds)]
            full, own = (max(each) for each in zip(*pairs, strict=True))
            found.append(Speed(batch=batch, tokens_per_second=own[0], full=full[0], fraction=own[1]))
        return found

    def _rate(self, controller: Controller, prompts: Seq[Prompt]) -> tuple[float, float]:
        """Tokens per second, and the fraction of the layers that ran."""
        outputs = controller.generate([prompt.timing_copy(self._engine) for prompt in prompts])
        tokens = sum(len(output.tokens) - 1 for output in outputs)
        fraction = sum(output.fraction for output in outputs) / len(outputs)
        return tokens / sum(output.seconds for output in outputs), fraction
