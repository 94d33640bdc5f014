"""Skip masks as drafts of their own full model: acceptance at every verified prefix, and lossless decoding.

A draft starts from the full model's keys and values of a verified prefix, all but the prefix's last token, which it
runs itself, and proposes tokens by the layers of its mask. One pass of the full model verifies them. The output is the
full model's, and where that is known beforehand, so is what a draft gets accepted: the tokens up to the first at which
it disagrees.

Draft masks are booleans over sublayers (A U): unit u is the attention (even u) or the MLP (odd u) of layer u // 2. A
layer of which both run is run whole. In shapes, X is verified prefixes.
"""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.config import SearchConfig
from oracle.engine.engine import Engine
from oracle.engine.oom_backoff import no_backoff
from oracle.engine.prompts import PromptState, batchable, prompt_pass
from oracle.engine.row_batch import RowBatch
from oracle.engine.same_output import Refuter, Verdict
from oracle.engine.schedule import Mask, Schedule, Units
from oracle.engine.score import continuation_pass
from oracle.errors import InputError
from oracle.models.kv_cache import PromptCache, RowCache
from oracle.models.layer_call import Call, Part
from oracle.models.loading import LanguageModel

__all__ = ["DraftEngine", "Drafted", "Speculation", "VerifiedOutput"]

ROWS = 256
"""Drafts that are run at once; more make products no faster."""


@dataclass(frozen=True, kw_only=True)
class VerifiedOutput:
    """The full model's output on a prompt, with its keys and values of all tokens but the last.

    Attributes:
        prompt_T: the prompt's token ids.
        tokens: the output, its stop token included.
        ended: whether a stop token or stop text ended it, rather than the token limit.
        cache: full-depth keys and values per layer.
    """

    prompt_T: Tensor
    tokens: tuple[int, ...]
    ended: bool
    cache: PromptCache

    @property
    def prefixes(self) -> range:
        """Numbers of verified output tokens after which a draft may begin: from 1, since the prompt gives the first."""
        return range(1, len(self.tokens))

    def prefix(self, known: int) -> PromptState:
        """The state in which a draft begins when `known` output tokens are verified: it runs the last one itself."""
        tokens_T = torch.cat([self.prompt_T, self.prompt_T.new_tensor(self.tokens[:known])])
        stored = len(tokens_T) - 1
        cache = [(keys[:, :, :stored], values[:, :, :stored]) for keys, values in self.cache]
        return PromptState(tokens=tokens_T, cache=cache, logits_V=torch.empty(0, device=tokens_T.device), own=1)


@dataclass(frozen=True, kw_only=True)
class Drafted:
    """What drafts get accepted.

    Attributes:
        lengths_AX: accepted tokens of each mask from each prefix, at most the draft length and what remains.
        near_AX: whether some decision behind it was a near-tie, which rounding may turn.
    """

    lengths_AX: NDArray[np.int16]
    near_AX: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """A lossless output, decoded by draft and verification.

    Attributes:
        tokens: the output.
        drafted: number of draft tokens.
        accepted: number of those that were accepted.
        rounds: number of verification passes.
        settled: near-ties of the full model that were decided by its known output.
        seconds: time after the prompt's pass.
    """

    tokens: tuple[int, ...]
    drafted: int
    accepted: int
    rounds: int
    settled: int
    seconds: float


