"""Controllers that neither learn nor look at the prompt: the same layers for everyone, or drawn by lot."""

import hashlib
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np

from oracle.allocations import early_exit, full, random_mask, unified
from oracle.controllers.base import SequenceController, TokenController
from oracle.controllers.prompts import Prompt
from oracle.engine import Engine
from oracle.engine.gates import Gate, TableGate
from oracle.errors import InputError
from oracle.types import Allocation

__all__ = ["DepthDecay", "EarlyExit", "Full", "RandomMask", "Unified", "decayed", "levels", "published_unified"]

FRACTIONS = (0.9, 0.75, 0.5)
"""Shares of the layers that a comparison tries."""

SPEEDUPS = (1.25, 1.5, 2.0, 5.0)

DECAYS = (0.995, 0.98, 0.95)
"""Rates of decay: after 32 tokens 85 %, 52 % and 19 % of the layers are left."""


def levels(layers: int) -> list[int]:
    """The budgets that a comparison tries, in layers, falling."""
    return sorted({round(share * layers) for share in FRACTIONS}, reverse=True)


def check_budget(budget: int, units: int) -> int:
    """The budget, if there are so many units.

    Raises:
        InputError: if there are not.
    """
    if not 0 <= budget <= units:
        raise InputError(f"a budget of 0 to {units} layers is required, but {budget} was given")
    return budget


class Full(SequenceController):
    """Every layer: what the others are measured against."""

    name = "full"

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """Every layer."""
        return [full(self.engine.units.count)] * len(prompts)


class Unified(SequenceController):
    """Evenly spread layers for a target speed-up (Liu et al. 2024, arXiv 2404.06954).

    Their cache policy, a skipped layer takes over the keys and values of the nearest lower one, makes no difference
    where all tokens skip the same layers: nobody attends to those.

    Args:
        engine: runs the model.
        speedup: full layers over kept ones, at least 1.
    """

    name = "unified"

    def __init__(self, engine: Engine, *, speedup: float) -> None:
        super().__init__(engine)
        self.kept = published_unified(engine.units.count, speedup)

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Speed-ups of 1.25 to 5."""
        return [{"speedup": speedup} for speedup in SPEEDUPS]

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The same layers for all."""
        return [self.kept] * len(prompts)


def published_unified(layers: int, speedup: float) -> Allocation:
    """The layers that unified skipping keeps for a target speed-up: n = int(L / speed-up) of them.

    Raises:
        InputError: if the speed-up is below 1 or no number.
    """
    if not 1 <= speedup < float("inf"):
        raise InputError(f"a speed-up of at least 1 is required, but {speedup} was given")
    return unified(layers, int(layers / speedup))


class EarlyExit(SequenceController):
    """The first layers only.

    Args:
        engine: runs the model.
        layers: how many.
    """

    name = "early-exit"

    def __init__(self, engine: Engine, *, layers: int) -> None:
        super().__init__(engine)
        self.kept = early_exit(engine.units.count, layers)

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Budgets from most of the layers to half of them."""
        return [{"layers": budget} for budget in levels(layers)]

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The same layers for all."""
        return [self.kept] * len(prompts)


class RandomMask(SequenceController):
    """A mask drawn for each prompt, fixed for its whole output; the same one whenever it is asked.

    Args:
        engine: runs the model.
        layers: how many run.
        seed: of the draw, together with the prompt.
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
        """A mask for each prompt."""
        return [self._draw(prompt.text) for prompt in prompts]

    def _draw(self, text: str) -> Allocation:
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(digest)])
        return random_mask(self.engine.units.count, self.budget, rng)


class DepthDecay(TokenController):
    """Position-aware depth decay: the later a token, the fewer layers (D3, Fan et al. 2025, arXiv 2503.08524).

    Args:
        engine: runs the model.
        alpha: rate of decay, above 0 and at most 1.
    """

    name = "d3"

    def __init__(self, engine: Engine, *, alpha: float) -> None:
        super().__init__(engine)
        if not 0 < alpha <= 1:
            raise InputError(f"a decay above 0 and at most 1 is required, but {alpha} was given")
        self.alpha = alpha

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """Decays that leave most, half and a fifth of the layers at token 32."""
        return [{"alpha": alpha} for alpha in DECAYS]

    def gate(self, prompts: Seq[Prompt]) -> Gate:
        """One table for all. What a token skips every later one skips too, so that nobody misses its states."""
        layers, tokens = self.engine.units.count, self.engine.config.max_new_tokens
        # The first generated token comes out of the prompt's pass; feeding token i produces token i + 1.
        table_TL = np.zeros((tokens, layers), dtype=np.bool_)
        for place in range(tokens):
            table_TL[place, list(decayed(layers, int(layers * self.alpha ** (place + 1))))] = True
        return TableGate([table_TL] * len(prompts), policy="omit")


def decayed(layers: int, budget: int) -> Allocation:
    """The first and the last layers, as many of each (one more of the first): the middle is left out.

    At least the first and the last one stay.
    """
    kept = min(layers, max(budget, 2))
    return (*range(kept - kept // 2), *range(layers - kept // 2, layers))
