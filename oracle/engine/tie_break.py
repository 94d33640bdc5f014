"""Decides near-ties: runs one allocation again alone, one token at a time, as plain generation does.

Alone means by the model's own attention over a copy of the prompt's states, at batch 1: passes of the same shapes as
those of the library's `generate` on the cut model, and so the very same numbers. Where they are not (`same_as_plain`
compares the bits), plain generation itself decides. Tokens before and between the near-ties are known, so that the
vocabulary head is applied to the near-ties only, and nothing is run after the last of them unless it turned out
otherwise.
"""

from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from oracle.engine.decode import Generation, Settings
from oracle.engine.prompts import PromptState
from oracle.engine.reference import plain_generate, plain_logits
from oracle.engine.row_batch import RowBatch
from oracle.engine.schedule import Schedule
from oracle.engine.score import continuation_pass
from oracle.models.decoder import Decoder
from oracle.models.layer_call import Call
from oracle.models.loading import LanguageModel

__all__ = ["TieBreaker", "alone_logits", "look_again", "run_alone", "same_as_plain"]

COMPARED = 4
"""Tokens of plain generation that are compared, bit for bit, before near-ties are settled without it."""


class TieBreaker:
    """Settles the near-ties of outputs that were decoded in a batch.

    Args:
        model: the language model.
        settings: as for plain generation of one output.
        notes: list to which events for the run's log are appended.
        products: whether batches have products of their own, whose near-ties are looked at again with the library's.
    """

    def __init__(
        self, model: LanguageModel, settings: Settings, notes: list[dict[str, Any]], *, products: bool
    ) -> None:
        self._model, self._settings, self._notes, self._products = model, settings, notes, products
        # Caches that drop what a window hides make passes of other shapes than ours.
        self._alone_is_plain: bool | None = False if model.decoder.positions.windowed else None

    def settle(
        self, prompt: PromptState, calls: Seq[Call], schedule: Schedule, known: Generation
    ) -> tuple[Generation, bool]:
        """An output with every near-tie decided, and whether one of them made it run again alone.

        Args:
            prompt: the prompt.
            calls: the layer executions of the allocation.
            schedule: the steps of the one allocation.
            known: the output as the batch gave it, with its near-ties.
        """
        if known.ties and self._products:
            known = self._looked_at_again(prompt, schedule, known)
        if not known.ties:
            return known, False
        if self._alone_is_plain is None:
            self._alone_is_plain = self._compare(prompt, calls, schedule)
        if self._alone_is_plain:
            return run_alone(self._model.decoder, prompt, schedule, self._settings, known), True
        tokens = plain_generate(self._model, prompt.tokens, calls, self._settings)
        if known.dropped and tokens[: len(known.tokens)] == known.tokens:
            return known, True
        [finished] = self._settings.ended([(prompt.tokens, tokens)])
        return Generation(tokens=tokens, finished=finished, margin=known.margin), True

    def _looked_at_again(self, prompt: PromptState, schedule: Schedule, known: Generation) -> Generation:
        """The output without those near-ties that are none by the library's products."""
        most = self._model.decoder.one_pass
        if most is not None and prompt.length + len(known.tokens) > most:
            return known  # one pass over all tokens is not what generation computes
        return look_again(self._model.decoder, prompt, schedule, self._settings, known)

    def _compare(self, prompt: PromptState, calls: Seq[Call], schedule: Schedule) -> bool:
        """Whether near-ties may be settled by `run_alone`: its logits are those of plain generation, bit for bit."""
        few = replace(self._settings, max_new_tokens=min(COMPARED, self._settings.max_new_tokens))
        plain = plain_logits(self._model, prompt.tokens, calls, few)
        same = same_as_plain(self._model.decoder, prompt, schedule, plain)
        if not same:
            self._notes.append({"event": "near-ties are settled by plain generation", "reason": "other bits alone"})
        return same


