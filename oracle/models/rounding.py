"""The rounding of this machine: how far logits move when the same tokens are computed in another way.

A matrix product rounds differently by processor, number of threads, height of the batch and even row of one batch, and
the layers of a network amplify the difference. Bits can be compared only between passes of identical shape, row and
position; everything else is compared within what is measured here, once, when a model is loaded.

Shapes: R rows, T tokens, V vocabulary.
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
random masks of all budgets. In 8,832 tokens the lead of the best token moved by up to 18 times the measured rounding,
in 99.9 % of them by less than 8 times, and few leads are that small to begin with: rounding is expected to turn round
one token in ten million unnoticed (at twice the multiple, one in 150 million for twice as many near-ties). Reported
allocations are verified on top of that.
"""

ROWS, TOKENS, HEIGHT = 4, 4, 23
"""Measured rows, their length, and the height of the batch that they are compared in."""


COARSE = 1e-6
"""Relative precision of a dtype above which the choices of experts turn round every few outputs."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """The largest difference of logits that batch height, row, padding and caching made.

    Attributes:
        logits: the largest difference between two ways to compute one logit, at least one unit in the last place of
            the largest logit.
        compared: number of positions compared, each with all of its logits.
        repeats: whether a pass gave the same bits when it was repeated.
        jumps: whether rounding may make logits jump by more than it is itself: layers that choose experts, in a dtype
            of low precision, choose others.
    """

    logits: float
    compared: int
    repeats: bool
    jumps: bool = False

    @property
    def near_tie(self) -> float:
        """Leads, in logits, up to which a token counts as a near-tie that rounding may turn round."""
        return math.inf if self.jumps else MULTIPLE * self.logits

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest; a threshold without limit is None."""
        return {**asdict(self), "multiple": MULTIPLE, "near_tie": None if self.jumps else self.near_tie}


class Passes(Protocol):
    """Runs some layers on tokens, see `Decoder.logits`."""

    def __call__(self, tokens_RT: Tensor, layers: Seq[int], *, padding: int = 0, pieces: int = 1) -> Tensor:
        """Logits (R T V)."""
        ...


def measure_rounding(passes: Passes, *, layers: int, vocabulary: int, device: torch.device, chooses: bool) -> Rounding:
    """Computes the logits of a few rows alone, in a tall padded batch, and token by token, and compares them.

    The full model and three skip masks are measured: models without some of their layers amplify rounding more.

    Args:
        passes: the model.
        layers: L.
        vocabulary: V, of the embedding.
        device: where the token ids must be.
        chooses: whether layers choose between experts.
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
    """All layers, every second one, the lower half, the upper half with the first."""
    every = list(range(layers))
    yield from (every, every[::2], every[: -(-layers // 2)], [0, *every[layers // 2 + 1 :]])
