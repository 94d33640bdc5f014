"""Trial of the cut model that verifies results, when a model is loaded rather than after a search."""

from dataclasses import replace

from oracle.engine.decode import Settings
from oracle.engine.prompts import prompt_pass
from oracle.engine.reference import plain_logits
from oracle.engine.schedule import Units
from oracle.engine.tie_break import alone_logits
from oracle.errors import InputError, door
from oracle.models.introspection import plain_tokens
from oracle.models.loading import LanguageModel

__all__ = ["try_cut_model"]

TOKENS = 4
"""Tokens of plain generation that are compared."""

ROUNDING = 100
"""Largest difference of logits between the engine and the cut model, in units of the measured rounding."""


def try_cut_model(model: LanguageModel, units: Units, settings: Settings) -> None:
    """Runs plain generation of one mask, and compares its logits with those of the engine; once per scope and unit.

    Args:
        model: the language model; its decoder keeps what was tried.
        units: what allocations are made of.
        settings: of decoding alone.

    Raises:
        InputError: if the cut model cannot be built or run, or its logits are not those of the engine.
    """
    decoder, name = model.decoder, type(model.network).__name__
    trial = (settings.scope, units.unit)
    if trial in decoder.tried:
        return
    every = range(units.count)
    mask = tuple((every[1::2] if units.unit == "layer" else every[3:]) or every)
    schedule, settings = units.steps([mask]), replace(settings, max_new_tokens=TOKENS)
    with door(
        f"plain generation by {name} cut to some of its layers, which verifies results",
        "choose another model: this one's code does not run without all of its layers",
    ):
        for first in (ids := plain_tokens(model.network)):
            prompt = prompt_pass(decoder, [first, *ids[:2]], settings.scope)
            tokens, plain_TV = plain_logits(model, prompt.tokens, units.calls(mask), settings)
            if len(tokens) > 1:  # the first token may be the full model's
                break
        found_TV = alone_logits(decoder, prompt, schedule, tokens)
        off = float((found_TV.to(plain_TV.dtype) - plain_TV).abs().max())
    if not off <= ROUNDING * decoder.rounding.logits:
        raise InputError(
            f"{name} cut to the {units.unit}s {mask} gives other logits in plain generation than layer by layer (by "
            f"{off:.2g}, rounding {decoder.rounding.logits:.2g}): its layers compute with their own number or share "
            "states, so results could not be verified; choose another model"
        )
    decoder.tried.add(trial)
