"""Which allocations reproduce a given output greedily, without decoding any.

Fed the output, an allocation reproduces it if and only if its best token is the next one at every position. To show
that it does not, one logit above the right token's is enough, so a few hundred likely rows of the vocabulary head are
tried before the whole head, and the first position before the others. Exact.

Where `generation_config` processes scores, every position is processed with the prompt and the output before it. The
few hundred rows are then those of tokens whose scores are their logits, and are only tried where the right token's
score is at most its logit.
In shapes, X is the candidate tokens.
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
from oracle.models.greedy import Processors, Row, arithmetic

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
        tie: logits that differ by less may be swapped by rounding.
        piece: nodes that pass through a layer at once.
        head_rows: positions that pass through the vocabulary head at once.
        processors: what `generation_config` makes of the logits; None for nothing.
        generated: number of the prompt's last tokens that count as output before the given one, for the processors.

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
        tie: float,
        piece: int,
        head_rows: int,
        processors: Processors | None = None,
        generated: int = 0,
    ) -> None:
        self._decoder, self._prompt, self._tokens = decoder, prompt, tuple(tokens)
        self._tie = tie
        self._processors = processors
        asked = prompt.length - generated
        self._asked_T, self._generated = prompt.tokens[:asked], tuple(prompt.tokens[asked:].tolist())
        self._candidates: dict[int, Tensor | None] = {}
        self.piece, self.head_rows = piece, head_rows
        self.executions = 0

    @torch.inference_mode()
    def test(self, schedule: Schedule) -> NDArray[np.int8]:
        """A `Verdict` for each allocation."""
        if self._prompt.given:
            first = self._verdicts(self._prompt.logits_V[None], 0)
            if first[0] == Verdict.NO or len(self._tokens) == 1:
                return np.full(len(schedule.runs_AI), int(first[0]), dtype=np.int8)
            verdict_A = np.full(len(schedule.runs_AI), int(first[0]), dtype=np.int8)
        else:
            verdict_A = np.full(len(schedule.runs_AI), Verdict.YES, dtype=np.int8)
        begun = 2 if self._prompt.given else 1
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
            piece=self.piece,
        )
        self.executions += done.executions * done.hidden_OTD.shape[1]
        begun = 1 if self._prompt.given else 0
        for offset, place in enumerate(range(begun, known)):
            rows = np.flatnonzero(verdict_A[alive] != Verdict.NO)
            nodes, node_R = torch.unique(done.node_A[torch.from_numpy(rows)], return_inverse=True)
            found = self._verdicts_at(done.hidden_OTD[nodes, start + offset], place)[node_R.cpu().numpy()]
            where = alive[rows]
            verdict_A[where] = np.where(found == Verdict.YES, verdict_A[where], found)

    def _verdicts_at(self, hidden_RD: Tensor, place: int) -> NDArray[np.int8]:
        """Verdicts of rows on the token at one place of the output."""
        verdict_R = np.full(len(hidden_RD), Verdict.NO, dtype=np.int8)
        survivors = self._survivors(hidden_RD, place)
        for rows in survivors.split(self.head_rows):
            logits_RV = self._decoder.finish(hidden_RD[rows][:, None])[:, 0]
            verdict_R[rows.cpu().numpy()] = self._verdicts(logits_RV, place)
        return verdict_R

    def _survivors(self, hidden_RD: Tensor, place: int) -> Tensor:
        """Rows for which no candidate beats the output's token."""
        every = torch.arange(len(hidden_RD), device=hidden_RD.device)
        if not self._decoder.plain_head or len(hidden_RD) < CANDIDATES:
            return every
        head = self._decoder.head
        weight, bias = cast(Tensor, head.weight), cast(Tensor | None, getattr(head, "bias", None))
        normed_RD = self._decoder.normed(hidden_RD[:, None])[:, 0]
        # Without processors the candidates for a token serve wherever it stands.
        key = self._tokens[place] if self._processors is None else place
        if key not in self._candidates:
            sample = torch.linspace(0, len(normed_RD) - 1, SAMPLE, device=normed_RD.device).long()
            self._candidates[key] = self._chosen(head(normed_RD[sample]), place)
        chosen = self._candidates[key]
        if chosen is None:
            return every
        logits_RX = torch.nn.functional.linear(normed_RD, weight[chosen], None if bias is None else bias[chosen])
        best_R = logits_RX[:, 1:].amax(1)
        beaten = best_R - logits_RX[:, 0] > self._threshold(place, best_R, logits_RX[:, 0])
        return every[~beaten]

    def _chosen(self, logits_RV: Tensor, place: int) -> Tensor | None:
        """The output's token and the likeliest others of a sample; None if they cannot refute by their logits."""
        target = self._tokens[place]
        if self._processors is not None:
            row = self._row(place)
            untouched_V = self._processors.untouched(row, logits_RV.shape[1])
            if not (self._processors.lowers or bool(untouched_V[target])):
                return None
            logits_RV = logits_RV.masked_fill(~untouched_V, -torch.inf)
        best = logits_RV.topk(min(8, logits_RV.shape[1]), dim=-1)
        ids = best.indices[best.values > -torch.inf]
        tokens, counts = ids[ids != target].unique(return_counts=True)
        if not len(tokens):
            return None
        likely = tokens[counts.argsort(descending=True)[: CANDIDATES - 1]]
        return torch.cat([likely.new_tensor([target]), likely])

    def _row(self, place: int) -> Row:
        """What the scores at one place of the output depend on."""
        return self._asked_T, (*self._generated, *self._tokens[:place])

    def _threshold(self, place: int, *scores_R: Tensor) -> float | Tensor:
        """The lead between these scores up to which a token is a near-tie."""
        if self._processors is None:
            return self._tie
        return sum(map(arithmetic, scores_R), start=self._processors.threshold(self._tie, len(self._generated) + place))

    def _verdicts(self, logits_RV: Tensor, place: int) -> NDArray[np.int8]:
        """Verdicts by whole logits."""
        target = self._tokens[place]
        if self._processors is not None:
            row = self._row(place)
            logits_RV = self._processors.scores(logits_RV, [row] * len(logits_RV))
        right_R = logits_RV[:, target].clone()
        logits_RV[:, target] = -torch.inf
        best_R = logits_RV.amax(1)
        lead_R = (right_R - best_R).float().nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        logits_RV[:, target] = right_R
        verdict = torch.where(
            lead_R.abs() <= self._threshold(place, right_R, best_R),
            int(Verdict.TIE),
            (lead_R > 0).long() * int(Verdict.YES),
        )
        return verdict.cpu().numpy().astype(np.int8)
