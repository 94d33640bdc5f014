"""The two best tokens of each row, proposed in bfloat16 and decided in float32.

The vocabulary head is a third of the products of a small model's decoding, and processors with bfloat16 instructions
compute it several times faster in that dtype. How far such a product may be from the exact one is bounded for each row,
by the norms of what the conversion changed (Cauchy-Schwarz). Every token whose logit may be among the two highest is
computed again in float32, so that no token is missed.

In shapes, X is the tokens of which any row may have one among its two best.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from oracle.models.greedy import best

__all__ = ["ProposedHead"]

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names in `torch.cpu.get_capabilities` of instructions for bfloat16 products."""

LEAST_WEIGHTS = 1 << 22
"""Weights of a head from which it is worth proposing: smaller ones cost less than the choice among proposals."""

MOST = 0.25
"""Share of the vocabulary proposed above which the whole head is computed."""

PIECE = 32
"""Rows whose proposals are compared with their bounds at a time."""

HALF = 2.0**-8
"""Most that rounding to bfloat16 changes a number, relative to it: its unit in the last place, however it rounds."""

SUM = 2.0**-23
"""Most that one addition in float32 changes a sum, relative to the sum of the magnitudes."""


class ProposedHead:
    """A vocabulary head without bias, in float32 on the CPU.

    Args:
        head: the head.
    """

    def __init__(self, head: nn.Linear) -> None:
        self._weight_VD = head.weight.detach()
        self._low_VD = self._weight_VD.to(torch.bfloat16)
        self._longest = self._lost = 0.0
        # In pieces: a second copy of the head in float32 is not made.
        for weight_XD, low_XD in zip(self._weight_VD.split(4096), self._low_VD.split(4096), strict=True):
            self._longest = max(self._longest, float(low_XD.float().norm(dim=1).max()))
            self._lost = max(self._lost, float((weight_XD - low_XD.float()).norm(dim=1).max()))

    @classmethod
    def of(cls, head: nn.Module) -> Self | None:
        """The head with proposals; None where they are not exact or not faster: other kinds of heads and processors."""
        if type(head) is not nn.Linear or head.bias is not None or head.weight.numel() < LEAST_WEIGHTS:
            return None
        if head.weight.dtype != torch.float32 or head.weight.device.type != "cpu":
            return None
        capabilities = torch.cpu.get_capabilities()
        return cls(head) if any(capabilities.get(name) for name in INSTRUCTIONS) else None

    @torch.inference_mode()
    def best(self, normed_RD: Tensor) -> tuple[Tensor, Tensor]:
        """The most likely token of each row and its lead over the second, in logits; see `oracle.models.greedy.best`.

        Args:
            normed_RD: hidden states after the final norm.
        """
        ids_X = self.proposed(normed_RD)
        if ids_X is None:
            return best(linear(normed_RD, self._weight_VD))
        values_R2, places_R2 = self.logits(normed_RD, ids_X).topk(2, dim=-1)
        return ids_X[places_R2[:, 0]], values_R2[:, 0] - values_R2[:, 1]

    def logits(self, normed_RD: Tensor, ids_X: Tensor) -> Tensor:
        """Logits of some tokens, in float32 (R X)."""
        return linear(normed_RD, self._weight_VD.index_select(0, ids_X))

    def proposed(self, normed_RD: Tensor) -> Tensor | None:
        """Every token that may be among the two best of a row, in rising order (X); None for the whole vocabulary."""
        low_RD = normed_RD.to(torch.bfloat16)
        logits_RV = linear(low_RD, self._low_VD)
        # Below the two highest proposals by twice the bound, a token cannot be among the two best. Of the highest in
        # each part of the vocabulary, the second is at most the second of all.
        peaks_RX = torch.stack([part_RX.amax(-1) for part_RX in logits_RV.chunk(64, dim=-1)], dim=-1).float()
        second_R = peaks_RX.topk(2, dim=-1).values[:, 1]
        bound_R = self._bound(normed_RD, low_RD.float(), peaks_RX.abs().amax(-1))
        # Rounded down to the dtype of the proposals.
        least_R = second_R - 2 * bound_R
        least_R = (least_R - HALF * least_R.abs()).to(torch.bfloat16)
        # The sign of a difference is exact; in pieces that stay in the cache this is faster than comparing.
        excess = [
            (some_RV - some_R[:, None]).amax(0)
            for some_RV, some_R in zip(logits_RV.split(PIECE), least_R.split(PIECE), strict=True)
        ]
        ids_X = (torch.stack(excess).amax(0) >= 0).nonzero()[:, 0]
        fits = 2 <= len(ids_X) <= MOST * len(self._weight_VD) and bool(bound_R.isfinite().all())
        return ids_X if fits else None

    def _bound(self, normed_RD: Tensor, low_RD: Tensor, highest_R: Tensor) -> Tensor:
        """Most that a proposed logit near the highest may differ from the exact one, per row (R)."""
        length_R, lost_R = normed_RD.norm(dim=1), (normed_RD - low_RD).norm(dim=1)
        converted_R = lost_R * self._longest + length_R * self._lost
        summed_R = 2 * normed_RD.shape[1] * SUM * length_R * self._longest
        # A hundredth for the rounding of the norms themselves.
        return 1.01 * (converted_R + summed_R + HALF * (highest_R + converted_R))

    def difference(self, normed_RD: Tensor) -> float:
        """Largest difference of a proposed token's logit from that of the whole head: rounding of other shapes."""
        ids_X = self.proposed(normed_RD)
        if ids_X is None:
            return 0.0
        return float((self.logits(normed_RD, ids_X) - linear(normed_RD, self._weight_VD)[:, ids_X]).abs().max())
