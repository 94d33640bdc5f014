"""Decoding and scoring under a per-token gate, in batches; what is skipped is not computed."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.engine.decode import Generation, Settings
from oracle.engine.gates import Fed, Gate
from oracle.engine.prompts import PromptState
from oracle.models.decoder import Decoder
from oracle.models.gated_kv_cache import GatedCache, Stored
from oracle.models.greedy import Row
from oracle.models.layer_call import Call, Part
from oracle.models.layer_runner import Step

__all__ = ["GatedGeneration", "GatedScore", "gated_decode", "gated_score"]


@dataclass(frozen=True, kw_only=True)
class GatedGeneration:
    """An output under a gate.

    Attributes:
        generation: the output.
        ran_TL: which layers each fed token ran: generated tokens but the last, in scope `sequence` the prompt's before
            them.
    """

    generation: Generation
    ran_TL: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class GatedScore:
    """A continuation under a gate, teacher-forced.

    Attributes:
        log_likelihoods_T: of each token of the continuation, in nats, by the model's own probabilities.
        best_T: the token that greedy decoding chooses at each place, `generation_config` included; the continuation is
            the greedy output if they agree.
        greedy: whether each of its tokens is the likeliest, by the model's own probabilities.
        ran_TL: which layers each fed token ran: as in `GatedGeneration`.
    """

    log_likelihoods_T: NDArray[np.float64]
    best_T: NDArray[np.int64]
    greedy: bool
    ran_TL: NDArray[np.bool_]


class GatedBatch:
    """Rows that advance together, each token through the layers that a gate lets it run.

    One new token a row: rows that run a layer are gathered. Several (a prompt, a text to score): all run it and what
    the gate skips is put back, which is exact and costs full depth.

    Args:
        decoder: the model.
        prompts: the prompt of each row.
        gate: decides.
        requests: number of each row's request, as passed to the gate.
        new_tokens: how many tokens may be appended.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompts: Seq[PromptState],
        gate: Gate,
        requests: Seq[int],
        *,
        new_tokens: int,
    ) -> None:
        self._decoder, self._gate = decoder, gate
        self._lengths = [prompt.length for prompt in prompts]
        self._width = max(self._lengths)
        self.requests = list(requests)
        self.ran: dict[int, list[NDArray[np.bool_]]] = {request: [] for request in requests}
        slots = self._width + new_tokens
        self._cache = GatedCache(decoder.layers, len(prompts), slots, gate.policy, decoder.device)
        self._padding_R = torch.tensor([self._width - length for length in self._lengths], device=decoder.device)
        if prompts[0].given:
            for layer in range(decoder.layers):
                self._cache.fill_prompts(layer, [prompt.cache[layer] for prompt in prompts], self._width)
            self._cache.advance(self._width)

    @torch.inference_mode()
    def forward(self, tokens_RT: Tensor) -> Tensor:
        """Appends tokens and returns their hidden states after the last layer (R T D)."""
        count = tokens_RT.shape[1]
        start = self._cache.length
        slots_T = torch.arange(start, start + count, device=tokens_RT.device)
        positions_RT = (slots_T - self._padding_R[:, None]).clamp(min=0, max=self._decoder.positions.last)
        real_RS = torch.arange(start + count, device=tokens_RT.device) >= self._padding_R[:, None]
        mask_RS = None if bool(real_RS.all()) else real_RS.long()
        step = self._decoder.begin(tokens_RT, cache=self._cache, positions_RT=positions_RT, mask_RS=mask_RS)
        skipped = tuple(max(0, int(padding) - start) for padding in self._padding_R.tolist())
        fed = Fed(requests=tuple(self.requests), start=start - self._width, skipped_R=skipped)
        self._cache.begin_tokens()
        hidden_RTD = step.hidden_RTD
        ran: list[Tensor] = []
        for layer in range(self._decoder.layers):
            runs_RT, weight_RT = self._gate.weighed(layer, hidden_RTD, fed)
            ran.append(runs_RT)
            self._cache.step = layer
            current = self._masked(step, layer, tokens_RT, positions_RT, real_RS, runs_RT)
            hidden_RTD = self._layer(layer, hidden_RTD, runs_RT, weight_RT, current)
            self._cache.record(runs_RT)
        self._cache.advance(count)
        ran_RTL = torch.stack(ran, dim=-1).cpu().numpy()
        for row, request in enumerate(self.requests):
            self.ran[request] += list(ran_RTL[row, skipped[row] :])
        return hidden_RTD

    def _masked(
        self, step: Step, layer: int, tokens_RT: Tensor, positions_RT: Tensor, real_RS: Tensor, runs_RT: Tensor
    ) -> Step:
        """The step with what the layer does not show hidden, if there is anything."""
        cache, count = self._cache, tokens_RT.shape[1]
        end = cache.own + count
        if cache.policy == "propagate" or (count == 1 and not bool(runs_RT.any())):
            return step
        visible_RS = cache.visible_LRS[layer, :, :end].clone()
        visible_RS[:, cache.own :] = cache.visible(runs_RT)
        if bool(visible_RS.all()):
            return step
        if count == 1:
            # A token sees itself, whether or not it counts: rows that skip the layer are put back afterwards.
            visible_RS[:, -1] = True
        masked = self._decoder.begin(
            tokens_RT, cache=cache, positions_RT=positions_RT, mask_RS=(visible_RS & real_RS).long()
        )
        return self._decoder.with_mask_of(step, masked, layer)

    def _layer(self, layer: int, hidden_RTD: Tensor, runs_RT: Tensor, weight_RT: Tensor | None, step: Step) -> Tensor:
        cache, every = self._cache, bool(runs_RT.all())
        if runs_RT.shape[1] > 1 or every:
            cache.rows_G, cache.runs_RT = None, runs_RT
            output_RTD = self._run(layer, hidden_RTD, weight_RT, step)
            if every:
                return output_RTD
            kept_RTD = hidden_RTD if weight_RT is None else self._gate.skipped(layer, hidden_RTD, weight_RT)
            return torch.where(runs_RT[:, :, None], output_RTD, kept_RTD)
        rows_G, others_G = runs_RT[:, 0].nonzero()[:, 0], (~runs_RT[:, 0]).nonzero()[:, 0]
        after_RTD = hidden_RTD
        if len(rows_G):
            cache.rows_G = rows_G
            weight_GT = None if weight_RT is None else weight_RT.index_select(0, rows_G)
            output_GTD = self._run(layer, hidden_RTD.index_select(0, rows_G), weight_GT, step, rows_G)
            after_RTD = after_RTD.index_copy(0, rows_G, output_GTD)
        if cache.policy == "propagate":
            self._project(Call(layer), hidden_RTD, others_G, step)
        if weight_RT is None:
            return after_RTD
        others_GTD, weight_GT = hidden_RTD.index_select(0, others_G), weight_RT.index_select(0, others_G)
        return after_RTD.index_copy(0, others_G, self._gate.skipped(layer, others_GTD, weight_GT))

    def _run(
        self, layer: int, hidden_GTD: Tensor, weight_GT: Tensor | None, step: Step, rows_G: Tensor | None = None
    ) -> Tensor:
        """The states after the layer of tokens that run it, their MLP's branch weighed."""
        if weight_GT is None:
            return self._decoder.run(Call(layer), hidden_GTD, step, rows_G)
        serial = self._decoder.sublayers.serial  # found before the cache holds anything
        attended_GTD = self._decoder.run(Call(layer, Part.ATTENTION), hidden_GTD, step, rows_G)
        entering_GTD = attended_GTD if serial else hidden_GTD
        branch_GTD = self._decoder.run(Call(layer, Part.MLP), entering_GTD, step, rows_G) - entering_GTD
        return attended_GTD + weight_GT[:, :, None].to(branch_GTD.dtype) * branch_GTD

    def _project(self, call: Call, hidden_RTD: Tensor, rows_G: Tensor, step: Step) -> None:
        """Stores the keys and values of rows that skip a layer; the rest of the layer is not run."""
        self._cache.rows_G, self._cache.states_only = rows_G, True
        try:
            self._decoder.run(call, hidden_RTD.index_select(0, rows_G), step, rows_G)
        except Stored:
            pass
        finally:
            self._cache.states_only = False

    def select(self, keep: list[int]) -> None:
        """Keeps only these rows."""
        rows = torch.tensor(keep, device=self._decoder.device)
        self._cache.keep(rows)
        self._padding_R = self._padding_R[rows]
        self.requests = [self.requests[row] for row in keep]


