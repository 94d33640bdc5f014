"""Controllers without training that do not use the prompt's content: fixed or random masks."""

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np

from oracle.allocations import early_exit, full, published_unified, random_mask, skip_decode
from oracle.controllers.base import SequenceController, TokenController
from oracle.controllers.prompts import Prompt, digest
from oracle.engine import Engine
from oracle.engine.gates import Gate, TableGate
from oracle.errors import InputError
from oracle.types import Allocation

__all__ = [
    "DepthDecay",
    "EarlyExit",
    "FixedMask",
    "Full",
    "RandomMask",
    "SkipDecode",
    "Unified",
    "decayed",
    "levels",
]

FRACTIONS = (0.9, 0.75, 0.5)
"""Fractions of the layers that a comparison tries."""

SPEEDUPS = (1.25, 1.5, 2.0, 5.0)

DECAYS = (0.995, 0.98, 0.95)
"""Decay rates: after 32 tokens 85 %, 52 % and 19 % of the layers remain."""


def levels(layers: int) -> list[int]:
    """Budgets that a comparison tries, in layers, from high to low."""
    return sorted({round(share * layers) for share in FRACTIONS}, reverse=True)


def check_budget(budget: int, units: int) -> int:
    """Returns the budget if it is between 0 and `units`.

    Raises:
        InputError: otherwise.
    """
    if not 0 <= budget <= units:
        raise InputError(f"a budget of 0 to {units} layers is required, but {budget} was given")
    return budget


class FixedMask(SequenceController):
    """The same mask for every prompt."""

    kept: Allocation | None = None

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The same layers for every prompt."""
        if self.kept is None:
            raise self._not_fitted()
        return [self.kept] * len(prompts)


class Full(SequenceController):
    """Every layer: the reference of a comparison."""

    name = "full"

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """Every layer."""
        return [full(self.engine.units.count)] * len(prompts)


class Unified(FixedMask):
    """Evenly spaced layers for a target speed-up (Liu et al. 2024, arXiv 2404.06954).

    Zero-shot: the published numbers are of models fine-tuned with the mask for two epochs, these are not. Their cache
    policy, which copies a skipped layer's keys and values from the nearest lower layer, has no effect because
    all tokens skip the same layers and none attends to those keys.

    Args:
        engine: runs the model.
        speedup: number of layers over number of kept layers, at least 1.
    """

    name = "unified"

    def __init__(self, engine: Engine, *, speedup: float) -> None:
        super().__init__(engine)
        self.kept = published_unified(engine.units.count, speedup)

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Speed-ups of 1.25 to 5."""
        return [{"speedup": speedup} for speedup in SPEEDUPS]


class EarlyExit(FixedMask):
    """The first layers only.

    Args:
        engine: runs the model.
        layers: number of layers that run.
    """

    name = "early-exit"

    def __init__(self, engine: Engine, *, layers: int) -> None:
        super().__init__(engine)
        self.kept = early_exit(engine.units.count, layers)

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets from most of the layers to half of them."""
        return [{"layers": budget} for budget in levels(layers)]


class RandomMask(SequenceController):
    """One random mask per prompt, fixed for its whole output and determined by seed and prompt.

    Args:
        engine: runs the model.
        layers: number of layers that run.
        seed: seed of the draw, combined with the prompt.
    """

    name = "random"

    def __init__(self, engine: Engine, *, layers: int, seed: int = 0) -> None:
        super().__init__(engine)
        self.budget, self.seed = check_budget(layers, engine.units.count), seed

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets from most of the layers to half of them."""
        return [{"layers": budget} for budget in levels(layers)]

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """One random mask per prompt."""
        return [self._draw(prompt.text) for prompt in prompts]

    def _draw(self, text: str) -> Allocation:
        rng = np.random.default_rng([self.seed, digest(text)])
        return random_mask(self.engine.units.count, self.budget, rng)


class SkipDecode(TokenController):
    """One budget per token position, falling with the position (SkipDecode, arXiv 2307.02628; see `skip_decode`).

    Zero-shot: the published numbers are of models trained for it. The prompt runs at full depth, as elsewhere here.

    Args:
        engine: runs the model.
        speedup: number of layers over the mean budget of a full-length output, at least 1; shorter outputs run more.
    """

    name = "skipdecode"

    def __init__(self, engine: Engine, *, speedup: float) -> None:
        super().__init__(engine)
        # The first generated token comes from the prompt's pass.
        fed = max(1, engine.config.max_new_tokens - 1)
        self._table_TL = np.zeros((fed, engine.units.count), dtype=np.bool_)
        for row, allocation in zip(self._table_TL, skip_decode(engine.units.count, speedup, fed), strict=True):
            row[list(allocation)] = True

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """The speed-ups of unified skipping."""
        return Unified.sweep(layers)

    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """The same table for all prompts; later tokens skip what a token skips, so its missing states are not read."""
        return TableGate([self._table_TL] * len(prompts), policy="omit")


class DepthDecay(TokenController):
    """Position-aware depth decay: later tokens run fewer layers (D3, Fan et al. 2025, arXiv 2503.08524).

    Args:
        engine: runs the model.
        alpha: decay rate, above 0 and at most 1.
    """

    name = "d3"

    def __init__(self, engine: Engine, *, alpha: float) -> None:
        super().__init__(engine)
        if not 0 < alpha <= 1:
            raise InputError(f"a decay above 0 and at most 1 is required, but {alpha} was given")
        self.alpha = alpha

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Decay rates that leave most, half and a fifth of the layers at token 32."""
        return [{"alpha": alpha} for alpha in DECAYS]

    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """The same table for all prompts; later tokens skip what a token skips, so its missing states are not read."""
        layers, tokens = self.engine.units.count, self.engine.config.max_new_tokens
        # The first generated token comes from the prompt's pass; feeding token i produces token i + 1.
        table_TL = np.zeros((tokens, layers), dtype=np.bool_)
        for place in range(tokens):
            table_TL[place, list(decayed(layers, int(layers * self.alpha ** (place + 1))))] = True
        return TableGate([table_TL] * len(prompts), policy="omit")


def decayed(layers: int, budget: int) -> Allocation:
    """First and last layers in equal number (an odd one goes to the first); at least one of each."""
    kept = min(layers, max(budget, 2))
    return (*range(kept - kept // 2), *range(layers - kept // 2, layers))
