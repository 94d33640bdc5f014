"""From (sequence, allocations) to outcomes: the one door to the engine."""

import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.config import SearchConfig
from oracle.engine.confirm import Confirmation
from oracle.engine.decode import Generation, Settings, greedy_decode
from oracle.engine.divergence import divergences
from oracle.engine.gated import GatedGeneration, GatedScore, gated_decode, gated_score
from oracle.engine.gates import Gate
from oracle.engine.hidden_states import Hidden
from oracle.engine.memory_budget import Footprint
from oracle.engine.oom_backoff import Backoff, no_backoff
from oracle.engine.prompts import PromptState, batchable, encode, encode_choice, prompt_pass
from oracle.engine.reference import Difference, first_difference, plain_generate, plain_logits
from oracle.engine.same_output import Refuter, Verdict
from oracle.engine.schedule import Mask, Schedule, Units
from oracle.engine.score import ContinuationScore, continuation_scores
from oracle.engine.tie_break import TieBreaker
from oracle.engine.trial import try_cut_model
from oracle.errors import InputError
from oracle.metrics import Bound
from oracle.models.greedy import Processors, StopTexts
from oracle.models.loading import LanguageModel
from oracle.store.hidden import HiddenStore
from oracle.types import Allocation, Asked, Sequence

__all__ = ["Engine", "Request"]

PROCESSED_COPIES = 2
"""Factor on the memory of a row's logits where processors make scores of them, in float32."""

Value = TypeVar("Value")

Request = tuple[PromptState, Allocation]
"""One output to generate: a prompt and the units that run."""


