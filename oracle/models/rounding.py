"""Rounding of this machine: the largest change of logits between equivalent computations.

Matrix products round differently by processor, thread count, batch height and even row within a batch, and the layers
amplify the difference. Only passes of identical shape, row and position can be compared bit for bit; everything else is
compared within the rounding measured here, once, when a model is loaded.
"""

import math
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["MULTIPLE", "Rounding", "measure_rounding"]

MULTIPLE = 8.0
"""Near-tie threshold in units of the measured rounding.

Chosen with `tests/benchmarks/rounding.py`, which compares batched and single decoding of the embedded model under
random masks of all budgets. Over 8,832 tokens the lead of the best token moved by up to 18 times the measured rounding,
and by less than 8 times for 99.9 % of them; few leads are that small. Expected undetected flips: one token in ten
million (at twice the multiple, one in 150 million for twice as many near-ties). Reported allocations are also verified.
"""

ROWS, TOKENS, HEIGHT = 4, 4, 23
"""Number of measured rows, their length in tokens, and the height of the batch they are compared in."""

COARSE = 1e-6
"""Relative precision of a dtype above which expert choices flip every few outputs."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Largest difference of logits caused by batch height, row, padding and caching.

    Attributes:
        logits: largest difference between two computations of one logit, at least one unit in the last place of the
            largest logit.
        compared: number of positions compared, each with all of its logits.
        repeats: whether repeating a pass gave the same bits.
        jumps: whether rounding can change logits by more than `logits`: in a low-precision dtype it flips the choice
            of experts.
    """

    logits: float
    compared: int
    repeats: bool
    jumps: bool = False

    @property
    def near_tie(self) -> float:
        """Near-tie threshold in logits: leads up to it may be flipped by rounding."""
        return math.inf if self.jumps else MULTIPLE * self.logits

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a manifest; an infinite threshold is None."""
        return {**asdict(self), "multiple": MULTIPLE, "near_tie": None if self.jumps else self.near_tie}


class Passes(Protocol):
    """Runs layers on tokens; see `Decoder.logits`."""

    def __call__(self, tokens_RT: Tensor, layers: Seq[int], *, padding: int = 0, pieces: int = 1) -> Tensor:
        """Logits (R T V)."""
        ...


def measure_rounding(passes: Passes, *, layers: int, vocabulary: int, device: torch.device, chooses: bool) -> Rounding:
    """Measures rounding: compares logits of a few rows computed alone, in a tall padded batch, and token by token.

    Covers the full model and three skip masks, because models with skipped layers amplify rounding more.

    Args:
        passes: the model.
        layers: L.
        vocabulary: V, of the embedding.
        device: device of the token ids.
        chooses: whether layers select experts.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int, tokens: int) -> Tensor:
        return torch.randint(vocabulary, (rows, tokens), generator=generator).to(device)

    tokens_RT, above, below = draw(ROWS, TOKENS), draw(HEIGHT - ROWS - 3, TOKENS), draw(3, TOKENS)
    tall = torch.cat([above, tokens_RT.flip(0), below])
    padded = torch.cat([draw(len(tall), 1), tall], dim=1)
    rows = slice(len(above), len(above) + ROWS)
    largest, scale, repeats, compared = 0.0, 0.0, True, 0
    for mask in _masks(layers):
        alone = torch.cat([passes(row[None], mask) for row in tokens_RT])
        first = passes(tokens_RT[:1], mask)
        others = (
            passes(padded, mask, padding=1)[rows, 1:].flip(0),
            passes(tokens_RT, mask),
            passes(tokens_RT[:1], mask, pieces=TOKENS),
        )
        repeats &= torch.equal(first, alone[:1])
        scale = max(scale, float(alone.abs().max()))
        for other in others:
            largest = max(largest, float((other.float() - alone[: len(other)].float()).abs().max()))
            compared += other.shape[0] * other.shape[1]
    precision = torch.finfo(alone.dtype).eps
    return Rounding(
        logits=max(largest, precision * scale),
        compared=compared,
        repeats=repeats,
        jumps=chooses and precision > COARSE,
    )


def _masks(layers: int) -> Iterator[list[int]]:
    """All layers; every second one; the lower half; the first plus the upper half."""
    every = list(range(layers))
    yield from (every, every[::2], every[: -(-layers // 2)], [0, *every[layers // 2 + 1 :]])
