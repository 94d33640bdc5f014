"""Confirmation: whether recorded outputs are those of plain generation, by one forward of the library per output."""

import copy
import math
from collections.abc import Sequence as Seq
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from oracle.engine.decode import Settings
from oracle.engine.reference import plain_generate, read_prompt
from oracle.models.layer_call import Call, Part
from oracle.models.loading import LanguageModel
from oracle.models.truncate import truncated

__all__ = ["Confirmation"]


class Confirmation:
    """Compares recorded outputs of one prompt with those of plain generation on models cut to their allocations.

    The cut model reads the prompt and the recorded output in one forward of the library, batch 1; in scopes `decode`
    and `decode-last` the full model's pass over the prompt is computed once, and each cut model goes on from copies of
    its states, as in plain generation. If every recorded token leads by more than a near-tie, plain generation, which
    computes the same token by token, yields the output too. Otherwise, and where `generation_config` changes logits,
    plain generation itself decides.

    Args:
        model: the full model.
        prompt_T: the prompt's token ids.
        settings: as for plain generation.
    """

    def __init__(self, model: LanguageModel, prompt_T: Tensor, settings: Settings) -> None:
        self._model, self._prompt_T, self._settings = model, prompt_T, settings
        self._full: tuple[DynamicCache, Tensor] | None = None
        self._least = max(settings.tie, model.decoder.rounding.near_tie)

    def __call__(self, calls: Seq[Call], recorded: Seq[int]) -> bool:
        """Whether plain generation yields a recorded output.

        Args:
            calls: the layers that run, or parts of them.
            recorded: token ids of the output.
        """
        if self._read_at_once(recorded) and self.least_lead(calls, recorded) > self._least:
            return True
        return plain_generate(self._model, self._prompt_T, calls, self._settings) == tuple(recorded)

    def _read_at_once(self, recorded: Seq[int]) -> bool:
        """Whether one forward can tell: the output is whole, and tokens that lead by enough are what is generated."""
        settings, tokens = self._settings, tuple(recorded)
        if settings.processors is not None or math.isinf(self._least) or not tokens:
            return False
        *before, last = settings.ended([(self._prompt_T, tokens[:end]) for end in range(1, len(tokens) + 1)])
        return not any(before) and (last or len(tokens) == settings.max_new_tokens)

    @torch.inference_mode()
    def least_lead(self, calls: Seq[Call], recorded: Seq[int]) -> float:
        """Least lead, in logits, of the recorded tokens over all others at their places; negative if one is not best.

        Args:
            calls: the layers that run, or parts of them.
            recorded: token ids of the output, at least one.
        """
        apart = any(call.part != Part.WHOLE for call in calls)
        attends = any(call.part != Part.MLP for call in calls)
        cut: Any = truncated(self._model.network, calls, self._model.decoder.sublayers.shapes if apart else None)
        scope, tokens_G = self._settings.scope, self._prompt_T.new_tensor(recorded)
        ids_T = torch.cat([self._prompt_T, tokens_G[:-1]])
        lead = math.inf
        if scope == "decode":
            lead = _lead(self._prompt()[1], tokens_G[:1])
            tokens_G = tokens_G[1:]
            if not len(tokens_G):
                return lead
        if scope == "sequence" or not attends:
            # Without attention there are no states to go on from.
            logits_TV = cut(input_ids=ids_T[None], use_cache=False).logits[0]
        else:
            full, read = self._prompt()[0], len(ids_T) - len(tokens_G)
            kept = DynamicCache(config=cut.config)
            kept.layers = [copy.deepcopy(full.layers[call.layer]) for call in calls if call.part != Part.MLP]
            seen_T = torch.ones_like(ids_T)
            logits_TV = cut(
                input_ids=ids_T[None, read:], attention_mask=seen_T[None], cache=kept, use_cache=True
            ).logits[0]
        return min(lead, _lead(logits_TV[-len(tokens_G) :], tokens_G))

    def _prompt(self) -> tuple[DynamicCache, Tensor]:
        """The full model's states of what it reads of the prompt, and its logits for the token that follows (1 V)."""
        if self._full is None:
            self._full = read_prompt(self._model, self._prompt_T, self._settings.scope)
        return self._full


def _lead(logits_TV: Tensor, tokens_T: Tensor) -> float:
    """Least lead of tokens over the best other token of each row; NaN counts as none."""
    own_T1 = logits_TV.gather(1, tokens_T[:, None])
    others_TV = logits_TV.scatter(1, tokens_T[:, None], -math.inf)
    least = float((own_T1[:, 0] - others_TV.amax(1)).min())
    return -math.inf if math.isnan(least) else least