def _prompt_tokens(prompts: Seq[PromptState], extra: Seq[Seq[int]]) -> Tensor:
    """Prompts and what follows them, right-aligned at the prompt's end (R T)."""
    width = max(prompt.length for prompt in prompts)
    longest = max(len(ids) for ids in extra)
    tokens_RT = prompts[0].tokens.new_zeros((len(prompts), width + longest))
    for row, (prompt, ids) in enumerate(zip(prompts, extra, strict=True)):
        tokens_RT[row, width - prompt.length : width] = prompt.tokens
        tokens_RT[row, width : width + len(ids)] = tokens_RT.new_tensor(list(ids))
    return tokens_RT


@torch.inference_mode()
def gated_decode(
    decoder: Decoder, prompts: Seq[PromptState], gate: Gate, settings: Settings, requests: Seq[int]
) -> list[GatedGeneration]:
    """Greedy outputs of some prompts under a gate, which gets the numbers of the requests."""
    batch = GatedBatch(decoder, prompts, gate, requests, new_tokens=settings.max_new_tokens)
    hidden_R1D: Tensor | None = None
    if not prompts[0].given:
        hidden_R1D = batch.forward(_prompt_tokens(prompts, [()] * len(prompts)))[:, -1:]
    tokens: dict[int, list[int]] = {request: [] for request in requests}
    margins = dict.fromkeys(requests, float("inf"))
    ties: dict[int, list[int]] = {request: [] for request in requests}
    prompt_of = {request: prompt.tokens for request, prompt in zip(requests, prompts, strict=True)}
    finished = dict.fromkeys(requests, False)
    while True:
        rows: list[Row] = [(prompt_of[request], tokens[request]) for request in batch.requests]
        if hidden_R1D is None:
            best_R, leads, near = settings.choose(torch.stack([prompt.logits_V for prompt in prompts]), rows)
        else:
            best_R, leads, near = settings.after(decoder, hidden_R1D, rows)
        for request, token, lead, tie in zip(batch.requests, best_R.tolist(), leads, near, strict=True):
            if tie:
                ties[request].append(len(tokens[request]))
            tokens[request].append(token)
            margins[request] = min(margins[request], lead)
        finished |= zip(batch.requests, settings.ended(rows), strict=True)
        keep = [
            row
            for row, request in enumerate(batch.requests)
            if not finished[request] and len(tokens[request]) < settings.max_new_tokens
        ]
        if not keep:
            break
        if len(keep) < len(batch.requests):
            batch.select(keep)
            best_R = best_R[keep]
        hidden_R1D = batch.forward(best_R[:, None])
    return [
        GatedGeneration(
            generation=Generation(
                tokens=tuple(tokens[request]),
                finished=finished[request],
                margin=margins[request],
                ties=tuple(ties[request]),
            ),
            ran_TL=_stack(batch.ran[request], decoder.layers),
        )
        for request in requests
    ]


