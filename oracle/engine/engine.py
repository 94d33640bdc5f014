"""From (sequence, allocations) to outcomes: the one door to the engine."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq

import numpy as np
import torch

from oracle.config import SearchConfig
from oracle.engine.decode import Generation, Settings, greedy_decode
from oracle.engine.gated import GatedGeneration, GatedScore, gated_decode, gated_score
from oracle.engine.gates import Gate
from oracle.engine.memory import Footprint
from oracle.engine.plain import plain_generate
from oracle.engine.prompts import PromptState, encode, prompt_pass
from oracle.engine.refute import Refuter, Verdict
from oracle.engine.schedule import Mask, Schedule, Units
from oracle.engine.score import log_likelihoods
from oracle.engine.solo import run_alone
from oracle.engine.states import Hidden
from oracle.errors import InputError
from oracle.models.loading import LanguageModel
from oracle.quality import Bound
from oracle.store.hidden import HiddenStore
from oracle.types import Allocation

__all__ = ["Engine", "Request"]

Request = tuple[PromptState, Allocation]
"""One output to generate: a prompt and the units that run."""

TIES = {torch.float32: 1e-3, torch.float16: 0.06, torch.bfloat16: 0.5}
"""Leads, in logits, that rounding may turn round: a rule of thumb by dtype. In float32 it is twice the largest
difference between batched and single decoding seen in 2,880 outputs of the embedded model."""


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
    """

    def __init__(self, model: LanguageModel, config: SearchConfig, store: HiddenStore | None = None) -> None:
        self.model = model
        self.config = config
        self.shared_prompt = config.scope == "decode"
        self.tie = TIES.get(model.network.dtype, 1e-3)
        self.footprint = Footprint.of(model.decoder, config.memory)
        self.units = Units(model.decoder, config.unit)
        self.hidden = Hidden(model, self.units, config, store)
        self.executions = 0

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt; see `oracle.engine.prompts.encode`."""
        config = self.config
        return encode(self.model, prompt, chat_template=config.chat_template, new_tokens=config.max_new_tokens)

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
        def hopeless(index: int, tokens: Seq[int]) -> bool:
            if thresholds is None:
                return False
            bound, least = thresholds[index]
            remaining = self.config.max_new_tokens - len(tokens)
            return bound.upper(tokens, self.model.text(tokens), remaining) < least

        settings = self._settings(self._rows(requests, schedule))
        by_request: dict[int, Generation] = {}
        for some in self._apart(requests):
            found = greedy_decode(
                self.model.decoder,
                [requests[index][0] for index in some],
                schedule.of_rows(np.array(some)),
                settings,
                lambda place, tokens, some=some: hopeless(some[place], tokens),  # type: ignore[misc]
            )
            by_request |= zip(some, found, strict=True)
        generations = [by_request[index] for index in range(len(requests))]
        for (prompt, allocation), generation in zip(requests, generations, strict=True):
            fed = len(generation.tokens) - 1 + (0 if self.shared_prompt else prompt.length)
            self.executions += len(allocation) * fed
        return generations

    def _apart(self, requests: Seq[Request]) -> list[list[int]]:
        """Requests that may share batches: all of them, or those of one prompt where positions must agree."""
        if self.model.decoder.places.mix:
            return [list(range(len(requests)))]
        groups: dict[int, list[int]] = {}
        for index, (prompt, _) in enumerate(requests):
            groups.setdefault(id(prompt), []).append(index)
        return list(groups.values())

    def _settings(self, rows: int) -> Settings:
        decoder = self.model.decoder
        # A row that joins late has empty slots between a shared prompt and its own tokens.
        gaps = self.shared_prompt and decoder.shares_prompts and decoder.places.windowed
        return Settings(
            max_new_tokens=self.config.max_new_tokens,
            stop=self.model.stop,
            shared_prompt=self.shared_prompt,
            tie=self.tie,
            rows=rows,
            join=decoder.places.mix and not gaps,
        )

    def _resolve(self, request: Request, schedule: Schedule, generation: Generation) -> tuple[Generation, bool]:
        if not generation.ties:
            return generation, False
        return run_alone(self.model.decoder, request[0], schedule, self._settings(1), generation), True

    def _rows(self, requests: Seq[Request], schedule: Schedule) -> int:
        """How many requests may be decoded at once under the memory limit, whichever they are.

        Raises:
            InputError: if not even one fits.
        """
        footprint = self._beside([prompt for prompt, _ in requests])
        by_reference = self.shared_prompt and self.model.decoder.shares_prompts
        longest = max(prompt.length for prompt, _ in requests)
        read = 1 if self.shared_prompt else longest
        for waves in (1, 2):
            # Rows that join late begin where the others stand: their caches have room for two outputs.
            slots = waves * self.config.max_new_tokens + (0 if by_reference else longest)
            needed_R = np.sort([footprint.row(cost, slots, read) for cost in schedule.runs_NS.sum(1)])[::-1]
            if needed_R[0] > footprint.limit and waves == 2:
                return 1  # one after the other: nobody joins late
            if needed_R[0] > footprint.limit:
                raise footprint.too_small(int(needed_R[0]))
            rows = min(self.config.batch_rows, int((needed_R.cumsum() <= footprint.limit).sum()))
            if rows >= len(requests):
                break
        return rows

    def alone(self, prompt: PromptState, allocation: Allocation) -> tuple[int, ...]:
        """The output of plain generation on a model cut to the allocation."""
        self.units.check(allocation, rising=self.shared_prompt)
        return plain_generate(
            self.model,
            prompt.tokens,
            self.units.calls(allocation),
            max_new_tokens=self.config.max_new_tokens,
            shared_prompt=self.shared_prompt,
        )

    def log_likelihoods(self, prompt: PromptState, allocations: Seq[Allocation], continuation: Seq[int]) -> list[float]:
        """Mean log-likelihood of one continuation under many allocations, in nats per token."""
        for allocation in allocations:
            self.units.check(allocation, rising=self.shared_prompt)
        schedule = self.units.steps(allocations)
        count, piece, head_rows = self._beside([prompt]).pieces(self._fed(prompt, len(continuation)))
        values = np.empty(len(allocations))
        for rows in _neighbours(schedule.runs_NS, count):
            values[rows], executions = log_likelihoods(
                self.model.decoder,
                prompt,
                schedule.of_rows(rows),
                continuation,
                shared_prompt=self.shared_prompt,
                piece=piece,
                head_rows=head_rows,
            )
            self.executions += executions
        return values.tolist()

    def generate_gated(self, prompts: Seq[PromptState], gate: Gate) -> list[GatedGeneration]:
        """Greedy outputs under a per-token gate, which knows each prompt by its place in the list.

        A near-tie between tokens is decided by running the prompt again alone, under the same gate; near-ties of the
        gate's own decisions are the gate's affair.
        """
        results: list[GatedGeneration] = []
        if not prompts:
            return results
        for requests in self._gated_batches(prompts, self.config.max_new_tokens):
            some = [prompts[request] for request in requests]
            settings = self._settings(len(some))
            for request, found in zip(
                requests, gated_decode(self.model.decoder, some, gate, settings, requests), strict=True
            ):
                if found.generation.ties and len(some) > 1:
                    [found] = gated_decode(self.model.decoder, [prompts[request]], gate, settings, [request])
                results.append(found)
        self.executions += sum(int(result.ran_TL.sum()) for result in results)
        return results

    def score_gated(self, prompts: Seq[PromptState], gate: Gate, continuations: Seq[Seq[int]]) -> list[GatedScore]:
        """Teacher-forced scores of a continuation of each prompt under a per-token gate."""
        results: list[GatedScore] = []
        if not prompts:
            return results
        if any(not ids for ids in continuations):
            raise InputError("continuations of at least one token are required, but one is empty; leave it out")
        for requests in self._gated_batches(prompts, max(len(ids) for ids in continuations)):
            results += gated_score(
                self.model.decoder,
                [prompts[request] for request in requests],
                gate,
                [continuations[request] for request in requests],
                requests,
                shared_prompt=self.shared_prompt,
            )
        self.executions += sum(int(result.ran_TL.sum()) for result in results)
        return results

    def _gated_batches(self, prompts: Seq[PromptState], new_tokens: int) -> Iterator[list[int]]:
        longest = max(prompt.length for prompt in prompts)
        footprint = self._beside(prompts)
        needed = footprint.row(self.model.layers, longest + new_tokens, longest + new_tokens)
        if needed > footprint.limit:
            raise footprint.too_small(needed)
        rows = min(self.config.batch_rows, footprint.limit // needed) if self.model.decoder.places.mix else 1
        for start in range(0, len(prompts), rows):
            yield list(range(start, min(start + rows, len(prompts))))

    def reproduces(self, prompt: PromptState, runs_NU: Mask, tokens: Seq[int]) -> Iterator[tuple[slice, list[bool]]]:
        """Which allocations give exactly this output, piece by piece; nothing is decoded.

        Args:
            prompt: the prompt.
            runs_NU: skip masks as booleans (N units). Neighbours share most if the rows are in lexicographic order.
            tokens: the output, with its stop token or at the token limit.
        """
        count, piece, head_rows = self._beside([prompt]).pieces(self._fed(prompt, 2))
        refuter = Refuter(
            self.model.decoder,
            prompt,
            tokens,
            shared_prompt=self.shared_prompt,
            tie=self.tie,
            piece=piece,
            head_rows=head_rows,
        )
        for start in range(0, len(runs_NU), count):
            rows = slice(start, min(start + count, len(runs_NU)))
            verdicts = refuter.test(self.units.schedule(runs_NU[rows]))
            self.executions += refuter.executions
            refuter.executions = 0
            yield (
                rows,
                [self._settle(prompt, runs, tokens, int(v)) for runs, v in zip(runs_NU[rows], verdicts, strict=True)],
            )

    def _settle(self, prompt: PromptState, runs_U: Mask, tokens: Seq[int], verdict: int) -> bool:
        if verdict != Verdict.TIE:
            return verdict == Verdict.YES
        return self.alone(prompt, tuple(np.flatnonzero(runs_U).tolist())) == tuple(tokens)

    def _beside(self, prompts: Seq[PromptState]) -> Footprint:
        """What is left of the memory beside the open prompts."""
        tokens = sum({id(prompt): prompt.length for prompt in prompts}.values())
        return self.footprint.beside(tokens, self.model.layers)

    def _fed(self, prompt: PromptState, known: int) -> int:
        """Tokens of a pass that scores a continuation of so many tokens."""
        return max(1, known - 1) + (0 if self.shared_prompt else prompt.length)


def _neighbours(runs_NS: Mask, count: int) -> Iterator[np.ndarray]:
    """Rows in lexicographic order, so that those of a piece share their beginnings, in pieces."""
    order = np.lexsort(runs_NS.T[::-1])
    for start in range(0, len(order), count):
        yield order[start : start + count]
