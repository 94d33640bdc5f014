"""Decides near-ties: runs one allocation again alone, one token at a time, as plain generation does.

Alone means by the model's own attention over a copy of the prompt's states, at batch 1: passes of the same shapes as
those of the library's `generate` on the cut model, and so the very same numbers. Where they are not (`same_as_plain`
compares the bits), plain generation itself decides. Tokens before and between the near-ties are known, so that the
vocabulary head is applied to the near-ties only, and nothing is run after the last of them unless it turned out
otherwise.
"""

from collections.abc import Sequence as Seq

import torch
from torch import Tensor

from oracle.engine.decode import Generation, Settings
from oracle.engine.prompts import PromptState
from oracle.engine.row_batch import RowBatch
from oracle.engine.schedule import Schedule
from oracle.models.decoder import Decoder

__all__ = ["run_alone", "same_as_plain"]


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
        shared_prompt=settings.shared_prompt,
        by_reference=False,
    )
    tokens: list[int] = []
    hidden: Tensor | None = None if settings.shared_prompt else batch.run_prompts()
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
def same_as_plain(
    decoder: Decoder,
    prompt: PromptState,
    schedule: Schedule,
    plain: tuple[tuple[int, ...], Tensor],
    *,
    shared_prompt: bool,
) -> bool:
    """Whether running one allocation alone gives the logits of plain generation, bit for bit.

    Args:
        decoder: the model.
        prompt: the prompt.
        schedule: the steps of the one allocation.
        plain: tokens and logits (T V) of plain generation.
        shared_prompt: scope `decode` rather than `sequence`.
    """
    tokens, logits_TV = plain
    batch = RowBatch(
        decoder, [prompt], schedule, new_tokens=len(tokens), shared_prompt=shared_prompt, by_reference=False
    )
    found = [prompt.logits_V if shared_prompt else decoder.finish(batch.run_prompts())[0, 0]]
    found += [decoder.finish(_feed(batch, token, decoder))[0, 0] for token in tokens[:-1]]
    return torch.equal(torch.stack(found).to(logits_TV.dtype), logits_TV)
