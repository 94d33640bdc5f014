"""How fast a controller decodes, beside the full model in the same run."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from itertools import cycle, islice

from oracle.config import SearchConfig
from oracle.controllers.base import Controller
from oracle.controllers.methods.fixed import Full
from oracle.controllers.prompts import Prompt
from oracle.engine import Engine
from oracle.engine.decode import Settings
from oracle.models import LanguageModel

__all__ = ["BATCHES", "Speed", "Steady", "Stopwatch"]

ROUNDS = {1: 2, 8: 1, 32: 1}
"""Batches, and how often each is timed: small ones are over soon. The fastest round counts, for others only slow it."""

BATCHES = tuple(ROUNDS)

NEW_TOKENS = 8
"""Tokens of every timed output; the first one comes out of the prompt's pass and is not counted."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One measurement.

    Attributes:
        batch: prompts decoded together.
        tokens_per_second: generated tokens, decisions included and the prompts' passes left out.
        full: the same of the full model, measured in turns with it.
        fraction: of the layers that ran meanwhile.
    """

    batch: int
    tokens_per_second: float
    full: float
    fraction: float


class Steady(Engine):
    """An engine whose outputs have one length, so that a batch stays whole, and where near-ties do not matter."""

    def _settings(self, rows: int) -> Settings:
        return replace(super()._settings(rows), stop=frozenset(), tie=-1.0)


class Stopwatch:
    """Times controllers on the same prompts.

    Args:
        model: the model.
        config: of the run.
        prompts: as many as there are; they are repeated where a batch has more.
    """

    def __init__(self, model: LanguageModel, config: SearchConfig, prompts: Seq[Prompt]) -> None:
        self._engine = Steady(model, replace(config, max_new_tokens=NEW_TOKENS))
        self._prompts = prompts
        self._full = Full(self._engine)

    def measure(self, controller: Controller) -> list[Speed]:
        """Tokens a second at each batch."""
        timed, found = controller.on(self._engine), []
        for batch, rounds in ROUNDS.items():
            prompts = list(islice(cycle(self._prompts), batch))
            pairs = [(self._rate(self._full, prompts), self._rate(timed, prompts)) for _ in range(rounds)]
            full, own = (max(each) for each in zip(*pairs, strict=True))
            found.append(Speed(batch=batch, tokens_per_second=own[0], full=full[0], fraction=own[1]))
        return found

    def _rate(self, controller: Controller, prompts: Seq[Prompt]) -> tuple[float, float]:
        """Tokens a second, and the fraction of the layers that ran."""
        outputs = controller.generate([prompt.forgetful(self._engine) for prompt in prompts])
        tokens = sum(len(output.tokens) - 1 for output in outputs)
        fraction = sum(output.fraction for output in outputs) / len(outputs)
        return tokens / sum(output.seconds for output in outputs), fraction
