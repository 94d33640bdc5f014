"""From (sequence, allocations) to outcomes: the one door to the engine."""

import math
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.config import SearchConfig
from oracle.engine.decode import Generation, Settings, greedy_decode
from oracle.engine.gated import GatedGeneration, GatedScore, gated_decode, gated_score
from oracle.engine.gates import Gate
from oracle.engine.hidden_states import Hidden
from oracle.engine.memory_budget import Footprint
from oracle.engine.oom_backoff import Backoff, no_backoff
from oracle.engine.prompts import PromptState, batchable, encode, prompt_pass
from oracle.engine.reference import Difference, PlainForward, first_difference, plain_generate, plain_logits
from oracle.engine.same_output import Refuter, Verdict
from oracle.engine.schedule import Mask, Schedule, Units
from oracle.engine.score import log_likelihoods
from oracle.engine.tie_break import run_alone, same_as_plain
from oracle.errors import InputError
from oracle.metrics import Bound
from oracle.models.loading import LanguageModel
from oracle.store.hidden import HiddenStore
from oracle.types import Allocation

__all__ = ["Engine", "Request"]

COMPARED = 4
"""Tokens of plain generation that are compared, bit for bit, before near-ties are settled without it."""

Request = tuple[PromptState, Allocation]
"""One output to generate: a prompt and the units that run."""


