"""From (sequence, allocations) to outcomes: the one door to the engine."""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from typing import TypeVar

import torch

from oracle.config import SearchConfig
from oracle.engine.decode import Generation, Request, greedy_decode
from oracle.engine.plain import plain_generate
from oracle.engine.prompts import PromptState, encode, prompt_pass
from oracle.engine.score import log_likelihoods
from oracle.models.loading import LanguageModel
from oracle.types import Allocation

__all__ = ["Engine"]

T = TypeVar("T")

TOKENS_AT_ONCE = 8192
"""Prompt or reference tokens, over all rows of a batch, that pass through a layer at once: bounds activations."""

ROUNDING = 2.0**13
"""Widest rounding difference between two ways to compute a logit, in units of the dtype's epsilon."""


class Engine:
    """Evaluates many allocations of a sequence at a time.

    An outcome does not depend on what shared its batch: where the two best tokens come within rounding of each other,
    the allocation is run again alone, by plain generation, and that output counts.

    Args:
        model: the language model.
        config: scope, token limit, batch size, chat template.
    """

    def __init__(self, model: LanguageModel, config: SearchConfig) -> None:
        self.model = model
        self.config = config
        self.shared_prompt = config.scope == "decode"
        self.tie = ROUNDING * torch.finfo(model.network.dtype).eps

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

    def generate(self, requests: Seq[Request]) -> list[tuple[Generation, bool]]:
        """Greedy outputs, each with whether a near-tie made it run again alone."""
        return [
            self._resolve(request, generation)
            for batch in self._batches(requests, lambda request: request[0].length)
            for request, generation in zip(batch, self._decode(batch), strict=True)
        ]

    def _decode(self, batch: Seq[Request]) -> list[Generation]:
        return greedy_decode(
            self.model.decoder,
            batch,
            max_new_tokens=self.config.max_new_tokens,
            stop=self.model.stop,
            shared_prompt=self.shared_prompt,
        )

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
            prompt,
            allocation,
            max_new_tokens=self.config.max_new_tokens,
            shared_prompt=self.shared_prompt,
        )

    def log_likelihoods(self, prompt: PromptState, allocations: Seq[Allocation], continuation: Seq[int]) -> list[float]:
        """Mean log-likelihood of one continuation under many allocations, in nats per token."""
        requests = [(prompt, allocation) for allocation in allocations]
        return [
            score
            for batch in self._batches(requests, lambda request: request[0].length + len(continuation))
            for score in log_likelihoods(
                self.model.decoder,
                batch,
                [continuation] * len(batch),
                shared_prompt=self.shared_prompt,
            )
        ]

    def _batches(self, items: Seq[T], tokens: Callable[[T], int]) -> Iterator[list[T]]:
        """Cuts work into batches that respect the row limit and bound the tokens in flight."""
        batch: list[T] = []
        longest = 0
        for item in items:
            longest = max(longest, tokens(item))
            full = len(batch) == self.config.batch_rows
            if batch and (full or longest * (len(batch) + 1) > TOKENS_AT_ONCE):
                yield batch
                batch, longest = [], tokens(item)
            batch.append(item)
        if batch:
            yield batch