@torch.inference_mode()
def look_again(
    decoder: Decoder, prompt: PromptState, schedule: Schedule, settings: Settings, known: Generation
) -> Generation:
    """An output of a batch with products of its own, its near-ties decided by the library's products in one pass.

    What remains a near-tie by their rounding stays one, and so does a token that they do not choose: both are for
    `run_alone`.

    Args:
        decoder: the model.
        prompt: the prompt.
        schedule: the steps of the one allocation.
        settings: stops, scope, and the rounding of the library's products.
        known: the output as the batch gave it, with its near-ties.
    """
    begun = 1 if prompt.given else 0
    logits = {0: prompt.logits_V} if prompt.given and 0 in known.ties else {}
    if known.ties[-1] >= begun:
        done, start = continuation_pass(decoder, prompt, schedule, known.tokens[: known.ties[-1]], piece=1)
        [node] = done.node_A.tolist()
        places = [start + step - begun for step in known.ties if step >= begun]
        logits_TV = decoder.finish(done.hidden_OTD[node, places][:, None])[:, 0]
        logits |= dict(zip([step for step in known.ties if step >= begun], logits_TV, strict=True))
    rows = [(prompt.tokens, known.tokens[:step]) for step in known.ties]
    tokens_T, _, near = settings.choose(torch.stack([logits[step] for step in known.ties]), rows)
    wrong = [token != known.tokens[step] for step, token in zip(known.ties, tokens_T.tolist(), strict=True)]
    ties = [step for step, tie, other in zip(known.ties, near, wrong, strict=True) if tie or other]
    return replace(known, ties=tuple(ties))


@torch.inference_mode()
def run_alone(
    decoder: Decoder, prompt: PromptState, schedule: Schedule, settings: Settings, known: Generation
) -> Generation:
    """The output of one allocation, every near-tie decided alone.

    Args:
        decoder: the model.
        prompt: the prompt.
        schedule: the steps of the one allocation.
        settings: lengths, stops, scope.
        known: the output as a batch gave it, with its near-ties.
    """
    batch = RowBatch(
        decoder,
        [prompt],
        schedule,
        new_tokens=settings.max_new_tokens,
        by_reference=False,
    )
    tokens: list[int] = []
    hidden: Tensor | None = None if prompt.given else batch.run_rest()
    for step, token in enumerate(known.tokens):
        if step in known.ties:
            chosen = _best(decoder, prompt, hidden, settings, tokens)
            if chosen != token:
                return _continue_alone(decoder, batch, settings, [*tokens, chosen], known.margin)
            if step == known.ties[-1]:
                return known
        tokens.append(token)
        hidden = _feed(batch, token, decoder)
    return known


def _continue_alone(
    decoder: Decoder, batch: RowBatch, settings: Settings, tokens: list[int], margin: float
) -> Generation:
    """Goes on alone where the batch's output was not right."""
    [prompt] = batch.prompts
    while not settings.ended([(prompt.tokens, tokens)])[0] and len(tokens) < settings.max_new_tokens:
        hidden = _feed(batch, tokens[-1], decoder)
        tokens.append(_best(decoder, prompt, hidden, settings, tokens))
    return Generation(tokens=tuple(tokens), finished=settings.ended([(prompt.tokens, tokens)])[0], margin=margin)


def _best(decoder: Decoder, prompt: PromptState, hidden: Tensor | None, settings: Settings, tokens: Seq[int]) -> int:
    logits_V = prompt.logits_V if hidden is None else decoder.finish(hidden)[0, 0]
    return settings.one(logits_V, (prompt.tokens, tokens))


def _feed(batch: RowBatch, token: int, decoder: Decoder) -> Tensor:
    return batch.forward(torch.tensor([token], device=decoder.device), [token])


@torch.inference_mode()
def alone_logits(decoder: Decoder, prompt: PromptState, schedule: Schedule, tokens: Seq[int]) -> Tensor:
    """Logits (T V) for each of these tokens, from running one allocation alone, token by token.

    Args:
        decoder: the model.
        prompt: the prompt.
        schedule: the steps of the one allocation.
        tokens: the output, at least one token.
    """
    batch = RowBatch(decoder, [prompt], schedule, new_tokens=len(tokens), by_reference=False)
    found = [prompt.logits_V if prompt.given else decoder.finish(batch.run_rest())[0, 0]]
    found += [decoder.finish(_feed(batch, token, decoder))[0, 0] for token in tokens[:-1]]
    return torch.stack(found)


def same_as_plain(
    decoder: Decoder,
    prompt: PromptState,
    schedule: Schedule,
    plain: tuple[tuple[int, ...], Tensor],
) -> bool:
    """Whether running one allocation alone gives the logits of plain generation, bit for bit.

    Args:
        decoder: the model.
        prompt: the prompt.
        schedule: the steps of the one allocation.
        plain: tokens and logits (T V) of plain generation.
    """
    tokens, logits_TV = plain
    found_TV = alone_logits(decoder, prompt, schedule, tokens)
    return torch.equal(found_TV.to(logits_TV.dtype), logits_TV)
