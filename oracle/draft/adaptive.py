"""Choices while decoding: CLaSp's mask at every verified prefix, KnapSpec's after the prompt, and SWIFT's score.

All see only tokens that the full model has run when they choose.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import replace

import numpy as np

from oracle.draft.searches import sublayers_of
from oracle.engine import DraftEngine, Engine, PromptState, VerifiedOutput
from oracle.engine.layer_importance import HiddenStates
from oracle.engine.schedule import as_masks
from oracle.types import Allocation

__all__ = ["clasp_masks", "knapspec_choice", "knapspec_mask", "knapspec_weights", "swift_score", "tokens_per_time"]

HEAVIEST = 5
"""KnapSpec's cap on the weight of a unit (code)."""

SIMILAR = 0.5
"""Cosine similarity below which KnapSpec drops a state (code: `sim_threshold`)."""

DRAFTS = 18
"""Draft lengths from 0 that KnapSpec considers (code: `d_max`)."""

CONTEXT_TOKENS = 50
"""Output tokens on which SWIFT scores masks (paper)."""

WINDOW = 8
"""Tokens at the end of the prompt whose states KnapSpec compares here; theirs are those of the last round."""


def clasp_masks(engine: Engine, output: VerifiedOutput, skips: Seq[int]) -> list[list[Allocation]]:
    """CLaSp's masks (arXiv 2505.24196), over sublayers: per prefix one for each number of skipped layers.

    The dynamic program runs on the states of the last token that the full model has run, which is the one before the
    prefix's last; see `HiddenStates.skips`. Published with a choice after each verification, as here; its early end of
    a draft at low confidence is left out.

    Args:
        engine: in scope `decode`, unit `layer`.
        output: the full model's output.
        skips: numbers of skipped layers.
    """
    layers, found = engine.units.count, []
    for known in output.prefixes:
        prefix = output.prefix(known)
        ids = prefix.tokens.tolist()
        if len(ids) < 3:  # the last token that was run has no states before it
            found.append([sublayers_of(range(layers))] * len(skips))
            continue
        before = _before(prefix, 2)
        masks = HiddenStates(engine, before, ids[-2:]).skips([1.0] * layers, range(layers), max(skips))
        found.append([sublayers_of(masks[float(layers - count)]) for count in skips])
    return found


def knapspec_mask(
    engine: DraftEngine, states: Engine, output: VerifiedOutput, ms: tuple[float, float], most: int
) -> tuple[Allocation, int]:
    """KnapSpec's mask over sublayers and draft length (arXiv 2602.20217, as released), chosen once, after the prompt.

    A knapsack over attentions and MLPs by cosine similarity, weights from their times; then the mask and draft length
    of most expected tokens per time, with the share of equal next tokens as the acceptance rate. The first and the last
    layer always run. Theirs chooses again while decoding, and takes the time of attention as linear in the context.

    Args:
        engine: runs drafts.
        states: in scope `decode`; with the unit `layer` the knapsack is over whole layers, of equal weights.
        output: the full model's output; only its prompt and first token are looked at.
        ms: times of an attention and of an MLP, in any unit.
        most: maximum draft length.
    """
    units, layers = states.units.count, engine.model.layers
    full = sublayers_of(range(layers))
    window = min(WINDOW, len(output.prompt_T) - 1)
    if window < 1:
        return full, most
    whole = output.prefix(1)
    before, tokens = _before(whole, window + 1), whole.tokens[-window - 1 :].tolist()
    parts = units // layers
    weights = (knapspec_weights(*ms) if parts == 2 else [1]) * layers
    by_cost = HiddenStates(states, before, tokens).skips(
        [float(weight) for weight in weights], range(parts, units - parts), weights=weights, least=SIMILAR
    )
    found = [mask for spent, mask in by_cost.items() if 0 < sum(weights) - spent <= sum(weights) // 2]
    if not found:
        return full, most
    masks = found if parts == 2 else [sublayers_of(mask) for mask in found]
    # The window as an output of the prompt before it: its first token is given, the others are predicted.
    text = VerifiedOutput(prompt_T=before.tokens, tokens=tuple(tokens), ended=False, cache=output.cache)
    alphas = engine.agreements(text, as_masks(masks, 2 * layers), with_full=True)
    place, length = knapspec_choice(alphas.tolist(), masks, layers, ms, min(most, DRAFTS - 1))
    return masks[place], length


def swift_score(engine: DraftEngine, outputs: Iterable[VerifiedOutput], masks: Seq[Allocation]) -> list[float]:
    """SWIFT's score of masks over sublayers: agreement on the first 50 output tokens of some outputs, in order.

    Its context is the stream of tokens that the full model has generated so far.
    """
    rows_AU = as_masks(masks, engine.sublayers)
    totals_A, tokens = np.zeros(len(masks)), 0
    for output in outputs:
        kept = output.tokens[: CONTEXT_TOKENS - tokens + 1]
        if len(kept) > 1:
            totals_A += (len(kept) - 1) * engine.agreements(replace(output, tokens=kept), rows_AU)
            tokens += len(kept) - 1
        if tokens >= CONTEXT_TOKENS:
            break
    return (totals_A / max(1, tokens)).tolist()


def knapspec_weights(attention: float, mlp: float) -> list[int]:
    """Weights of an attention and an MLP: their rounded ratio, at most 5, and 1 for the faster (code)."""
    if attention > mlp:
        return [min(round(attention / mlp), HEAVIEST), 1]
    return [1, min(round(mlp / attention), HEAVIEST)]


def knapspec_choice(
    alphas: Seq[float], masks: Seq[Allocation], layers: int, ms: tuple[float, float], most: int
) -> tuple[int, int]:
    """The mask (its place) and draft length of most expected tokens per time; the first of equal ones."""
    options = [(place, length) for place in range(len(masks)) for length in range(most + 1)]
    return max(options, key=lambda option: tokens_per_time(alphas[option[0]], masks[option[0]], layers, ms, option[1]))


def tokens_per_time(alpha: float, mask: Allocation, layers: int, ms: tuple[float, float], length: int) -> float:
    """KnapSpec's objective: sum of alpha^k, k = 0 to the length, over the time of the drafts and of one full pass."""
    attentions = sum(unit % 2 == 0 for unit in mask)
    expected = sum(alpha**count for count in range(length + 1))
    time = ms[0] * (attentions * length + layers) + ms[1] * ((len(mask) - attentions) * length + layers)
    return expected / time


def _before(prefix: PromptState, count: int) -> PromptState:
    """A prefix without its last tokens, as a prompt with full-depth states."""
    stored = prefix.length - count
    cache = [(keys[:, :, :stored], values[:, :, :stored]) for keys, values in prefix.cache]
    return PromptState(tokens=prefix.tokens[:stored], cache=cache, logits_V=prefix.logits_V)