class DraftEngine(Engine):
    """An engine that runs skip masks as drafts of the full model.

    Args:
        model: the language model.
        config: settings of the run whose outputs are drafted.

    Raises:
        InputError: if one pass over several tokens is not what the model computes token by token.
    """

    def __init__(self, model: LanguageModel, config: SearchConfig) -> None:
        plain = replace(config, unit="layer", cost="layers", strategy="spread", paths=False, prune=False, study=None)
        super().__init__(model, replace(plain, scope="decode-last"))
        if model.decoder.one_pass == 0:
            raise InputError(
                f"rows of {type(model.network).__name__} influence each other, so that a pass that verifies several "
                "tokens is not what plain decoding computes; choose another model or dtype"
            )

    @property
    def sublayers(self) -> int:
        """U: attentions and MLPs of the model."""
        return 2 * self.model.layers

    def separable(self) -> bool:
        """Whether attention and MLP can be skipped apart."""
        try:
            Units(self.model.decoder, "sublayer")
        except InputError:
            return False
        return True

    @no_backoff()
    def verified(self, prompt_ids: Seq[int], tokens: Seq[int]) -> VerifiedOutput:
        """Runs a known output of the full model once, for all drafts of it.

        Raises:
            InputError: if it is longer than one pass of the model can be.
        """
        ids, most = [*prompt_ids, *tokens[:-1]], self.model.decoder.one_pass
        if most is not None and len(ids) > most:
            raise InputError(
                f"prompt and output have {len(ids)} tokens, but beyond {most} one pass of "
                f"{type(self.model.network).__name__} is not what it computes token by token; shorten them"
            )
        whole = prompt_pass(self.model.decoder, ids)
        prompt_T = whole.tokens[: len(prompt_ids)]
        [ended] = self._settings(1).ended([(prompt_T, list(tokens))])
        return VerifiedOutput(prompt_T=prompt_T, tokens=tuple(tokens), ended=ended, cache=whole.cache)

    def accepted(self, output: VerifiedOutput, masks_AU: Mask, most: int, places: Seq[int] | None = None) -> Drafted:
        """Accepted lengths of drafts of at most `most` tokens, from each prefix.

        Args:
            output: the full model's output.
            masks_AU: draft masks.
            most: draft length, at least 1.
            places: prefixes in `output.prefixes`; None for all. With as many masks as prefixes see `accepted_each`.
        """
        places = list(output.prefixes if places is None else places)
        X, A = len(places), len(masks_AU)
        # Rows of one prefix stand together, and masks of equal beginnings are neighbours.
        mask_R = np.tile(np.arange(A), X)
        length_R, near_R = self._lengths(output, masks_AU, mask_R, np.repeat(places, A), most)
        return Drafted(lengths_AX=length_R.reshape(X, A).T, near_AX=near_R.reshape(X, A).T)

    def accepted_pairs(
        self,
        output: VerifiedOutput,
        masks_AU: Mask,
        mask_R: NDArray[np.int64],
        place_R: NDArray[np.int64],
        most: int,
    ) -> NDArray[np.int16]:
        """Accepted lengths (R) of some masks from some prefixes, prefix by prefix; near-ties count as accepted."""
        return self._lengths(output, masks_AU, mask_R, place_R, most, generous=True)[0]

    def accepted_each(self, output: VerifiedOutput, masks_XU: Mask, most: int) -> Drafted:
        """The same for one mask per prefix (lengths 1 X)."""
        places = np.array(output.prefixes)
        length_R, near_R = self._lengths(output, masks_XU, np.arange(len(places)), places, most)
        return Drafted(lengths_AX=length_R[None], near_AX=near_R[None])

    def _lengths(
        self,
        output: VerifiedOutput,
        masks_AU: Mask,
        mask_R: NDArray[np.int64],
        place_R: NDArray[np.int64],
        most: int,
        *,
        generous: bool = False,
    ) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Accepted lengths of rows of (mask, prefix), and whether near-ties decided: `generous` accepts those."""
        length_R, near_R = np.zeros(len(mask_R), dtype=np.int16), np.zeros(len(mask_R), dtype=np.bool_)
        if not len(mask_R):
            return length_R, near_R
        schedule = draft_schedule(masks_AU)
        prefixes = {place: output.prefix(place) for place in dict.fromkeys(place_R.tolist())}
        prompts = [prefixes[place] for place in place_R.tolist()]
        for some in batchable(self.model.decoder, prompts):

            def draft(rows: NDArray[np.int64], some: list[int] = some) -> None:
                which = np.array(some)[rows]
                chosen = [prompts[row] for row in which]
                steps = schedule.of_rows(mask_R[which])
                found = self._draft(output, chosen, steps, place_R[which], most, generous=generous)
                length_R[which], near_R[which] = found

            for _ in self._decoding.run_pieces(np.arange(len(some)), self._draft_rows(output, schedule, most), draft):
                pass
        self.executions += int((masks_AU.sum(1)[mask_R] * (np.minimum(length_R + 1, most)) / 2).sum())
        return length_R, near_R

    def _draft_rows(self, output: VerifiedOutput, schedule: Schedule, most: int) -> int:
        """Drafts that may run at once under the memory limit."""
        length = len(output.prompt_T) + len(output.tokens)
        slots = most + (0 if self.model.decoder.shares_prompts else length)
        footprint = self.footprint.after_prompts(length, self.model.layers)
        cost = int(schedule.runs_AI.sum(1).max())
        return min(self._most_rows, ROWS, footprint.rows([cost] * ROWS, slots, 1))

    @torch.inference_mode()
    def _draft(
        self,
        output: VerifiedOutput,
        prompts: list[PromptState],
        schedule: Schedule,
        place_R: NDArray[np.int64],
        most: int,
        *,
        generous: bool,
    ) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Runs rows together; a row leaves at its first token that is not the full model's."""
        decoder, settings = self.model.decoder, self._settings(len(prompts))
        length_R, near_R = np.zeros(len(prompts), dtype=np.int16), np.zeros(len(prompts), dtype=np.bool_)
        batch = RowBatch(decoder, prompts, schedule, new_tokens=most)
        alive, hidden_RTD = np.arange(len(prompts)), batch.run_rest()
        while True:
            known = place_R[alive] + length_R[alive]
            rows = [(output.prompt_T, output.tokens[:count]) for count in known.tolist()]
            tokens_R, _, near = settings.after(decoder, hidden_RTD, rows)
            right = np.array([output.tokens[count] for count in known.tolist()])
            near_R[alive] |= np.array(near)
            agree = tokens_R.cpu().numpy() == right
            if generous:
                agree |= np.array(near)
            length_R[alive[agree]] += 1
            goes_on = agree & (length_R[alive] < most) & (known + 1 < len(output.tokens))
            keep = np.flatnonzero(goes_on)
            if not len(keep):
                return length_R, near_R
            if len(keep) < len(alive):
                batch.select(keep.tolist())
            # A selected batch keeps rows of one prompt together, and so the order of the rows.
            alive = alive[keep]
            next_R = torch.from_numpy(right[keep]).to(tokens_R.device)
            hidden_RTD = batch.forward(next_R, right[keep].tolist())

    def first_tokens(self, output: VerifiedOutput, known: int, layers_AL: Mask) -> NDArray[np.int8]:
        """For each mask of whole layers a `Verdict`: whether its first draft token after a prefix is accepted.

        The same-output machinery: nothing is decoded, beginnings in common are run once, and most masks are refuted by
        a few rows of the vocabulary head. Near-ties are not settled.

        Args:
            output: the full model's output.
            known: verified output tokens.
            layers_AL: masks, in lexicographic order.
        """
        prompt = output.prefix(known)
        length = len(output.prompt_T) + len(output.tokens)
        count, piece, head_rows = self.footprint.after_prompts(length, self.model.layers).pieces(1)
        refuter = Refuter(
            self.model.decoder,
            prompt,
            output.tokens[known : known + 1],
            tie=self.tie,
            piece=piece,
            head_rows=head_rows,
            processors=self.processors,
            generated=known,
        )

        def test(rows: NDArray[np.int64]) -> NDArray[np.int8]:
            refuter.piece, refuter.head_rows = self._scoring.limited(piece), self._scoring.limited(head_rows)
            return refuter.test(self.units.schedule(layers_AL[rows]))

        verdict_A = np.full(len(layers_AL), Verdict.NO, dtype=np.int8)
        for rows, found in self._scoring.run_pieces(np.arange(len(layers_AL)), count, test):
            verdict_A[rows] = found
        self.executions += refuter.executions
        return verdict_A

    @no_backoff()
    @torch.inference_mode()
    def agreements(self, output: VerifiedOutput, masks_AU: Mask, *, with_full: bool = False) -> NDArray[np.float64]:
        """Share of output tokens that each mask predicts when it runs all tokens before them itself (A).

        SWIFT's score of a draft (arXiv 2410.06916, code): one parallel pass of the draft over generated tokens, after
        the prompt's keys and values of the full model. The first token, which the prompt gives, is not counted.

        Args:
            output: the tokens.
            masks_AU: draft masks.
            with_full: whether masks are compared with what the full model predicts at these places instead.
        """
        if len(output.tokens) < 2:
            return np.ones(len(masks_AU))
        masks_AU = np.vstack([masks_AU, np.ones((1, masks_AU.shape[1]), dtype=np.bool_)])
        # The pass begins with the first output token, after the whole prompt.
        start = replace(output.prefix(1), own=1)
        length = len(output.prompt_T) + len(output.tokens)
        free = self.footprint.after_prompts(length, self.model.layers)
        count, piece, head_rows = free.pieces(len(output.tokens))
        schedule, total = draft_schedule(masks_AU), len(masks_AU) - 1
        share_A = np.zeros(total)
        for rows in np.split(np.arange(total), range(count, total, count)):
            done, _ = continuation_pass(
                self.model.decoder,
                start,
                schedule.of_rows(np.append(rows, total)),
                output.tokens[1:-1],
                piece=piece,
            )
            nodes, node_A = torch.unique(done.node_A, return_inverse=True)
            best_OT = torch.stack([self._best(output, done.hidden_OTD[node], head_rows) for node in nodes.tolist()])
            targets_T = best_OT[node_A[-1]] if with_full else best_OT.new_tensor(output.tokens[1:])
            share_O = (best_OT == targets_T).double().mean(1)
            share_A[rows] = share_O[node_A[:-1]].cpu().numpy()
        return share_A

    def _best(self, output: VerifiedOutput, hidden_TD: Tensor, head_rows: int) -> Tensor:
        """The tokens (T) chosen after each state, the first of which follows the first output token."""
        found = []
        for first in range(0, len(hidden_TD), head_rows):
            logits_TV = self.model.decoder.finish(hidden_TD[first : first + head_rows, None])[:, 0]
            found.append(self.best_tokens(logits_TV, output.prompt_T, output.tokens, 1 + first))
        return torch.cat(found)

    @no_backoff()
    @torch.inference_mode()
    def speculate(
        self,
        prompt_ids: Seq[int],
        draft: Callable[[int], NDArray[np.bool_]],
        length: int,
        known: Seq[int] | None = None,
    ) -> Speculation:
        """Decodes one prompt by draft and verification, greedily.

        A round drafts up to `length` tokens by one mask and verifies them in one pass of the full model, which gives
        one token more. Draft states are overwritten by those of the verification. `length` 0 is plain decoding.

        Args:
            prompt_ids: the prompt.
            draft: the mask (U) for a number of verified output tokens.
            length: draft length.
            known: the full model's output by plain decoding, which settles near-ties: a pass over several tokens rounds
                otherwise than one over a single token. None leaves them to the pass.
        """
        decoder, limit = self.model.decoder, self.config.max_new_tokens
        cache = RowCache(self.model.layers, len(prompt_ids) + limit + length)
        prompt_T = torch.tensor(list(prompt_ids), dtype=torch.long, device=decoder.device)
        settings, every = self._settings(1), [Call(layer) for layer in range(self.model.layers)]
        tokens: list[int] = []
        counts = {"drafted": 0, "accepted": 0, "rounds": 0, "settled": 0}

        def choose(logits_TV: Tensor, follow: Seq[int]) -> tuple[list[int], list[bool]]:
            rows = [(prompt_T, [*tokens, *follow[:place]]) for place in range(len(logits_TV))]
            tokens_T, _, near = settings.choose(logits_TV, rows)
            return tokens_T.tolist(), near

        def take(token: int, near: bool) -> bool:
            """Appends a token of the full model; returns whether the output has ended."""
            if near and known is not None and len(tokens) < len(known) and tokens == list(known[: len(tokens)]):
                counts["settled"] += 1
                token = known[len(tokens)]
            tokens.append(token)
            return settings.ended([(prompt_T, tokens)])[0] or len(tokens) == limit

        chosen, near = choose(self._feed(prompt_T, every, cache)[-1:], ())
        cache.advance(len(prompt_ids))
        done, began = take(chosen[0], near[0]), perf_counter()
        while not done:
            start, proposed = cache.own, list[int]()
            calls = mask_calls(draft(len(tokens))) if length else []
            while len(proposed) < min(length, limit - len(tokens) - 1):
                last = proposed[-1] if proposed else tokens[-1]
                logits_TV = self._feed(prompt_T.new_tensor([last]), calls, cache)
                rows = [(prompt_T, [*tokens, *proposed])]
                proposed.append(int(settings.choose(logits_TV, rows)[0]))
                cache.advance(1)
                if settings.ended([(prompt_T, [*tokens, *proposed])])[0]:
                    break
            cache.own = start
            logits_TV = self._feed(prompt_T.new_tensor([tokens[-1], *proposed]), every, cache)
            chosen, near = choose(logits_TV, proposed)
            counts["rounds"] += 1
            counts["drafted"] += len(proposed)
            for place, (token, tie) in enumerate(zip(chosen, near, strict=True)):
                done = take(token, tie)
                right = place < len(proposed) and proposed[place] == tokens[-1]
                counts["accepted"] += right
                if done or not right:
                    break
            cache.own = start + place + 1
        return Speculation(tokens=tuple(tokens), seconds=perf_counter() - began, **counts)

    def _feed(self, tokens_T: Tensor, calls: Seq[Call], cache: RowCache) -> Tensor:
        """Logits (T V) after new tokens, whose states are written but not counted as filled."""
        decoder = self.model.decoder
        positions = torch.arange(cache.length, cache.length + len(tokens_T), device=decoder.device)[None]
        step = decoder.begin(tokens_T[None], cache=cache, positions_RT=positions)
        hidden_RTD = step.hidden_RTD
        for call in calls:
            cache.step = call.layer
            hidden_RTD = decoder.run(call, hidden_RTD, step)
        return decoder.finish(hidden_RTD)[0]

    @no_backoff()
    @torch.inference_mode()
    def verification_ms(self, context: int, most: int, rounds: int) -> list[float]:
        """Median time of a full-depth pass over 1 to `most` tokens after a context, in ms, timed in turns."""
        decoder = self.model.decoder
        vocabulary = decoder.model.config.get_text_config().vocab_size
        generator = torch.Generator().manual_seed(0)
        ids_T = torch.randint(vocabulary, (context + most,), generator=generator).to(decoder.device)
        cache = RowCache(self.model.layers, context + most)
        every = [Call(layer) for layer in range(self.model.layers)]
        self._feed(ids_T[:context], every, cache)
        cache.advance(context)
        times: list[list[float]] = [[] for _ in range(most)]
        for number in range(-1, rounds):
            for count in range(1, most + 1):
                began = perf_counter()
                float(self._feed(ids_T[context : context + count], every, cache)[0, 0])  # waits for a GPU
                if number >= 0:
                    times[count - 1].append(1e3 * (perf_counter() - began))
        return [float(np.median(one)) for one in times]


def draft_schedule(masks_AU: Mask) -> Schedule:
    """The steps of draft masks: per layer the whole, or attention or MLP alone."""
    attention_AL, mlp_AL = masks_AU[:, ::2], masks_AU[:, 1::2]
    both_AL = attention_AL & mlp_AL
    parts = {Part.WHOLE: both_AL, Part.ATTENTION: attention_AL & ~both_AL, Part.MLP: mlp_AL & ~both_AL}
    if not (parts[Part.ATTENTION].any() or parts[Part.MLP].any()):
        parts = {Part.WHOLE: both_AL}  # needs no separate attention and MLP
    runs_AI = np.stack(list(parts.values()), axis=2).reshape(len(masks_AU), -1)
    return Schedule(
        calls=tuple(Call(layer, part) for layer in range(both_AL.shape[1]) for part in parts), runs_AI=runs_AI
    )


def mask_calls(mask_U: NDArray[np.bool_]) -> list[Call]:
    """The layer executions of one draft mask."""
    schedule = draft_schedule(np.asarray(mask_U)[None])
    return [call for call, runs in zip(schedule.calls, schedule.runs_AI[0].tolist(), strict=True) if runs]
