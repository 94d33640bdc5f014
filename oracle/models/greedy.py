"""Greedy decoding as the model's `generation_config` has it: logits processors and stop texts of the library, per row.

`generate` itself builds the processors, once per prompt; each row is processed with its own prompt and its own tokens,
never with padding. Rows of one prompt and one length share a call.

Near-ties are judged on processed scores. A processor may scale a logit and thereby its rounding: with a factor of at
most g on single logits, a lead moves by at most 2g times as much as single logits do, so the near-tie threshold is 2g
times that of raw logits (unchanged if g is 1: masks and biases move no lead), plus a few units in the last place of the
scores for the processors' own arithmetic. A lead that is no number, between scores of minus infinity, is a tie.

In shapes, X is blocks of the vocabulary, and Y the tokens of a block or of the rest.
"""

import copy
import warnings
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.generation import logits_process as library

from oracle.errors import FOREIGN, InputError, reason_of

__all__ = ["Processors", "Row", "StopTexts", "arithmetic", "best"]

Row = tuple[Tensor, Seq[int]]
"""What a row's scores depend on: the prompt's token ids (P), and the tokens generated so far."""

BLOCK = 64
"""Vocabulary entries per block when the two best logits are looked for."""

PROMPTS = 256
"""Prompts whose processors are kept."""

ULPS = 4
"""Units in the last place that the arithmetic of processors may move a lead by."""

PROBES = (-37.25, -1.5, 1.5, 37.25)
"""Scores of either sign that a processor must leave as they are for a token to count as untouched."""

KNOWN = (
    library.SequenceBiasLogitsProcessor,  # includes bad words
    library.EncoderRepetitionPenaltyLogitsProcessor,
    library.RepetitionPenaltyLogitsProcessor,
    library.NoRepeatNGramLogitsProcessor,
    library.EncoderNoRepeatNGramLogitsProcessor,
    library.MinLengthLogitsProcessor,
    library.MinNewTokensLengthLogitsProcessor,
    library.ForcedBOSTokenLogitsProcessor,
    library.ForcedEOSTokenLogitsProcessor,
    library.InfNanRemoveLogitsProcessor,
    library.ExponentialDecayLengthPenalty,
    library.SuppressTokensLogitsProcessor,
    library.SuppressTokensAtBeginLogitsProcessor,
    library.LogitNormalization,
)
"""Processors that depend on a row's own tokens alone."""


