"""Which allocations reproduce a given output greedily, without decoding any.

Fed the output, an allocation reproduces it if and only if its best token is the next one at every position. To show
that it does not, one logit above the right token's is enough, so a few hundred likely rows of the vocabulary head are
tried before the whole head, and the first position before the others. Exact. In shapes, X is the candidate tokens.
"""

from collections.abc import Sequence as Seq
from enum import IntEnum
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.engine.prompts import PromptState
from oracle.engine.schedule import Schedule
from oracle.engine.score import continuation_pass
from oracle.models.decoder import Decoder

__all__ = ["Refuter", "Verdict"]

CANDIDATES = 250
"""Rows of the vocabulary head that are tried first."""

SAMPLE = 192
"""Rows whose whole logits choose the candidates."""


class Verdict(IntEnum):
    """Whether an allocation reproduces the output; a near-tie must be decided by running alone."""

    NO = 0
    YES = 1
    TIE = 2


class Refuter:
    """Tests allocations of one prompt against one output.

    Args:
        decoder: the model.
        prompt: the prompt.
        tokens: the output to reproduce, the stop token included if it ended with one.
        shared_prompt: scope `decode` rather than `sequence`.
        tie: logits that differ by less may be swapped by rounding.
        piece: nodes that pass through a layer at once.
        head_rows: positions that pass through the vocabulary head at once.

    Attributes:
        piece: as given; may be lowered.
        head_rows: likewise.
        executions: layer x token units executed so far.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompt: PromptState,
        tokens: Seq[int],
        *,
        shared_prompt: bool,
        tie: float,
        piece: int,
        head_rows: int,
    ) -> None:
        self._decoder, self._prompt, self._tokens = decoder, prompt, tuple(tokens)
        self._shared_prompt, self._tie = shared_prompt, tie
        self._candidates: dict[int, Tensor] = {}
        self.piece, self.head_rows = piece, head_rows
        self.executions = 0

    @torch.inference_mode()
    def test(self, schedule: Schedule) -> NDArray[np.int8]:
        """A `Verdict` for each allocation."""
        if self._shared_prompt:
            first = self._verdicts(self._prompt.logits_V[None], self._tokens[0])
            if first[0] == Verdict.NO or len(self._tokens) == 1:
                return np.full(len(schedule.runs_AI), int(first[0]), dtype=np.int8)
            verdict_A = np.full(len(schedule.runs_AI), int(first[0]), dtype=np.int8)
        else:
            verdict_A = np.full(len(schedule.runs_AI), Verdict.YES, dtype=np.int8)
        begun = 2 if self._shared_prompt else 1
        self._stage(schedule, verdict_A, begun)
        if len(self._tokens) > begun:
            self._stage(schedule, verdict_A, len(self._tokens))
        return verdict_A

    def _stage(self, schedule: Schedule, verdict_A: NDArray[np.int8], known: int) -> None:
        """Tests what is not refuted yet on the first `known` tokens of the output, in place."""
        alive = np.flatnonzero(verdict_A != Verdict.NO)
        if not len(alive):
            return
        done, start = continuation_pass(
            self._decoder,
            self._prompt,
            schedule.of_rows(alive),
            self._tokens[: known - 1],
            shared_prompt=self._shared_prompt,
            piece=self.piece,
        )
        self.executions += done.executions * done.hidden_OTD.shape[1]
        targets = self._tokens[1 if self._shared_prompt else 0 : known]
        for offset, target in enumerate(targets):
            rows = np.flatnonzero(verdict_A[alive] != Verdict.NO)
            nodes, node_R = torch.unique(done.node_A[torch.from_numpy(rows)], return_inverse=True)
            found = self._verdicts_at(done.hidden_OTD[nodes, start + offset], target)[node_R.cpu().numpy()]
            where = alive[rows]
            verdict_A[where] = np.where(found == Verdict.YES, verdict_A[where], found)

    def _verdicts_at(self, hidden_RD: Tensor, target: int) -> NDArray[np.int8]:
        """Verdicts of rows at one position."""
        verdict_R = np.full(len(hidden_RD), Verdict.NO, dtype=np.int8)
        survivors = self._survivors(hidden_RD, target)
        for rows in survivors.split(self.head_rows):
            logits_RV = self._decoder.finish(hidden_RD[rows][:, None])[:, 0]
            verdict_R[rows.cpu().numpy()] = self._verdicts(logits_RV, target)
        return verdict_R

    def _survivors(self, hidden_RD: Tensor, target: int) -> Tensor:
        """Rows for which no candidate beats the target."""
        every = torch.arange(len(hidden_RD), device=hidden_RD.device)
        if not self._decoder.plain_head or len(hidden_RD) < CANDIDATES:
            return every
        head = self._decoder.head
        weight, bias = cast(Tensor, head.weight), cast(Tensor | None, getattr(head, "bias", None))
        normed_RD = self._decoder.normed(hidden_RD[:, None])[:, 0]
        if target not in self._candidates:
            sample = torch.linspace(0, len(normed_RD) - 1, SAMPLE, device=normed_RD.device).long()
            best = head(normed_RD[sample]).topk(8, dim=-1).indices.flatten()
            tokens, counts = best[best != target].unique(return_counts=True)
            likely = tokens[counts.argsort(descending=True)[: CANDIDATES - 1]]
            self._candidates[target] = torch.cat([likely.new_tensor([target]), likely])
        chosen = self._candidates[target]
        logits_RX = torch.nn.functional.linear(normed_RD, weight[chosen], None if bias is None else bias[chosen])
        beaten = logits_RX[:, 1:].amax(1) - logits_RX[:, 0] > self._tie
        return every[~beaten]

    def _verdicts(self, logits_RV: Tensor, target: int) -> NDArray[np.int8]:
        """Verdicts by whole logits."""
        right_R = logits_RV[:, target].clone()
        logits_RV[:, target] = -torch.inf
        lead_R = (right_R - logits_RV.amax(1)).float()
        logits_RV[:, target] = right_R
        verdict = torch.where(lead_R.abs() <= self._tie, int(Verdict.TIE), (lead_R > 0).long() * int(Verdict.YES))
        return verdict.cpu().numpy().astype(np.int8)
