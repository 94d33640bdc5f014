"""From (sequence, allocations) to outcomes: the one door to the engine."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq

import numpy as np
import torch

from oracle.config import SearchConfig
from oracle.engine.decode import Generation, Request, greedy_decode
from oracle.engine.memory import Footprint, too_small
from oracle.engine.plain import plain_generate
from oracle.engine.prompts import PromptState, encode, prompt_pass
from oracle.engine.refute import Refuter, Verdict
from oracle.engine.score import log_likelihoods
from oracle.engine.sharing import Mask, as_masks
from oracle.models.loading import LanguageModel
from oracle.quality import Bound
from oracle.types import Allocation

__all__ = ["Engine"]

TIES = {torch.float32: 1e-3, torch.float16: 0.06, torch.bfloat16: 0.5}
"""Leads, in logits, that rounding may turn round: a rule of thumb by dtype. In float32 it is twice the largest
difference between batched and single decoding seen in 2,880 outputs of the embedded model."""


class Engine:
    """Evaluates many allocations of a sequence at a time.

    An outcome does not depend on what shared its batch: where the two best tokens come within rounding of each other,
    the allocation is run again alone, by plain generation, and that output counts.

    Args:
        model: the language model.
        config: scope, token limit, batch size, memory limit, chat template.

    Attributes:
        executions: layer x token units executed so far, as every kind of evaluation counts them.
    """

    def __init__(self, model: LanguageModel, config: SearchConfig) -> None:
        self.model = model
        self.config = config
        self.shared_prompt = config.scope == "decode"
        self.tie = TIES.get(model.network.dtype, 1e-3)
        self.footprint = Footprint.of(model.decoder, config.memory)
        self.executions = 0

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt; see `oracle.engine.prompts.encode`."""
        return encode(
            self.model,
            prompt,
            chat_template=self.config.chat_template,
            new_tokens=self.config.max_new_tokens,
        )

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
        # Rows of one prompt stand together, so that their attention over it is one product.
        order = sorted(range(len(requests)), key=lambda index: id(requests[index][0]))
        results: dict[int, tuple[Generation, bool]] = {}
        for batch in self._batches(requests, order):
            limits = None if thresholds is None else [thresholds[index] for index in batch]
            generations = self._decode([requests[index] for index in batch], limits)
            for index, generation in zip(batch, generations, strict=True):
                results[index] = self._resolve(requests[index], generation)
        return [results[index] for index in range(len(requests))]

    def _decode(self, batch: Seq[Request], thresholds: Seq[tuple[Bound, float]] | None = None) -> list[Generation]:
        def hopeless(index: int, tokens: Seq[int]) -> bool:
            if thresholds is None:
                return False
            bound, least = thresholds[index]
            remaining = self.config.max_new_tokens - len(tokens)
            return bound.upper(tokens, self.model.text(tokens), remaining) < least

        generations = greedy_decode(
            self.model.decoder,
            batch,
            max_new_tokens=self.config.max_new_tokens,
            stop=self.model.stop,
            shared_prompt=self.shared_prompt,
            hopeless=hopeless,
        )
        for (prompt, allocation), generation in zip(batch, generations, strict=True):
            fed = len(generation.tokens) - 1 + (0 if self.shared_prompt else prompt.length)
            self.executions += len(allocation) * fed
        return generations

    def _resolve(self, request: Request, generation: Generation) -> tuple[Generation, bool]:
        if generation.margin > self.tie:
            return generation, False
        tokens = self.alone(*request)
        finished = tokens[-1] in self.model.stop
        return Generation(tokens=tokens, finished=finished, margin=generation.margin), True

    def alone(self, prompt: PromptState, allocation: Allocation) -> tuple[int, ...]:
        """The output of plain generation on a model cut to the allocation."""
        return plain_generate(
            self.model,
            prompt.tokens,
            allocation,
            max_new_tokens=self.config.max_new_tokens,
            shared_prompt=self.shared_prompt,
        )

    def log_likelihoods(self, prompt: PromptState, allocations: Seq[Allocation], continuation: Seq[int]) -> list[float]:
        """Mean log-likelihood of one continuation under many allocations, in nats per token."""
        runs_NL = as_masks(list(allocations), self.model.layers)
        count, piece, head_rows = self.footprint.pieces(self._fed(prompt, len(continuation)))
        values = np.empty(len(runs_NL))
        for rows in _neighbours(runs_NL, count):
            values[rows], executions = log_likelihoods(
                self.model.decoder,
                prompt,
                runs_NL[rows],
                continuation,
                shared_prompt=self.shared_prompt,
                piece=piece,
                head_rows=head_rows,
            )
            self.executions += executions
        return values.tolist()

    def reproduces(self, prompt: PromptState, runs_NL: Mask, tokens: Seq[int]) -> Iterator[tuple[slice, list[bool]]]:
        """Which allocations give exactly this output, piece by piece; nothing is decoded.

        Args:
            prompt: the prompt.
            runs_NL: the allocations as booleans. Neighbours share most if the rows are in lexicographic order.
            tokens: the output, with its stop token or at the token limit.
        """
        count, piece, head_rows = self.footprint.pieces(self._fed(prompt, 2))
        refuter = Refuter(
            self.model.decoder,
            prompt,
            tokens,
            shared_prompt=self.shared_prompt,
            tie=self.tie,
            piece=piece,
            head_rows=head_rows,
        )
        for start in range(0, len(runs_NL), count):
            rows = slice(start, min(start + count, len(runs_NL)))
            verdicts = refuter.test(runs_NL[rows])
            self.executions += refuter.executions
            refuter.executions = 0
            yield (
                rows,
                [self._settle(prompt, runs, tokens, int(v)) for runs, v in zip(runs_NL[rows], verdicts, strict=True)],
            )

    def _settle(self, prompt: PromptState, runs_L: Mask, tokens: Seq[int], verdict: int) -> bool:
        if verdict != Verdict.TIE:
            return verdict == Verdict.YES
        return self.alone(prompt, tuple(np.flatnonzero(runs_L).tolist())) == tuple(tokens)

    def _fed(self, prompt: PromptState, known: int) -> int:
        """Tokens of a pass that scores a continuation of so many tokens."""
        return max(1, known - 1) + (0 if self.shared_prompt else prompt.length)

    def _batches(self, requests: Seq[Request], order: Seq[int]) -> Iterator[list[int]]:
        """Cuts requests into batches that respect the row limit and the memory limit."""
        batch: list[int] = []
        used = 0
        for index in order:
            prompt, allocation = requests[index]
            needed = self._row_bytes(prompt, allocation)
            if needed > self.footprint.limit:
                raise too_small(self.footprint.limit, needed)
            if batch and (len(batch) == self.config.batch_rows or used + needed > self.footprint.limit):
                yield batch
                batch, used = [], 0
            batch.append(index)
            used += needed
        if batch:
            yield batch

    def _row_bytes(self, prompt: PromptState, allocation: Allocation) -> int:
        by_reference = self.shared_prompt and self.model.decoder.shares_prompts
        slots = self.config.max_new_tokens + (0 if by_reference else prompt.length)
        return self.footprint.row(len(allocation), slots, 1 if self.shared_prompt else prompt.length)


def _neighbours(runs_NL: Mask, count: int) -> Iterator[np.ndarray]:
    """Rows in lexicographic order, so that those of a piece share their beginnings, in pieces."""
    order = np.lexsort(runs_NL.T[::-1])
    for start in range(0, len(order), count):
        yield order[start : start + count]