@torch.inference_mode()
def gated_score(
    decoder: Decoder,
    prompts: Seq[PromptState],
    gate: Gate,
    continuations: Seq[Seq[int]],
    requests: Seq[int],
    settings: Settings,
) -> list[GatedScore]:
    """Teacher-forced log-likelihoods of one continuation a prompt under a gate."""
    given = prompts[0].given
    longest = max(len(ids) for ids in continuations)
    batch = GatedBatch(decoder, prompts, gate, requests, new_tokens=longest)
    fed = [list(ids[:-1]) for ids in continuations]
    tokens_RT = _prompt_tokens(prompts, fed)
    width = max(prompt.length for prompt in prompts)
    if not given:
        hidden_RTD = batch.forward(tokens_RT)[:, width - 1 :]
    elif longest > 1:
        hidden_RTD = batch.forward(tokens_RT[:, width:])
    scores = []
    for row, (prompt, ids) in enumerate(zip(prompts, continuations, strict=True)):
        logits = [prompt.logits_V[None]] if given else []
        if count := len(ids) - given:
            logits.append(decoder.finish(hidden_RTD[row : row + 1, :count])[0])
        raw_TV = torch.cat(logits)
        logits_TV = raw_TV.double()
        targets_T = prompt.tokens.new_tensor(list(ids))
        gold_T = logits_TV.log_softmax(-1).gather(1, targets_T[:, None])[:, 0]
        length = len(fed[row]) + prompt.own
        scores.append(
            GatedScore(
                log_likelihoods_T=gold_T.cpu().numpy(),
                best_T=settings.forced(raw_TV, prompt.tokens, ids).cpu().numpy(),
                greedy=bool((raw_TV.argmax(-1) == targets_T).all()),
                ran_TL=_stack(batch.ran[requests[row]][:length], decoder.layers),
            )
        )
    return scores


def _stack(rows: Seq[NDArray[np.bool_]], layers: int) -> NDArray[np.bool_]:
    return np.array(rows, dtype=np.bool_).reshape(-1, layers)