class Processors:
    """The library's logits processors under some settings, built per prompt.

    Args:
        network: the model, whose `generate` builds them.
        settings: of `generation_config`, as in `GenerationSettings.honoured`, at least one besides stop strings.
        stop: token ids that end an output.
        max_new_tokens: the most tokens a row may generate.
    """

    def __init__(
        self, network: PreTrainedModel, settings: Mapping[str, Any], *, stop: frozenset[int], max_new_tokens: int
    ) -> None:
        self._settings, self._max_new_tokens = settings, max_new_tokens
        self._stop = stop
        self._shell: Any = copy.copy(network)  # shares everything but the settings
        self._shell.generation_config = GenerationConfig()
        self._built: dict[tuple[int, ...], LogitsProcessorList] = {}
        penalties = (settings.get(name, 1.0) for name in ("repetition_penalty", "encoder_repetition_penalty"))
        self._gain = 1.0
        for penalty in penalties:
            self._gain *= max(penalty, 1 / penalty) if penalty > 0 else 1.0  # the library refuses others
        self._decay = settings.get("exponential_decay_length_penalty")

    @classmethod
    def of(
        cls, network: PreTrainedModel, settings: Mapping[str, Any], *, stop: frozenset[int], max_new_tokens: int
    ) -> "Processors | None":
        """The processors; None if the settings need none.

        Raises:
            InputError: if the library does not accept the settings.
        """
        settings = {name: value for name, value in settings.items() if name != "stop_strings"}
        if not settings:
            return None
        prompt_T = torch.zeros(2, dtype=torch.long, device=network.device)
        vocabulary = network.config.get_text_config().vocab_size
        try:
            found = cls(network, settings, stop=stop, max_new_tokens=max_new_tokens)
            # Some settings are only checked when they are applied.
            _apply(found.built(prompt_T), prompt_T[None], torch.zeros((1, vocabulary), device=network.device))
        except FOREIGN as error:
            raise InputError(
                f"the model's generation_config ({', '.join(settings)}) cannot be honoured: {reason_of(error)}; "
                "correct its generation_config.json, or leave its settings out with --no-generation-config"
            ) from error
        return found

    def built(self, prompt_T: Tensor) -> LogitsProcessorList:
        """The processors for one prompt, those that `generate` itself uses for it."""
        key = tuple(prompt_T.tolist())
        if key not in self._built:
            if len(self._built) >= PROMPTS:
                self._built.clear()
            self._built[key] = self._build(prompt_T)
        return self._built[key]

    def _build(self, prompt_T: Tensor) -> LogitsProcessorList:
        found: list[LogitsProcessorList] = []

        def decoding_loop(model: Any, input_ids: Tensor, logits_processor: LogitsProcessorList, **rest: Any) -> Tensor:
            found.append(logits_processor)
            return input_ids

        settings = GenerationConfig(
            **self._settings,
            do_sample=False,
            max_new_tokens=self._max_new_tokens,
            eos_token_id=sorted(self._stop) or None,
            pad_token_id=min(self._stop, default=0),
        )
        ids = prompt_T[None]
        with warnings.catch_warnings():
            # Of lengths that cannot be reached, for each prompt.
            warnings.simplefilter("ignore", UserWarning)
            GenerationMixin.generate(
                self._shell,
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=settings,
                custom_generate=decoding_loop,
            )
        return LogitsProcessorList(one for one in found[0] if isinstance(one, KNOWN))

    @torch.inference_mode()
    def scores(self, logits_RV: Tensor, rows: Seq[Row | None]) -> Tensor:
        """Processed scores (R V) in float32, as `generate` computes them; rows that are None keep their logits."""
        groups: dict[tuple[int, int], list[int]] = {}
        for place, row in enumerate(rows):
            if row is not None:
                groups.setdefault((id(row[0]), len(row[1])), []).append(place)
        scores_RV = logits_RV.to(copy=True, dtype=torch.float32)
        for places in groups.values():
            some = [row for place in places if (row := rows[place]) is not None]
            prompt_T = some[0][0]
            own_GT = prompt_T.new_tensor([list(tokens) for _, tokens in some]).view(len(some), -1)
            ids_GS = torch.cat([prompt_T.expand(len(some), -1), own_GT], dim=1)
            if len(places) == len(rows):
                return _apply(self.built(prompt_T), ids_GS, scores_RV)
            index_G = torch.tensor(places, device=scores_RV.device)
            scores_RV[index_G] = _apply(self.built(prompt_T), ids_GS, scores_RV[index_G])
        return scores_RV

    def choose(self, logits_RV: Tensor, rows: Seq[Row | None], tie: float) -> tuple[Tensor, list[float], list[bool]]:
        """For each row the token with the highest score, its lead over the second, and whether that is a near-tie."""
        scores_RV = self.scores(logits_RV, rows)
        tokens_R = scores_RV.argmax(-1)
        top_R = scores_RV.gather(1, tokens_R[:, None])[:, 0]
        lead_R = best(scores_RV)[1].nan_to_num(nan=0.0, posinf=torch.inf)
        leads = lead_R.tolist()
        near = [
            row is not None and tie >= 0 and lead <= self.threshold(tie, len(row[1])) + slack
            for row, lead, slack in zip(rows, leads, arithmetic(top_R).tolist(), strict=True)
        ]
        return tokens_R, leads, near

    def threshold(self, tie: float, own: int) -> float:
        """The lead, in processed scores, up to which a token is a near-tie; `arithmetic` comes on top.

        Args:
            tie: the same in raw logits.
            own: number of tokens generated before.
        """
        gain = self._gain
        if self._decay is not None and own > self._decay[0]:
            try:
                power = float(self._decay[1]) ** (own - self._decay[0])
            except OverflowError:
                return torch.inf
            gain *= max(1.0, abs(power), abs(2 - power))
        return tie if gain == 1.0 or tie == 0 else 2 * gain * tie

    @property
    def lowers(self) -> bool:
        """Whether no processor ever raises a token's score above its logit."""
        biases = self._settings.get("sequence_bias") or []
        return (
            self._settings.get("repetition_penalty", 1.0) >= 1
            and self._settings.get("encoder_repetition_penalty", 1.0) <= 1
            and all(bias <= 0 for _, bias in biases)
            and (self._decay is None or 0 <= self._decay[1] <= 1)
        )

    @torch.inference_mode()
    def untouched(self, row: Row, vocabulary: int) -> Tensor:
        """Which tokens keep their logits as scores, whatever they are, up to a shift that all share (V, boolean)."""
        prompt_T, tokens = row
        ids = torch.cat([prompt_T, prompt_T.new_tensor(list(tokens))])
        probe_RV = torch.tensor(PROBES, device=prompt_T.device)[:, None].expand(-1, vocabulary)
        shifts = LogitsProcessorList(
            one for one in self.built(prompt_T) if not isinstance(one, library.LogitNormalization)
        )
        return (_apply(shifts, ids.expand(len(PROBES), -1), probe_RV.clone()) == probe_RV).all(0)