class Engine:
    """Evaluates many allocations of a sequence at a time.

    An outcome does not depend on what shared its batch: where the two best tokens come within rounding of each other,
    the allocation is run again alone, as plain generation does it, and that output counts.

    Args:
        model: the language model.
        config: scope, token limit, batch size, memory limit, chat template.
        store: keeps hidden states; None to compute them whenever they are asked for.

    Attributes:
        units: what allocations are made of.
        hidden: states of any sequence under any allocation, with what was found in the store and what was not.
        executions: layer x token units executed so far, as every kind of evaluation counts them.
        tie: leads, in logits, up to which a token is a near-tie and settled alone.
        notes: what the run's log should say; for the reader to clear.
    """

    def __init__(self, model: LanguageModel, config: SearchConfig, store: HiddenStore | None = None) -> None:
        self.model = model
        self.config = config
        self.shared_prompt = config.scope == "decode"
        self.tie = model.decoder.rounding.near_tie if config.near_tie is None else config.near_tie
        self.footprint = Footprint.of(model.decoder, config.memory)
        self.units = Units(model.decoder, config.unit)
        self.hidden = Hidden(model, self.units, config, store)
        self.executions = 0
        self.notes: list[dict[str, Any]] = []
        self._decoding, self._scoring = Backoff("decoding", self.notes), Backoff("scoring", self.notes)
        # Caches that drop what a window hides make passes of other shapes than ours.
        self._alone_is_plain: bool | None = False if model.decoder.positions.windowed else None

    def rounding(self) -> dict[str, Any]:
        """The measured rounding and the near-tie rule that is in force, for a manifest."""
        return self.model.decoder.rounding.to_dict() | ({} if math.isinf(self.tie) else {"near_tie": self.tie})

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt; see `oracle.engine.prompts.encode`."""
        config = self.config
        return encode(self.model, prompt, chat_template=config.chat_template, new_tokens=config.max_new_tokens)

    @no_backoff()
    def open(self, prompt: str) -> PromptState:
        """Runs a prompt once at full depth, for all of its allocations."""
        return prompt_pass(self.model.decoder, self.encode(prompt))

    def generate(
        self, requests: Seq[Request], thresholds: Seq[tuple[Bound, float]] | None = None
    ) -> list[tuple[Generation, bool]]:
        """Greedy outputs, each with whether a near-tie made it run again alone.

        Args:
            requests: a prompt and an allocation each.
            thresholds: for each request a bound of its quality and the least quality that matters: an output that
                cannot reach it any more is dropped unfinished, and says so. Without it every output is complete.
        """
        for _, allocation in requests:
            self.units.check(allocation, rising=self.shared_prompt)
        if not requests:
            return []
        schedule = self.units.steps([allocation for _, allocation in requests])
        generations = self._decode(requests, schedule, thresholds)
        return [
            self._resolve(request, schedule.of_rows(np.array([index])), generation)
            for index, (request, generation) in enumerate(zip(requests, generations, strict=True))
        ]

    def _decode(
        self, requests: Seq[Request], schedule: Schedule, thresholds: Seq[tuple[Bound, float]] | None = None
    ) -> list[Generation]:
        def unreachable(index: int, tokens: Seq[int]) -> bool:
            if thresholds is None:
                return False
            bound, least = thresholds[index]
            remaining = self.config.max_new_tokens - len(tokens)
            return bound.upper(tokens, self.model.text(tokens), remaining) < least

        def decode(some: list[int], rows: int) -> list[Generation]:
            return greedy_decode(
                self.model.decoder,
                [requests[index][0] for index in some],
                schedule.of_rows(np.array(some)),
                self._settings(rows),
                lambda place, tokens: unreachable(some[place], tokens),
            )

        most = self._rows(requests, schedule)
        by_request: dict[int, Generation] = {}
        for some in batchable(self.model.decoder, [prompt for prompt, _ in requests]):
            found = self._decoding.run(min(most, len(some)), partial(decode, some))
            by_request |= zip(some, found, strict=True)
        generations = [by_request[index] for index in range(len(requests))]
        for (prompt, allocation), generation in zip(requests, generations, strict=True):
            fed = len(generation.tokens) - 1 + (0 if self.shared_prompt else prompt.length)
            self.executions += len(allocation) * fed
        return generations

    def _settings(self, rows: int) -> Settings:
        decoder = self.model.decoder
        # A row that joins late has empty slots between a shared prompt and its own tokens.
        gaps = self.shared_prompt and decoder.shares_prompts and decoder.positions.windowed
        return Settings(
            max_new_tokens=self.config.max_new_tokens,
            stop=self.model.stop,
            shared_prompt=self.shared_prompt,
            tie=self.tie,
            rows=rows,
            join=decoder.positions.mix and not gaps,
        )

    @no_backoff()
    def _resolve(self, request: Request, schedule: Schedule, generation: Generation) -> tuple[Generation, bool]:
        if not generation.ties:
            return generation, False
        prompt, allocation = request
        if self._alone_is_plain is None:
            self._alone_is_plain = self._compare_alone(request, schedule)
        if self._alone_is_plain:
            return run_alone(self.model.decoder, prompt, schedule, self._settings(1), generation), True
        tokens = self.alone(prompt, allocation)
        if generation.dropped and tokens[: len(generation.tokens)] == generation.tokens:
            return generation, True
        finished = tokens[-1] in self.model.stop
        return Generation(tokens=tokens, finished=finished, margin=generation.margin), True

    def _compare_alone(self, request: Request, schedule: Schedule) -> bool:
        """Whether near-ties may be settled by `run_alone`: its logits are those of plain generation, bit for bit."""
        prompt, _ = request
        plain = self._plain_logits(request, min(COMPARED, self.config.max_new_tokens))
        same = same_as_plain(self.model.decoder, prompt, schedule, plain, shared_prompt=self.shared_prompt)
        if not same:
            self.notes.append({"event": "near-ties are settled by plain generation", "reason": "other bits alone"})
        return same

    def _rows(self, requests: Seq[Request], schedule: Schedule) -> int:
        """How many requests may be decoded at once under the memory limit, whichever they are.

        Raises:
            InputError: if not even one fits.
        """
        footprint = self._remaining([prompt for prompt, _ in requests])
        by_reference = self.shared_prompt and self.model.decoder.shares_prompts
        longest = max(prompt.length for prompt, _ in requests)
        read = 1 if self.shared_prompt else longest
        slots, costs = 0 if by_reference else longest, schedule.runs_NE.sum(1)
        rows = min(self.config.batch_rows, footprint.rows(costs, slots + self.config.max_new_tokens, read))
        if rows >= len(requests):
            return rows
        # Rows that join late begin where the others stand: their caches have room for two outputs.
        slots += 2 * self.config.max_new_tokens
        if footprint.row(int(costs.max()), slots, read) > footprint.limit:
            return 1  # one after the other: nobody joins late
        return min(self.config.batch_rows, footprint.rows(costs, slots, read))

    @no_backoff()
    def alone(self, prompt: PromptState, allocation: Allocation) -> tuple[int, ...]:
        """The output of plain generation on a model cut to the allocation."""
        self.units.check(allocation, rising=self.shared_prompt)
        return self._plain(prompt.tokens, allocation)

    def _plain(self, tokens_P: Tensor, allocation: Allocation) -> tuple[int, ...]:
        return plain_generate(
            self.model,
            tokens_P,
            self.units.calls(allocation),
            max_new_tokens=self.config.max_new_tokens,
            shared_prompt=self.shared_prompt,
        )

    @no_backoff()
    def confirms(self, prompt: str, outputs: Seq[tuple[Allocation, Seq[int]]]) -> list[bool]:
        """Whether outputs of one prompt are those of plain generation on models cut to their allocations.

        The cut model reads the prompt and the recorded output in one forward of the library, alone. If every recorded
        token leads by more than a near-tie, plain generation, which computes the same token by token, yields the
        output too; otherwise plain generation itself decides.
        """
        tokens_P = torch.tensor(self.encode(prompt), device=self.model.network.device)
        forward = PlainForward(self.model, tokens_P, shared_prompt=self.shared_prompt)
        least = max(self.tie, self.model.decoder.rounding.near_tie)
        found = []
        for allocation, recorded in outputs:
            self.units.check(allocation, rising=self.shared_prompt)
            calls, tokens = self.units.calls(allocation), tuple(recorded)
            ended = tokens[-1] in self.model.stop or len(tokens) == self.config.max_new_tokens
            whole = ended and not self.model.stop.intersection(tokens[:-1])
            clear = whole and least < math.inf and forward.least_lead(calls, tokens) > least
            found.append(clear or self._plain(tokens_P, allocation) == tokens)
        return found

    @no_backoff()
    def difference(self, prompt: PromptState, allocation: Allocation, recorded: Seq[int]) -> Difference | None:
        """Where a recorded output leaves plain generation on the cut model, and by how much; None if it does not."""
        return first_difference(self._plain_logits((prompt, allocation), self.config.max_new_tokens), recorded)

    def _plain_logits(self, request: Request, new_tokens: int) -> tuple[tuple[int, ...], Tensor]:
        prompt, allocation = request
        return plain_logits(
            self.model,
            prompt.tokens,
            self.units.calls(allocation),
            max_new_tokens=new_tokens,
            shared_prompt=self.shared_prompt,
        )

    def log_likelihoods(self, prompt: PromptState, allocations: Seq[Allocation], continuation: Seq[int]) -> list[float]:
        """Mean log-likelihood of one continuation under many allocations, in nats per token."""
        for allocation in allocations:
            self.units.check(allocation, rising=self.shared_prompt)
        schedule = self.units.steps(allocations)
        count, piece, head_rows = self._remaining([prompt]).pieces(self._fed(prompt, len(continuation)))

        def score(rows: NDArray[np.int64]) -> tuple[list[float], int]:
            return log_likelihoods(
                self.model.decoder,
                prompt,
                schedule.of_rows(rows),
                continuation,
                shared_prompt=self.shared_prompt,
                piece=self._scoring.limited(piece),
                head_rows=self._scoring.limited(head_rows),
            )

        values = np.empty(len(allocations))
        # Neighbours in lexicographic order share their beginnings.
        order = np.lexsort(schedule.runs_NE.T[::-1])
        for rows, (found, executions) in self._scoring.run_pieces(order, count, score):
            values[rows] = found
            self.executions += executions
        return values.tolist()

    def generate_gated(self, prompts: Seq[PromptState], gate: Gate) -> list[GatedGeneration]:
        """Greedy outputs under a per-token gate, which knows each prompt by its place in the list.

        A near-tie between tokens is decided by running the prompt again alone, under the same gate; near-ties of the
        gate's own decisions are the gate's affair.
        """

        def decode(requests: NDArray[np.int64]) -> list[GatedGeneration]:
            some, settings = [prompts[request] for request in requests], self._settings(len(requests))
            return gated_decode(self.model.decoder, some, gate, settings, requests.tolist())

        if not prompts:
            return []
        results: list[GatedGeneration] = []
        rows = self._gated_rows(prompts, self.config.max_new_tokens)
        for requests, found in self._decoding.run_pieces(np.arange(len(prompts)), rows, decode):
            for place, one in enumerate(found):
                with no_backoff():
                    again = one.generation.ties and len(found) > 1
                    results += decode(requests[[place]]) if again else [one]
        self.executions += sum(int(result.ran_TL.sum()) for result in results)
        return results

    def score_gated(self, prompts: Seq[PromptState], gate: Gate, continuations: Seq[Seq[int]]) -> list[GatedScore]:
        """Teacher-forced scores of a continuation of each prompt under a per-token gate."""
        if not prompts:
            return []
        if any(not ids for ids in continuations):
            raise InputError("continuations of at least one token are required, but one is empty; leave it out")

        def score(requests: NDArray[np.int64]) -> list[GatedScore]:
            return gated_score(
                self.model.decoder,
                [prompts[request] for request in requests],
                gate,
                [continuations[request] for request in requests],
                requests.tolist(),
                shared_prompt=self.shared_prompt,
            )

        rows = self._gated_rows(prompts, max(map(len, continuations)))
        pieces = self._decoding.run_pieces(np.arange(len(prompts)), rows, score)
        results = [result for _, found in pieces for result in found]
        self.executions += sum(int(result.ran_TL.sum()) for result in results)
        return results

    def _gated_rows(self, prompts: Seq[PromptState], new_tokens: int) -> int:
        slots = max(prompt.length for prompt in prompts) + new_tokens
        rows = self._remaining(prompts).rows([self.model.layers] * len(prompts), slots, slots)
        return min(self.config.batch_rows, rows) if self.model.decoder.positions.mix else 1

    def reproduces(self, prompt: PromptState, runs_NU: Mask, tokens: Seq[int]) -> Iterator[tuple[slice, list[bool]]]:
        """Which allocations give exactly this output, piece by piece; nothing is decoded.

        Args:
            prompt: the prompt.
            runs_NU: skip masks as booleans (N units). Neighbours share most if the rows are in lexicographic order.
            tokens: the output, with its stop token or at the token limit.
        """
        count, piece, head_rows = self._remaining([prompt]).pieces(self._fed(prompt, 2))
        refuter = Refuter(
            self.model.decoder,
            prompt,
            tokens,
            shared_prompt=self.shared_prompt,
            tie=self.tie,
            piece=piece,
            head_rows=head_rows,
        )

        def test(rows: NDArray[np.int64]) -> NDArray[np.int8]:
            refuter.piece, refuter.head_rows = self._scoring.limited(piece), self._scoring.limited(head_rows)
            return refuter.test(self.units.schedule(runs_NU[rows]))

        for rows, verdicts in self._scoring.run_pieces(np.arange(len(runs_NU)), count, test):
            self.executions += refuter.executions
            refuter.executions = 0
            answers = zip(runs_NU[rows], verdicts, strict=True)
            yield (
                slice(int(rows[0]), int(rows[-1]) + 1),
                [self._settle(prompt, runs, tokens, int(verdict)) for runs, verdict in answers],
            )

    def _settle(self, prompt: PromptState, runs_U: Mask, tokens: Seq[int], verdict: int) -> bool:
        if verdict != Verdict.TIE:
            return verdict == Verdict.YES
        return self.alone(prompt, tuple(np.flatnonzero(runs_U).tolist())) == tuple(tokens)

    def _remaining(self, prompts: Seq[PromptState]) -> Footprint:
        """What is left of the memory beside the open prompts."""
        tokens = sum({id(prompt): prompt.length for prompt in prompts}.values())
        return self.footprint.after_prompts(tokens, self.model.layers)

    def _fed(self, prompt: PromptState, known: int) -> int:
        """Tokens of a pass that scores a continuation of so many tokens."""
        return max(1, known - 1) + (0 if self.shared_prompt else prompt.length)
