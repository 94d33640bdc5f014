"""Draft masks that are chosen while decoding: CLaSp's at every verified prefix, and KnapSpec's after the prompt.

Both see only tokens that the full model has run when they choose.
"""

from collections.abc import Sequence as Seq

import numpy as np

from oracle.draft.rounds import Times
from oracle.draft.searches import sublayers_of
from oracle.engine import DraftEngine, Engine, PromptState, VerifiedOutput
from oracle.engine.layer_importance import HiddenStates
from oracle.engine.schedule import as_masks
from oracle.types import Allocation

__all__ = ["clasp_masks", "knapspec_choice", "knapspec_mask", "knapspec_weights", "tokens_per_time"]

HEAVIEST = 5
"""KnapSpec's cap on the weight of a unit (code)."""

SIMILAR = 0.5
"""Cosine similarity below which KnapSpec drops a state (code: `sim_threshold`)."""

DRAFTS = 18
"""Draft lengths from 0 that KnapSpec considers (code: `d_max`)."""

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
    engine: DraftEngine, parts: Engine, output: VerifiedOutput, times: Times, most: int
) -> tuple[Allocation, int]:
    """KnapSpec's mask over sublayers and draft length (arXiv 2602.20217, as released), chosen once, after the prompt.

    A knapsack over attentions and MLPs by cosine similarity, weights from latencies; then the mask and draft length of
    most expected tokens per time, with the share of equal next tokens as the acceptance rate. The first and the last
    layer always run. Theirs chooses again while decoding, and takes the time of attention as linear in the context.

    Args:
        engine: runs drafts.
        parts: in scope `decode`, unit `sublayer`.
        output: the full model's output; only its prompt is looked at.
        times: the cost model.
        most: maximum draft length.
    """
    layers, full = engine.model.layers, sublayers_of(range(engine.model.layers))
    assert times.attention is not None and times.mlp is not None
    attention, mlp = float(np.mean(times.attention)), float(np.mean(times.mlp))
    weights = knapspec_weights(attention, mlp)
    whole = output.prefix(1)
    window = min(WINDOW, len(output.prompt_T) - 1)
    if window < 1:
        return full, most
    before = _before(whole, window + 1)
    tokens = whole.tokens[-window - 1 :].tolist()
    costs = weights * layers
    free = range(2, 2 * layers - 2)
    by_cost = HiddenStates(parts, before, tokens).skips(
        [float(cost) for cost in costs], free, weights=costs, least=SIMILAR
    )
    budget = sum(costs) // 2
    masks = [mask for spent, mask in by_cost.items() if len(mask) < 2 * layers and sum(costs) - spent <= budget]
    if not masks:
        return full, most
    # The window as an output of the prompt before it: its first token is given, the others are predicted.
    text = VerifiedOutput(prompt_T=before.tokens, tokens=tuple(tokens), ended=False, cache=output.cache)
    alphas = engine.agreements(text, as_masks(masks, 2 * layers), with_full=True)
    place, length = knapspec_choice(alphas.tolist(), masks, layers, (attention, mlp), min(most, DRAFTS - 1))
    return masks[place], length


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
