"""Rounding of this machine: the largest change of logits between equivalent computations.

Matrix products round differently by processor, thread count, batch height and even row within a batch, and the layers
amplify the difference. Only passes of identical shape, row and position can be compared bit for bit; everything else is
compared within the rounding measured here when a model is loaded: in full once per model and machine, and afterwards
as far as it takes to see that the machine rounds as before.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from oracle.utils.process_pool import forked_map

__all__ = ["MULTIPLE", "Kept", "Rounding", "measure_rounding"]

MULTIPLE = 8.0
"""Near-tie threshold in units of the measured rounding.

Chosen with `tests/benchmarks/rounding.py`, which compares batched and single decoding of the embedded model under
random masks of all budgets. Over 8,832 tokens the lead of the best token moved by up to 18 times the measured rounding,
and by less than 8 times for 99.9 % of them; few leads are that small. Expected undetected flips: one token in ten
million (at twice the multiple, one in 150 million for twice as many near-ties). Reported allocations are also verified.
"""

MULTIPLE_IN_BATCHES = 4.0
"""The same for batches with their own products, whose rounding is measured against the library's.

Over 4,416 tokens (`tests/benchmarks/rounding.py --products own`) the lead moved by up to 2.4 times the measured
rounding.
"""

UNITS, SHARE = 32, 0.05
"""Change of a layer's median result, in units in the last place and at most this share of it, above which other rows of
the batch cause it rather than rounding.

Of use where bits cannot be compared: in a mixture of experts other rows change the heights of the experts' products
too. Rounding changed the results of such layers by up to 3 units in float32, float16 and bfloat16; an expert whose
room is taken by other rows changed them by 15 to 190 in float16. In bfloat16 the share decides: an expert that adds
less than 5 % to its layer's result is not told from rounding there.
"""

ROWS, TOKENS, HEIGHT = 4, 4, 23
"""Number of measured rows, their length in tokens, and the height of the batch they are compared in."""

OTHERS = 8
"""Height of the batches in which only the other rows change."""

COARSE = 1e-6
"""Relative precision of a dtype above which expert choices flip every few outputs."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Largest difference of logits caused by batch height, row, padding and caching.

    Attributes:
        logits: largest difference between two computations of one logit, at least one unit in the last place of the
            largest logit.
        batches: the same for batches with their own products (`oracle.models.batch_products`); `logits` without.
        compared: number of positions compared, each with all of its logits.
        repeats: whether repeating a pass gave the same bits.
        jumps: whether rounding can change logits by more than `logits`: in a low-precision dtype it flips the choice
            of experts.
        interact: whether the rows of a batch influence each other by more than rounding (8-bit products that choose
            their columns by the whole batch, experts of limited capacity); then every batch has one row.
    """

    logits: float
    batches: float
    compared: int
    repeats: bool
    jumps: bool = False
    interact: bool = False

    @property
    def near_tie(self) -> float:
        """Near-tie threshold in logits: leads up to it may be flipped by rounding."""
        return math.inf if self.jumps or self.interact else MULTIPLE * self.logits

    @property
    def near_tie_in_batches(self) -> float:
        """The same for batches with their own products."""
        return math.inf if math.isinf(self.near_tie) else MULTIPLE_IN_BATCHES * self.batches

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a manifest; an infinite threshold is None."""
        return {**asdict(self), "multiple": MULTIPLE, "near_tie": None if math.isinf(self.near_tie) else self.near_tie}


