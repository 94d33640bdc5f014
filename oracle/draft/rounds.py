"""Rounds of draft and verification, played from accepted lengths that are known beforehand; and bounds on them.

Prefix i is the state in which i output tokens are verified. The prompt gives token 1, so rounds begin at prefix 1. A
round drafts g tokens, of which a are accepted, and its verification gives one token more. In shapes, X is prefixes.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Length", "Played", "Times", "break_even", "fewest_rounds", "least_ms", "play"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Length:
    """The length of an output.

    Attributes:
        tokens: number of output tokens, the stop token included.
        limit: maximum number of output tokens.
        ended: whether a stop ended it.
    """

    tokens: int
    limit: int
    ended: bool


@dataclass(frozen=True, kw_only=True)
class Times:
    """The cost model of draft and verification at batch 1, in ms.

    Attributes:
        layers: of each whole layer, per draft token.
        attention: of each attention alone; None if it cannot be skipped apart.
        mlp: of each MLP alone; None likewise.
        overhead: per draft token under every mask: embedding, final norm, vocabulary head.
        verify: of full-depth passes over 1, 2, ... tokens, never falling; the first is a plain token.
    """

    layers: tuple[float, ...]
    attention: tuple[float, ...] | None
    mlp: tuple[float, ...] | None
    overhead: float
    verify: tuple[float, ...]

    @property
    def token(self) -> float:
        """A token of plain decoding."""
        return self.verify[0]

    def draft(self, mask_U: NDArray[np.bool_]) -> float:
        """One draft token of a mask over sublayers."""
        attention_L, mlp_L = mask_U[::2], mask_U[1::2]
        total = self.overhead + float(np.array(self.layers)[attention_L & mlp_L].sum())
        for alone_L, costs in ((attention_L & ~mlp_L, self.attention), (mlp_L & ~attention_L, self.mlp)):
            if alone_L.any():
                assert costs is not None, "attention and MLP have no costs of their own"
                total += float(np.array(costs)[alone_L].sum())
        return total


@dataclass(frozen=True, kw_only=True)
class Played:
    """The rounds of one output.

    Attributes:
        known_R: verified tokens when each round began.
        drafted_R: its draft tokens.
        accepted_R: those of them that were accepted.
        tokens: output tokens after the first.
    """

    known_R: NDArray[np.int64]
    drafted_R: NDArray[np.int64]
    accepted_R: NDArray[np.int64]
    tokens: int

    def ms(self, draft_ms: float | Seq[float], times: Times) -> float:
        """Expected time; `draft_ms` of a draft token, or per prefix where masks differ."""
        per_prefix = np.asarray(draft_ms, dtype=np.float64)
        per_round = per_prefix[self.known_R - 1] if per_prefix.ndim else per_prefix
        return float((self.drafted_R * per_round).sum() + np.array(times.verify)[self.drafted_R].sum())


def play(lengths_X: Seq[int] | NDArray[np.int16], length: Length, draft: int) -> Played:
    """The rounds of greedy decoding with drafts of a fixed length.

    Exact for the drafts that were accepted. A draft that goes wrong is counted at its full length, although it may end
    itself before, with a stop of its own.

    Args:
        lengths_X: accepted tokens per prefix, of drafts at least as long.
        length: of the output.
        draft: draft length; 0 is plain decoding.
    """
    rounds: list[tuple[int, int, int]] = []
    known = 1
    while known < length.tokens:
        drafted = min(draft, length.limit - known - 1)
        accepted = min(int(lengths_X[known - 1]), drafted)
        if length.ended and known + accepted == length.tokens:
            drafted = accepted  # the draft ends at the stop that it drafted
        rounds.append((known, drafted, accepted))
        known += accepted + 1
    known_R, drafted_R, accepted_R = np.array(rounds, dtype=np.int64).reshape(-1, 3).T
    return Played(known_R=known_R, drafted_R=drafted_R, accepted_R=accepted_R, tokens=length.tokens - 1)


def least_ms(lengths_MX: NDArray[np.int16], draft_ms_M: Floats, times: Times) -> Floats:
    """Lower bounds (M) on the time of the rounds of some masks, whatever decides how much is drafted.

    The cheapest rounds are found by dynamic programming over prefixes, with draft lengths free to differ: each round
    drafts just what is accepted, or less. No rounds of the mask are cheaper: drafting more than is accepted only costs,
    and the times of verification never fall.

    Args:
        lengths_MX: accepted tokens of each mask at each prefix (near-ties count as accepted).
        draft_ms_M: time of a draft token.
        times: of verification.
    """
    return _cheapest(lengths_MX, draft_ms_M, np.array(times.verify))


def fewest_rounds(lengths_MX: NDArray[np.int16]) -> NDArray[np.int64]:
    """Lower bounds (M) on the number of rounds, in the same way."""
    most = int(lengths_MX.max(initial=0))
    return np.rint(_cheapest(lengths_MX, np.zeros(len(lengths_MX)), np.ones(most + 1))).astype(np.int64)


def _cheapest(lengths_MX: NDArray[np.int16], draft_M: Floats, verify: Floats) -> Floats:
    """Least cost of reaching the end: best[i] = min over a of a draft + verify(a + 1) + best[i + a + 1]."""
    M, X = lengths_MX.shape
    best_MX = np.zeros((M, X + 1))
    for place in range(X - 1, -1, -1):
        cost_M = verify[0] + best_MX[:, place + 1]
        # The last token comes from the verification, so that at most X - place - 1 are drafted.
        for count in range(1, min(int(lengths_MX[:, place].max(initial=0)), X - place - 1) + 1):
            more_M = count * draft_M + verify[count] + best_MX[:, place + count + 1]
            cost_M = np.where(lengths_MX[:, place] >= count, np.minimum(cost_M, more_M), cost_M)
        best_MX[:, place] = cost_M
    return best_MX[:, 0]


def break_even(played: Seq[Played], verify: Seq[float]) -> float | None:
    """The cost of a draft token, in plain tokens, at which drafting is as fast as plain decoding.

    Args:
        played: rounds of some outputs.
        verify: cost of a verification of 1, 2, ... tokens, in plain tokens.

    Returns:
        The ratio, below 0 if the verifications alone take longer; None if nothing was drafted.
    """
    drafted = sum(int(one.drafted_R.sum()) for one in played)
    if not drafted:
        return None
    tokens = sum(one.tokens for one in played)
    verified = sum(float(np.asarray(verify)[one.drafted_R].sum()) for one in played)
    return (tokens - verified) / drafted