class StopTexts:
    """Texts at which outputs end, found as the library finds its stop strings.

    A text counts as soon as a token completes it, even if it began in the prompt. The tokens that completed it stay in
    the output; its text ends before it.

    Args:
        tokenizer: the model's tokenizer.
        texts: the texts, at least one.

    Attributes:
        texts: the same.
        criteria: the library's stopping criteria, one per text.
        hidden: those that contain special tokens, which the text of an output does not show.

    Raises:
        InputError: if a text cannot be made of the tokenizer's tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Seq[str]) -> None:
        self.texts = tuple(texts)
        self.criteria = StoppingCriteriaList()
        for text in texts:
            try:
                self.criteria.append(StopStringCriteria(tokenizer, text))
            except ValueError as error:
                raise InputError(
                    f"the stop text {text!r} contains what no token of the model's vocabulary can write; leave it out"
                ) from error
        added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        special = [token for token in added.union(tokenizer.all_special_tokens) if token]
        self.hidden = [text for text in texts if any(token in text for token in special)]
        self._window = max(len(text.encode()) for text in texts)  # a token is at least a byte of the text

    def reached(self, rows: Seq[Row]) -> list[bool]:
        """Whether the last token of each row completes a stop text."""
        windows: dict[int, list[tuple[int, list[int]]]] = {}
        for place, (prompt_T, tokens) in enumerate(rows):
            lacking = self._window - len(tokens)
            before = prompt_T[-lacking:].tolist() if lacking > 0 else []
            window = [*before, *tokens[-self._window :]]
            windows.setdefault(len(window), []).append((place, window))
        found = [False] * len(rows)
        for group in windows.values():
            ids = rows[0][0].new_tensor([window for _, window in group])
            for (place, _), done in zip(group, self.criteria(ids, None).tolist(), strict=True):
                found[place] = done
        return found

    def cut(self, text: str) -> int:
        """Where the first stop text begins; -1 if there is none."""
        return min((place for stop in self.texts if (place := text.find(stop)) >= 0), default=-1)

    def beginnings(self, text: str) -> list[str]:
        """What may remain of an unfinished text once the stop text that it may end with is complete."""
        whole = text.rstrip("\ufffd")  # part of a character
        starts = range(max(0, len(whole) - max(map(len, self.texts))), len(whole) + 1)
        return [whole[:start] for start in starts if any(stop.startswith(whole[start:]) for stop in self.texts)]


def _apply(processors: Any, ids_RS: Tensor, scores_RV: Tensor) -> Tensor:
    """Scores of rows of one length, by the library."""
    return processors(ids_RS, scores_RV)


def arithmetic(scores_R: Tensor) -> Tensor:
    """How far the processors' own arithmetic may move the lead of a score (R)."""
    return (ULPS * torch.finfo(torch.float32).eps * scores_R.abs()).nan_to_num(nan=0.0, posinf=0.0)


def best(logits_RV: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely token of each row and its lead over the second, in logits.

    A maximum per block of the vocabulary first: several times faster than the two largest of a whole row.
    """
    rows, vocabulary = logits_RV.shape
    blocks = vocabulary // BLOCK
    head_RXY = logits_RV[:, : blocks * BLOCK].view(rows, blocks, BLOCK)
    tail_RY = logits_RV[:, blocks * BLOCK :]
    peaks_RX = head_RXY.amax(-1)
    # The two best tokens stand in the two best blocks, or in the rest that fills no block.
    best_blocks = peaks_RX.topk(min(2, blocks), dim=-1).indices
    chosen = head_RXY.gather(1, best_blocks[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    ids = (best_blocks[:, :, None] * BLOCK + torch.arange(BLOCK, device=logits_RV.device)).flatten(1)
    tail_ids = torch.arange(blocks * BLOCK, vocabulary, device=logits_RV.device).expand(rows, -1)
    values, where = torch.cat([chosen, tail_RY], dim=-1).topk(2, dim=-1)
    tokens_R = torch.cat([ids, tail_ids], dim=-1).gather(1, where[:, :1])[:, 0]
    return tokens_R, values[:, 0] - values[:, 1]