class LastRows(Protocol):
    """Runs all layers on batches with the same last row; see `Decoder.last_rows`."""

    def __call__(self, batches: Seq[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of results for the last row (T D): in the first batch, and in another one."""
        ...


class Kept(Protocol):
    """JSON value that one process keeps for the next."""

    def read(self) -> Any:
        """The value; None if there is none."""
        ...

    def write(self, value: Any) -> None:
        """Keeps a value."""
        ...


class Passes(Protocol):
    """Runs layers on tokens; see `Decoder.logits`."""

    def __call__(
        self, tokens_RT: Tensor, layers: Seq[int], *, padding: int = 0, pieces: int = 1, batched: bool = False
    ) -> Tensor:
        """Logits (R T V)."""
        ...


def measure_rounding(
    passes: Passes,
    last_rows: LastRows,
    *,
    layers: int,
    vocabulary: int,
    device: torch.device,
    chooses: bool,
    padding: int = 1,
    products: bool = False,
    processes: int = 1,
    kept: Kept | None = None,
) -> Rounding:
    """Measures rounding: compares logits of a few rows computed alone, in a tall padded batch, and token by token.

    Covers the full model and three skip masks, because models with skipped layers amplify rounding more. What was kept
    of an earlier measurement is taken over if one of the masks, measured again, gives the same bits.

    Args:
        passes: the model.
        last_rows: the model, layer by layer.
        layers: L.
        vocabulary: V, of the embedding.
        device: device of the token ids.
        chooses: whether layers select experts.
        padding: number of masked tokens before the rows of the tall batch, 0 or 1.
        products: whether batches have products of their own.
        processes: number of forked processes, which share the measurements; 1 for this process. The result is the same.
        kept: the measurement that an earlier process kept, and where this one keeps its own; None for neither.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int, tokens: int) -> Tensor:
        return torch.randint(vocabulary, (rows, tokens), generator=generator).to(device)

    tokens_RT, above, below = draw(ROWS, TOKENS), draw(HEIGHT - ROWS - 3, TOKENS), draw(3, TOKENS)
    tall = torch.cat([above, tokens_RT.flip(0), below])
    padded = torch.cat([draw(len(tall), 1)[:, :padding], tall], dim=1)
    rows = slice(len(above), len(above) + ROWS)

    def measure(mask: list[int]) -> _Measured:
        alone = torch.cat([passes(row[None], mask) for row in tokens_RT])
        first = passes(tokens_RT[:1], mask)

        def tall(*, batched: bool) -> list[Tensor]:
            below = passes(padded, mask, padding=padding, batched=batched)
            return [below[rows, padding:].flip(0), passes(tokens_RT, mask, batched=batched)]

        def largest(others: Seq[Tensor]) -> float:
            return max([0.0, *(float((one.float() - alone[: len(one)].float()).abs().max()) for one in others)])

        others = [*tall(batched=False), passes(tokens_RT[:1], mask, pieces=TOKENS)]
        own = tall(batched=True) if products else []
        return _Measured(
            largest=largest(others),
            batched=largest(own),
            scale=float(alone.abs().max()),
            repeats=torch.equal(first, alone[:1]),
            compared=sum(one.shape[0] * one.shape[1] for one in others),
            precision=torch.finfo(alone.dtype).eps,
            bits=_digest([alone, *others, *own]),
        )

    row_T = tokens_RT[-1:]
    # Where all rows are equal, they fill the experts that this row chooses.
    batches = [torch.cat([draw(OTHERS - 1, TOKENS), row_T]) for _ in range(3)] + [row_T.repeat(OTHERS, 1)]

    def influences(exact: bool) -> bool:
        return any(_influenced(first, other, exact=exact) for first, other in last_rows(batches))

    masks = list(_masks(layers))
    earlier = None if kept is None else _Measurement.of(kept.read(), len(masks))
    if earlier is not None and measure(masks[-1]) == earlier.masks[-1]:
        return earlier.rounding(chooses=chooses)
    # The longest first. Whether passes repeat is known only afterwards; mostly they do.
    tasks: list[Callable[[], _Measured | bool]] = [
        partial(measure, masks[0]),
        partial(influences, not chooses),
        *(partial(measure, mask) for mask in masks[1:]),
    ]
    done = dict(forked_map(lambda task: task(), tasks, processes))
    measured = tuple(one for _, one in sorted(done.items()) if isinstance(one, _Measured))
    interact = any(one is True for one in done.values())
    if not (chooses or all(one.repeats for one in measured)):
        interact = influences(exact=False)
    found = _Measurement(masks=measured, interact=interact)
    if kept is not None:
        kept.write(asdict(found))
    return found.rounding(chooses=chooses)


def _influenced(first_TD: Tensor, other_TD: Tensor, *, exact: bool) -> bool:
    """Whether two results for one row differ: by a bit if `exact`, else by more than rounding at any token."""
    if exact or torch.equal(first_TD, other_TD):
        return not torch.equal(first_TD, other_TD)
    allowed = min(UNITS * torch.finfo(first_TD.dtype).eps, SHARE)
    change_T = (other_TD.float() - first_TD.float()).abs().median(-1).values
    return bool((change_T > allowed * first_TD.float().abs().median(-1).values).any())


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """Measurements with one mask, and the digest of all logits that were compared."""

    largest: float
    batched: float
    scale: float
    repeats: bool
    compared: int
    precision: float
    bits: str


def _digest(logits: Seq[Tensor]) -> str:
    digest = hashlib.sha256()
    for one in logits:
        digest.update(one.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class _Measurement:
    """Measurements with all masks, and whether the rows of a batch influence each other."""

    masks: tuple[_Measured, ...]
    interact: bool

    @classmethod
    def of(cls, kept: Any, masks: int) -> "_Measurement | None":
        """What was kept as JSON; None if it is not the measurement of so many masks."""
        try:
            found = cls(masks=tuple(_Measured(**one) for one in kept["masks"]), interact=kept["interact"])
        except (KeyError, TypeError):
            return None
        return found if len(found.masks) == masks else None

    def rounding(self, *, chooses: bool) -> Rounding:
        """The largest differences over all masks."""
        precision = self.masks[0].precision
        logits = max(*(one.largest for one in self.masks), precision * max(one.scale for one in self.masks))
        return Rounding(
            logits=logits,
            batches=max(logits, *(one.batched for one in self.masks)),
            compared=sum(one.compared for one in self.masks),
            repeats=all(one.repeats for one in self.masks),
            jumps=chooses and precision > COARSE,
            interact=self.interact,
        )


def _masks(layers: int) -> Iterator[list[int]]:
    """All layers; every second one; the lower half; the first plus the upper half."""
    every = list(range(layers))
    yield from (every, every[::2], every[: -(-layers // 2)], [0, *every[layers // 2 + 1 :]])