class Engine:
    """Evaluates many allocations of a sequence at a time.

    An outcome does not depend on what shared its batch: where the two best tokens come within rounding of each other,
    the allocation is run again alone, as plain generation does it, and that output counts.

    Args:
        model: the language model.
        config: scope, token limit, batch size, memory limit, chat template, stop texts, generation_config.
        store: keeps hidden states; None to compute them whenever they are asked for.

    Attributes:
        units: what allocations are made of.
        rising: whether allocations must be rising subsets of the units: all scopes but `sequence`, in which a prompt
            has run each unit once before.
        hidden: states of any sequence under any allocation, with what was found in the store and what was not.
        stop: token ids that end an output.
        stop_texts: texts that end an output; None for none.
        processors: what the model's `generation_config` makes of logits; None for nothing. Likelihoods are those of
            the model itself.
        executions: layer x token units executed so far, as every kind of evaluation counts them.
        tie: leads, in logits, up to which a token is a near-tie and settled alone.
        products: whether batches are decoded with products of their own; near-ties by the wider measure of such
            products are then looked at again with the library's.
        notes: what the run's log should say; for the reader to clear.
    """

    def __init__(self, model: LanguageModel, config: SearchConfig, store: HiddenStore | None = None) -> None:
        self.model = model
        self.config = config
        self.rising = config.scope != "sequence"
        self.tie = model.decoder.rounding.near_tie if config.near_tie is None else config.near_tie
        self.products = model.decoder.products is not None and not math.isinf(self.tie)
        self.stop, texts, self.processors = model.stop, config.stop, None
        if config.generation_config:
            settings = model.generation.honoured
            named = settings.get("stop_strings", ())
            texts = tuple(dict.fromkeys([*([named] if isinstance(named, str) else named), *texts]))
            self.processors = Processors.of(
                model.network,
                settings,
                stop=model.generation.end_tokens,
                max_new_tokens=config.max_new_tokens,
            )
        elif self.stop and model.tokenizer.eos_token_id is not None:
            self.stop |= {model.tokenizer.eos_token_id}
        self.stop_texts = StopTexts(model.tokenizer, texts) if texts else None
        self.footprint = Footprint.of(model.decoder, config.memory)
        if self.processors is not None:
            self.footprint = replace(self.footprint, logits=PROCESSED_COPIES * self.footprint.logits)
        self.units = Units(model.decoder, config.unit)
        self.hidden = Hidden(model, self.units, config, store)
        self.executions = 0
        self.notes: list[dict[str, Any]] = []
        self._decoding, self._scoring = Backoff("decoding", self.notes), Backoff("scoring", self.notes)
        self._ties = TieBreaker(model, self._settings(1), self.notes, products=self.products)
        with no_backoff():
            try_cut_model(model, self.units, self._settings(1))

    def rounding(self) -> dict[str, Any]:
        """The measured rounding, the near-tie rule in force, and whose products batches have, for a manifest."""
        found = self.model.decoder.rounding.to_dict() | {"products": "oneDNN" if self.products else "torch"}
        return found | ({} if math.isinf(self.tie) else {"near_tie": self.tie})

    def generation(self) -> dict[str, Any]:
        """How greedy decoding is set up, for a manifest."""
        settings = self.model.generation.to_dict()
        if not self.config.generation_config:
            settings |= {"honoured": {}, "left_out": settings["honoured"]}
        return settings | {
            "end_tokens": sorted(self.stop),
            "stop_texts": list(self.stop_texts.texts) if self.stop_texts else [],
            "text": "ends before the first stop text; tokens include it",
            "likelihoods": "of the model itself, before any processor",
        }

    def remarks(self) -> list[str]:
        """What a user should know of how outputs are decoded, a line each; empty for plain greedy decoding."""
        lines = self.model.generation.lines(honour=self.config.generation_config)
        least = self.model.generation.honoured.get("min_new_tokens", 0) if self.processors else 0
        if least >= self.config.max_new_tokens:
            lines.append(
                f"No output ends before --max-new-tokens {self.config.max_new_tokens}: min_new_tokens is {least}"
            )
        if self.config.stop:
            lines.append(f"Outputs end at {', '.join(map(repr, self.config.stop))}; the scored text ends before it")
        if self.config.prune and self._hides_stops:
            lines.append(f"--prune is off: the stop text {self._hides_stops[0]!r} has tokens that texts do not show")
        return lines

    @property
    def _hides_stops(self) -> list[str]:
        """Stop texts with which the final text of an output has no bound."""
        return self.stop_texts.hidden if self.stop_texts else []

    def text(self, tokens: Seq[int]) -> str:
        """Decoded tokens without special ones, up to the first stop text."""
        text = self.model.text(tokens)
        if self.stop_texts is None:
            return text
        if (end := self.stop_texts.cut(text)) >= 0:
            return text[:end]
        # A stop text with special tokens shows only among them.
        tokenizer = self.model.tokenizer
        if not self.stop_texts.hidden or (end := self.stop_texts.cut(str(tokenizer.decode(list(tokens))))) < 0:
            return text
        for count in range(len(tokens), -1, -1):
            before = str(tokenizer.decode(list(tokens[:count])))
            if len(before) <= end:
                return self.model.text(tokens[:count]) + str(tokenizer.decode(list(tokens)))[len(before) : end]
        return ""

    def encode(self, prompt: Asked | Sequence) -> list[int]:
        """Token ids of a prompt; a sequence of a run is not rendered again. See `oracle.engine.prompts.encode`."""
        return encode(self.model, prompt, self.config)

    def encode_choice(self, sequence: Sequence, choice: str) -> list[int]:
        """Token ids of a choice after a sequence's prompt. See `oracle.engine.prompts.encode_choice`."""
        return encode_choice(self.model.tokenizer, sequence, choice, self.config)

    @no_backoff()
    def open(self, prompt: Asked | Sequence) -> PromptState:
        """Runs a prompt once at full depth, for all of its allocations."""
        opened = prompt_pass(self.model.decoder, self.encode(prompt), self.config.scope)
        return replace(opened, first=self._settings(1).one(opened.logits_V, (opened.tokens, ())))

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
            self.units.check(allocation, rising=self.rising)
        if not requests:
            return []
        schedule = self.units.steps([allocation for _, allocation in requests])
        generations = self._decode(requests, schedule, thresholds, products=self.products)
        for (prompt, allocation), generation in zip(requests, generations, strict=True):
            self.executions += len(allocation) * (len(generation.tokens) - 1 + prompt.own)
        with no_backoff():
            return [
                self._ties.settle(prompt, self.units.calls(allocation), schedule.of_rows(np.array([index])), generation)
                for index, ((prompt, allocation), generation) in enumerate(zip(requests, generations, strict=True))
            ]

    def _decode(
        self,
        requests: Seq[Request],
        schedule: Schedule,
        thresholds: Seq[tuple[Bound, float]] | None = None,
        *,
        products: bool = False,
    ) -> list[Generation]:
        def unreachable(index: int, tokens: Seq[int]) -> bool:
            if thresholds is None or self._hides_stops:
                return False
            bound, least = thresholds[index]
            remaining, text = self.config.max_new_tokens - len(tokens), self.model.text(tokens)
            # The end of the text may turn out to begin a stop text, and is then cut off.
            texts = [text, *(self.stop_texts.beginnings(text) if self.stop_texts else [])]
            return all(bound.upper(tokens, one, remaining) < least for one in texts)

        def decode(some: list[int], rows: int) -> list[Generation]:
            return greedy_decode(
                self.model.decoder,
                [requests[index][0] for index in some],
                schedule.of_rows(np.array(some)),
                self._settings(rows, products=products),
                lambda place, tokens: unreachable(some[place], tokens),
            )

        most = self._rows(requests, schedule)
        by_request: dict[int, Generation] = {}
        for some in batchable(self.model.decoder, [prompt for prompt, _ in requests]):
            found = self._decoding.run(min(most, len(some)), partial(decode, some))
            by_request |= zip(some, found, strict=True)
        return [by_request[index] for index in range(len(requests))]

    def _settings(self, rows: int, *, products: bool = False) -> Settings:
        decoder = self.model.decoder
        wide = products and self.config.near_tie is None
        # A row that joins late has empty slots between a shared prompt and its own tokens.
        gaps = self.rising and decoder.shares_prompts and decoder.positions.windowed
        return Settings(
            max_new_tokens=self.config.max_new_tokens,
            stop=self.stop,
            scope=self.config.scope,
            tie=decoder.rounding.near_tie_in_batches if wide else self.tie,
            rows=rows,
            join=decoder.positions.mix and not gaps,
            processors=self.processors,
            stop_texts=self.stop_texts,
            products=products,
        )

    def _rows(self, requests: Seq[Request], schedule: Schedule) -> int:
        """How many requests may be decoded at once under the memory limit, whichever they are.

        Raises:
            InputError: if not even one fits.
        """
        footprint = self._remaining([prompt for prompt, _ in requests])
        by_reference = self.rising and self.model.decoder.shares_prompts
        longest = max(prompt.length for prompt, _ in requests)
        read = 1 if self.rising else longest
        slots, costs = 0 if by_reference else longest, schedule.runs_AI.sum(1)
        rows = min(self._most_rows, footprint.rows(costs, slots + self.config.max_new_tokens, read))
        if rows >= len(requests):
            return rows
        # Rows that join late begin where the others stand: their caches have room for two outputs.
        slots += 2 * self.config.max_new_tokens
        if footprint.row(int(costs.max()), slots, read) > footprint.limit:
            return 1  # one after the other: no row joins late
        return min(self._most_rows, footprint.rows(costs, slots, read))

    @property
    def _most_rows(self) -> int:
        return 1 if self.model.decoder.rounding.interact else self.config.batch_rows

    @no_backoff()
    def alone(self, prompt: PromptState, allocation: Allocation) -> tuple[int, ...]:
        """The output of plain generation on a model cut to the allocation."""
        self.units.check(allocation, rising=self.rising)
        return plain_generate(self.model, prompt.tokens, self.units.calls(allocation), self._settings(1))

    def confirming(self, prompt: Asked | Sequence) -> Callable[[Allocation, Seq[int]], bool]:
        """Whether recorded outputs of a prompt are those of plain generation; see `Confirmation`."""
        tokens_T = torch.tensor(self.encode(prompt), device=self.model.network.device)
        confirm = Confirmation(self.model, tokens_T, self._settings(1))

        @no_backoff()
        def confirms(allocation: Allocation, recorded: Seq[int]) -> bool:
            self.units.check(allocation, rising=self.rising)
            return confirm(self.units.calls(allocation), recorded)

        return confirms

    @no_backoff()
    def difference(self, prompt: PromptState, allocation: Allocation, recorded: Seq[int]) -> Difference | None:
        """Where a recorded output leaves plain generation on the cut model, and by how much; None if it does not."""
        calls = self.units.calls(allocation)
        plain = plain_logits(self.model, prompt.tokens, calls, self._settings(1), wanted="scores")
        return first_difference(plain, recorded)

    def best_tokens(self, logits_TV: Tensor, prompt_T: Tensor, tokens: Seq[int], first: int = 0) -> Tensor:
        """The token that greedy decoding chooses at each place of a given text (T); see `Settings.forced`."""
        return self._settings(1).forced(logits_TV, prompt_T, tokens, first)

    def log_likelihoods(self, prompt: PromptState, allocations: Seq[Allocation], continuation: Seq[int]) -> list[float]:
        """Mean log-likelihood of one continuation under many allocations, in nats per token.

        By the model's own probabilities: what `generation_config` makes of logits is no part of them.
        """
        return [score.mean for score in self.scores(prompt, allocations, continuation)]

    def scores(
        self, prompt: PromptState, allocations: Seq[Allocation], continuation: Seq[int]
    ) -> list[ContinuationScore]:
        """Log-likelihood of one continuation under many allocations, and whether it is the greedy output of each.

        By the model's own probabilities, as in `log_likelihoods`.
        """
        for allocation in allocations:
            self.units.check(allocation, rising=self.rising)
        return self._scored(continuation_scores, prompt, self.units.steps(allocations), continuation)

    def divergences(self, prompt: PromptState, allocations: Seq[Allocation], continuation: Seq[int]) -> list[float]:
        """Mean KL divergence of many allocations from the full model over a continuation, in nats per token.

        Of the model's own probabilities, as in `log_likelihoods`. In scope `decode` the first token, which every
        allocation predicts as the full model does, is left out of the mean.
        """
        for allocation in allocations:
            self.units.check(allocation, rising=self.rising)
        schedule = self.units.steps([*allocations, tuple(range(self.units.count))])
        return self._scored(divergences, prompt, schedule, continuation, references=1)

    def _scored(
        self,
        score: Callable[..., tuple[list[Value], int]],
        prompt: PromptState,
        schedule: Schedule,
        tokens: Seq[int],
        *,
        references: int = 0,
    ) -> list[Value]:
        """One value per allocation of a schedule, piece by piece as memory allows.

        The last `references` rows of the schedule take part in every piece and have no value of their own.
        """
        total = len(schedule.runs_AI) - references
        count, piece, head_rows = self._remaining([prompt]).pieces(self._fed(prompt, len(tokens)))
        if self.model.decoder.rounding.interact:
            count = piece = 1

        def work(rows: NDArray[np.int64]) -> tuple[list[Value], int]:
            return score(
                self.model.decoder,
                prompt,
                schedule.of_rows(np.concatenate([rows, np.arange(total, total + references)])),
                tokens,
                piece=self._scoring.limited(piece),
                head_rows=self._scoring.limited(head_rows),
            )

        by_row: dict[int, Value] = {}
        # Neighbours in lexicographic order share their beginnings.
        order = np.lexsort(schedule.runs_AI[:total].T[::-1])
        for rows, (found, executions) in self._scoring.run_pieces(order, count, work):
            by_row |= zip(rows.tolist(), found, strict=False)
            self.executions += executions
        return [by_row[row] for row in range(total)]

    def generate_gated(self, prompts: Seq[PromptState], gate: Gate) -> list[GatedGeneration]:
        """Greedy outputs under a per-token gate, which gets each prompt's position in the list.

        A near-tie between tokens is decided by running the prompt again alone, under the same gate; near-ties of the
        gate's own decisions are left to the gate.
        """

        self._check_gated()

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
        self._check_gated()
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
                self._settings(len(requests)),
            )

        rows = self._gated_rows(prompts, max(map(len, continuations)))
        pieces = self._decoding.run_pieces(np.arange(len(prompts)), rows, score)
        results = [result for _, found in pieces for result in found]
        self.executions += sum(int(result.ran_TL.sum()) for result in results)
        return results

    def _check_gated(self) -> None:
        if self.config.scope == "decode-last":
            raise InputError("gates run in scope decode or sequence, not decode-last; search in one of these")

    def _gated_rows(self, prompts: Seq[PromptState], new_tokens: int) -> int:
        slots = max(prompt.length for prompt in prompts) + new_tokens
        rows = self._remaining(prompts).rows([self.model.layers] * len(prompts), slots, slots)
        return min(self._most_rows, rows) if self.model.decoder.positions.mix else 1

    def reproduces(self, prompt: PromptState, runs_AU: Mask, tokens: Seq[int]) -> Iterator[tuple[slice, list[bool]]]:
        """Which allocations give exactly this output, piece by piece; nothing is decoded.

        Args:
            prompt: the prompt.
            runs_AU: skip masks as booleans (A U). Neighbours share most if the rows are in lexicographic order.
            tokens: the output, with its stop token or at the token limit.
        """
        most = self.model.decoder.one_pass
        if most is not None and prompt.length + len(tokens) > most:
            for row, runs_U in enumerate(runs_AU):  # one pass over all tokens is not what generation computes
                yield slice(row, row + 1), [self._settle(prompt, runs_U, tokens, Verdict.TIE)]
            return
        count, piece, head_rows = self._remaining([prompt]).pieces(self._fed(prompt, 2))
        refuter = Refuter(
            self.model.decoder,
            prompt,
            tokens,
            tie=self.tie,
            piece=piece,
            head_rows=head_rows,
            processors=self.processors,
        )

        def test(rows: NDArray[np.int64]) -> NDArray[np.int8]:
            refuter.piece, refuter.head_rows = self._scoring.limited(piece), self._scoring.limited(head_rows)
            return refuter.test(self.units.schedule(runs_AU[rows]))

        for rows, verdicts in self._scoring.run_pieces(np.arange(len(runs_AU)), count, test):
            self.executions += refuter.executions
            refuter.executions = 0
            answers = zip(runs_AU[rows], verdicts, strict=True)
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
        """Tokens of a pass that scores a continuation of `known` tokens."""
        return max(1, known - 1) + prompt.own
