"""Greedy decoding of many allocations as one batch, refilled as its rows end.

In shapes, X is the blocks of the vocabulary, Y the entries of a block.
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from oracle.engine.prompts import PromptState
from oracle.engine.row_batch import RowBatch, group_ids
from oracle.engine.schedule import Schedule
from oracle.models.decoder import Decoder

__all__ = ["Generation", "Settings", "best", "greedy_decode"]

MOVE = 0.01
"""What it costs to move one slot of one row's cache, in steps of a row: finished rows leave the batch once they have
cost as much as moving the others would."""

REFILL_BELOW = 0.6
"""Waiting rows join once fewer than this share of the rows that fit are alive: products over fewer rows are slower, but
rows that join late leave empty slots in the others' caches."""

Unreachable = Callable[[int, Seq[int]], bool]
"""Whether a request (by index) with these tokens so far cannot reach its threshold any more."""

BLOCK = 64
"""Vocabulary entries per block when the two best logits are looked for."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A greedy output.

    Attributes:
        tokens: generated ids, the stop token included if it was reached.
        finished: whether a stop token ended it.
        margin: smallest difference between the two best logits over all steps.
        ties: the steps whose two best logits are within rounding of each other.
        dropped: whether it was given up unfinished because it could not reach its threshold any more.
    """

    tokens: tuple[int, ...]
    finished: bool
    margin: float
    ties: tuple[int, ...] = ()
    dropped: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How outputs are decoded.

    Attributes:
        max_new_tokens: the most tokens a row may generate.
        stop: token ids that end an output.
        shared_prompt: scope `decode` (the prompt's full-depth states are shared, and the first token is the full
            model's) rather than `sequence`.
        tie: leads, in logits, that rounding may turn round.
        rows: rows that may be decoded at once.
        join: whether waiting rows may join others that have begun.
    """

    max_new_tokens: int
    stop: frozenset[int]
    shared_prompt: bool
    tie: float
    rows: int
    join: bool = True


@dataclass(kw_only=True)
class _Output:
    """One request on its way."""

    tokens: list[int] = field(default_factory=list)
    margin: float = float("inf")
    ties: list[int] = field(default_factory=list)
    dropped: bool = False

    def take(self, token: int, margin: float, tie: float) -> None:
        """Appends a token."""
        if margin <= tie:
            self.ties.append(len(self.tokens))
        self.tokens.append(token)
        self.margin = min(self.margin, margin)


@torch.inference_mode()
def greedy_decode(
    decoder: Decoder,
    prompts: Seq[PromptState],
    schedule: Schedule,
    settings: Settings,
    unreachable: Unreachable = lambda request, tokens: False,
) -> list[Generation]:
    """Decodes rows, each through its own steps, until all have stopped; those that wait take the places of the others.

    Args:
        decoder: the model.
        prompts: the prompt of each request.
        schedule: the steps of each request.
        settings: lengths, stops, scope, rows at once.
        unreachable: asked after each token whether a request may be dropped.
    """
    return _Decoding(decoder, prompts, schedule, settings, unreachable).run()


class _Decoding:
    """The state of one call of `greedy_decode`.

    Attributes:
        outputs: what each request has so far.
        waiting: requests that have not begun, those of one prompt together.
        batch: the rows that are decoded.
        alive: the request of each row of the batch; -1 once it has stopped.
        tokens_R: the last token of each row.
        idle: steps of rows that had stopped, since the last of them left.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompts: Seq[PromptState],
        schedule: Schedule,
        settings: Settings,
        unreachable: Unreachable,
    ) -> None:
        self.decoder, self.prompts, self.schedule = decoder, prompts, schedule
        self.settings, self.unreachable = settings, unreachable
        self.outputs = [_Output() for _ in prompts]
        places = {id(prompt): place for place, prompt in reversed(list(enumerate(prompts)))}
        # Rows of one prompt stand together, so that their attention over it is one product.
        self.waiting = deque(sorted(range(len(prompts)), key=lambda request: places[id(prompts[request])]))
        self.batch: RowBatch | None = None
        self.alive: list[int] = []
        self.tokens_R = torch.empty(0, dtype=torch.long, device=decoder.device)
        self.idle = 0

    def run(self) -> list[Generation]:
        """Decodes until nothing is left."""
        while True:
            rows = [row for row, request in enumerate(self.alive) if request >= 0]
            room = len(rows) < REFILL_BELOW * self.settings.rows
            if self.waiting and (not rows or (self.settings.join and room)):
                self._refill(rows)
                continue  # outputs of one token end at once
            if not rows:
                break
            assert self.batch is not None
            self.idle += len(self.alive) - len(rows)
            if self.idle > MOVE * len(rows) * self.batch.slots:
                self.batch.select(rows)
                self.alive, self.tokens_R = [self.alive[row] for row in rows], self.tokens_R[rows]
                self.idle = 0
            ids = self.tokens_R.tolist()
            self.tokens_R, margin_R = best(self.decoder.finish(self.batch.forward(self.tokens_R, ids))[:, 0])
            self._take(self.tokens_R, margin_R, self.alive)
        return [
            Generation(
                tokens=tuple(output.tokens),
                finished=output.tokens[-1] in self.settings.stop,
                margin=output.margin,
                ties=tuple(output.ties),
                dropped=output.dropped,
            )
            for output in self.outputs
        ]

    def _refill(self, rows: list[int]) -> None:
        """Lets waiting requests join the rows that are alive."""
        count = min(len(self.waiting), self.settings.rows - len(rows))
        requests = [self.waiting.popleft() for _ in range(count)]
        prompts = [self.prompts[request] for request in requests]
        others = RowBatch(
            self.decoder,
            prompts,
            self.schedule.of_rows(np.array(requests)),
            new_tokens=self.settings.max_new_tokens,
            shared_prompt=self.settings.shared_prompt,
        )
        if self.settings.shared_prompt:
            place_R = group_ids([id(prompt) for prompt in prompts])
            _, first = np.unique(place_R, return_index=True)
            logits_GV = torch.stack([prompts[row].logits_V for row in first])
            tokens_R, margin_R = (part[place_R] for part in best(logits_GV))
        else:
            tokens_R, margin_R = best(self.decoder.finish(others.run_prompts())[:, 0])
        self._take(tokens_R, margin_R, requests)
        self.idle = 0
        stay = [row for row, request in enumerate(requests) if request >= 0]
        if self.batch is None or not rows:
            if len(stay) < len(requests) and stay:
                others.select(stay)
            self.batch = others if stay else None
            self.alive, self.tokens_R = [requests[row] for row in stay], tokens_R[stay]
        elif stay:
            order = self.batch.join(rows, others, stay)
            alive = [self.alive[row] for row in rows] + [requests[row] for row in stay]
            self.alive = [alive[row] for row in order]
            self.tokens_R = torch.cat([self.tokens_R[rows], tokens_R[stay]])[order]

    def _take(self, tokens_R: Tensor, margin_R: Tensor, requests: list[int]) -> None:
        """Appends the next token of every row; requests that stop are struck out of the list."""
        for row, (token, margin) in enumerate(zip(tokens_R.tolist(), margin_R.tolist(), strict=True)):
            request = requests[row]
            if request < 0:
                continue
            output = self.outputs[request]
            output.take(token, margin, self.settings.tie)
            if token in self.settings.stop or len(output.tokens) == self.settings.max_new_tokens:
                requests[row] = -1
            elif self.unreachable(request, output.tokens):
                output.dropped = True
                requests[row] = -1


def best(logits_RV: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely token of each row and its lead over the second, in logits.

    A maximum per block of the vocabulary first: several times faster than the two largest of a whole row.
    """
    rows, vocabulary = logits_RV.shape
    blocks = vocabulary // BLOCK
    head_RXY = logits_RV[:, : blocks * BLOCK].view(rows, blocks, BLOCK)
    tail_RY = logits_RV[:, blocks * BLOCK :]
    peaks_RX = head_RXY.amax(-1)
    # The two best tokens stand in the two best blocks, or in the rest that fills no block.
    best_blocks = peaks_RX.topk(min(2, blocks), dim=-1).indices
    chosen = head_RXY.gather(1, best_blocks[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    ids = (best_blocks[:, :, None] * BLOCK + torch.arange(BLOCK, device=logits_RV.device)).flatten(1)
    tail_ids = torch.arange(blocks * BLOCK, vocabulary, device=logits_RV.device).expand(rows, -1)
    values, where = torch.cat([chosen, tail_RY], dim=-1).topk(2, dim=-1)
    tokens_R = torch.cat([ids, tail_ids], dim=-1).gather(1, where[:, :1])[:, 0]
    return tokens_R, values[:, 0] - values[:, 1]
