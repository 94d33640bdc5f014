"""Greedy decoding of many allocations as one batch, refilled as its rows end."""

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from oracle.config import Scope
from oracle.engine.prompts import PromptState
from oracle.engine.row_batch import RowBatch, group_ids
from oracle.engine.schedule import Schedule
from oracle.models.decoder import Decoder
from oracle.models.greedy import Processors, Row, StopTexts, best

__all__ = ["Generation", "Settings", "greedy_decode"]

MOVE = 0.01
"""What it costs to move one slot of one row's cache, in steps of a row: finished rows leave the batch once they have
cost as much as moving the others would."""

REFILL_BELOW = 0.6
"""Waiting rows join once fewer than this share of the rows that fit are alive: products over fewer rows are slower, but
rows that join late leave empty slots in the others' caches."""

Unreachable = Callable[[int, Seq[int]], bool]
"""Whether a request (by index) with these tokens so far cannot reach its threshold any more."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A greedy output.

    Attributes:
        tokens: generated ids, the stop token or the tokens of the stop text included if one was reached.
        finished: whether a stop token or a stop text ended it.
        margin: smallest difference between the two best scores over all steps: logits, or what the processors of
            `generation_config` make of them.
        ties: the steps whose two best scores are within rounding of each other.
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
        scope: which tokens run the allocation: see `oracle.config.SearchConfig`.
        tie: leads, in logits, that rounding may turn round.
        rows: rows that may be decoded at once.
        join: whether waiting rows may join others that have begun.
        processors: what `generation_config` makes of the logits; None for nothing.
        stop_texts: texts that end an output; None for none.
        products: whether layers have the products of batches, of which `tie` is then the rounding.
    """

    max_new_tokens: int
    stop: frozenset[int]
    scope: Scope
    tie: float
    rows: int
    join: bool = True
    processors: Processors | None = None
    stop_texts: StopTexts | None = None
    products: bool = False

    def choose(self, logits_RV: Tensor, rows: Seq[Row | None]) -> tuple[Tensor, list[float], list[bool]]:
        """The next token of each row, its lead over the second, and whether that is a near-tie."""
        if self.processors is not None:
            return self.processors.choose(logits_RV, rows, self.tie)
        tokens_R, lead_R = best(logits_RV)
        leads = lead_R.tolist()
        return tokens_R, leads, [lead <= self.tie for lead in leads]

    def after(
        self, decoder: Decoder, hidden_R1D: Tensor, rows: Seq[Row | None]
    ) -> tuple[Tensor, list[float], list[bool]]:
        """As `choose`, from the hidden states after the last step."""
        if self.processors is not None:
            return self.choose(decoder.finish(hidden_R1D)[:, 0], rows)
        tokens_R, lead_R = decoder.best(hidden_R1D)
        leads = lead_R.tolist()
        return tokens_R, leads, [lead <= self.tie for lead in leads]

    def one(self, logits_V: Tensor, row: Row) -> int:
        """The next token of one row, as plain generation chooses it."""
        scores_RV = logits_V[None] if self.processors is None else self.processors.scores(logits_V[None], [row])
        return int(scores_RV[0].argmax())

    def forced(self, logits_TV: Tensor, prompt_T: Tensor, tokens: Seq[int], first: int = 0) -> Tensor:
        """The token that greedy decoding chooses at each place of a given text (T).

        Args:
            logits_TV: logits at the places that predict its tokens, from token `first` on.
            prompt_T: the prompt's token ids.
            tokens: the text.
            first: place of the first token that is predicted.
        """
        if self.processors is None:
            return logits_TV.argmax(-1)
        rows = [(prompt_T, tokens[: first + place]) for place in range(len(logits_TV))]
        return self.processors.scores(logits_TV, rows).argmax(-1)

    def ended(self, rows: Seq[Row]) -> list[bool]:
        """Whether each row's last token ends its output, the token limit aside."""
        ends = [tokens[-1] in self.stop for _, tokens in rows]
        if self.stop_texts is None or not rows:
            return ends
        return [end or reached for end, reached in zip(ends, self.stop_texts.reached(rows), strict=True)]


@dataclass(kw_only=True)
class _Output:
    """One request on its way."""

    tokens: list[int] = field(default_factory=list)
    margin: float = float("inf")
    ties: list[int] = field(default_factory=list)
    finished: bool = False
    dropped: bool = False

    def take(self, token: int, margin: float, near: bool) -> None:
        """Appends a token."""
        if near:
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
            hidden_R1D = self.batch.forward(self.tokens_R, ids)
            self.tokens_R, margins, near = self.settings.after(self.decoder, hidden_R1D, self._rows(self.alive))
            self._take(self.tokens_R.tolist(), margins, near, self.alive)
        return [
            Generation(
                tokens=tuple(output.tokens),
                finished=output.finished,
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
            products=self.settings.products,
        )
        if prompts[0].given:
            place_R = group_ids([id(prompt) for prompt in prompts])
            _, first = np.unique(place_R, return_index=True)
            logits_GV = torch.stack([prompts[row].logits_V for row in first])
            tokens_G, margins_G, near_G = self.settings.choose(logits_GV, self._rows([requests[row] for row in first]))
            tokens_R = tokens_G[place_R]
            margins, near = [margins_G[place] for place in place_R], [near_G[place] for place in place_R]
        else:
            tokens_R, margins, near = self.settings.after(self.decoder, others.run_rest(), self._rows(requests))
        self._take(tokens_R.tolist(), margins, near, requests)
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

    def _rows(self, requests: Seq[int]) -> list[Row | None]:
        """What the scores of each request depend on; None for rows that have stopped."""
        return [
            (self.prompts[request].tokens, self.outputs[request].tokens) if request >= 0 else None
            for request in requests
        ]

    def _take(self, tokens: Seq[int], margins: Seq[float], near: Seq[bool], requests: list[int]) -> None:
        """Appends the next token of every row; requests that stop are struck out of the list."""
        live = [row for row, request in enumerate(requests) if request >= 0]
        for row in live:
            self.outputs[requests[row]].take(tokens[row], margins[row], near[row])
        ended = self.settings.ended([row for row in self._rows([requests[row] for row in live]) if row is not None])
        for row, end in zip(live, ended, strict=True):
            request = requests[row]
            output = self.outputs[request]
            output.finished = end
            if end or len(output.tokens) == self.settings.max_new_tokens:
                requests[row] = -1
            elif self.unreachable(request, output.tokens):
                output.dropped = True
                requests[row] = -1
