"""One token, decoded repeatedly after the same context: whole, in parts, or only its keys and values."""

import time
from collections.abc import Sequence as Seq
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from oracle.costs.costs import Conditions
from oracle.models import Decoder
from oracle.models.gated_kv_cache import Stored
from oracle.models.kv_cache import RowCache, States
from oracle.models.layer_call import Call

__all__ = ["Bench"]

TOKENS_AT_ONCE = 2048
"""Tokens of the context per pass: bounds the activations."""


class Bench:
    """One token after a context, to be decoded repeatedly.

    The cache is not advanced, so that each repetition writes the same slot. For use in inference mode.

    Args:
        decoder: the model.
        calls: the units' executions, in order.
        conditions: context and batch; the tokens are random, since they select experts.
    """

    def __init__(self, decoder: Decoder, calls: Seq[Call], conditions: Conditions) -> None:
        self._decoder, self._calls = decoder, calls
        self._cache = _TokenCache(decoder.layers, conditions.context)
        vocabulary = decoder.model.config.get_text_config().vocab_size
        size = (conditions.batch, conditions.context)
        context_RT = torch.randint(vocabulary, size, generator=torch.Generator().manual_seed(0)).to(decoder.device)
        self._token_R1 = context_RT[:, -1:]
        for tokens_RT in context_RT[:, :-1].split(max(1, TOKENS_AT_ONCE // conditions.batch), dim=1):
            if tokens_RT.shape[1]:
                self._read(tokens_RT)

    def _read(self, tokens_RT: Tensor) -> None:
        """Appends tokens of the context at full depth."""
        start, count = self._cache.length, tokens_RT.shape[1]
        positions = torch.arange(start, start + count, device=tokens_RT.device)[None]
        step = self._decoder.begin(tokens_RT, cache=self._cache, positions_RT=positions)
        hidden_RTD = step.hidden_RTD
        for layer in range(self._decoder.layers):
            hidden_RTD = self._decoder.run(Call(layer), hidden_RTD, step)
        self._cache.advance(count)

    def whole(self) -> list[float]:
        """The untouched model's own forward, in ms."""
        clock = _Clock(self._decoder.device)
        self._decoder.model(input_ids=self._token_R1, cache=self._cache, use_cache=True)
        return clock.lap().laps()

    def parts(self) -> list[float]:
        """The start, each unit, the end, in ms."""
        position = torch.full((1, 1), self._cache.length, device=self._decoder.device)
        clock = _Clock(self._decoder.device)
        step = self._decoder.begin(self._token_R1, cache=self._cache, positions_RT=position)
        clock.lap()
        hidden_R1D = step.hidden_RTD
        for call in self._calls:
            hidden_R1D = self._decoder.run(call, hidden_R1D, step)
            clock.lap()
        self._decoder.finish(hidden_R1D)
        return clock.lap().laps()

    def states(self) -> list[float]:
        """Keys and values of each layer, in ms: the layer runs up to them, as for tokens that skip it."""
        position = torch.full((1, 1), self._cache.length, device=self._decoder.device)
        step = self._decoder.begin(self._token_R1, cache=self._cache, positions_RT=position)
        self._cache.states_only = True
        clock = _Clock(self._decoder.device)
        for layer in range(self._decoder.layers):
            try:
                self._decoder.run(Call(layer), step.hidden_RTD, step)
            except Stored:
                clock.lap()
        self._cache.states_only = False
        return clock.laps()


class _TokenCache(RowCache):
    """A cache whose steps are the layers; with `states_only` a layer stops once its keys and values are known."""

    states_only = False

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> States:
        """Stores the states in the next slot of the layer and returns all of its states."""
        self.step = layer_idx
        states = super().update(key_states, value_states, layer_idx)
        if self.states_only:
            raise Stored
        return states


class _Clock:
    """Lap times; on a GPU by its own clock, so that nothing waits between laps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []
        self.lap()

    def lap(self) -> Self:
        """Ends a lap and begins the next."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._events.append(event)
        else:
            self._times.append(time.perf_counter())
        return self

    def laps(self) -> list[float]:
        """All laps, in ms."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return [before.elapsed_time(after) for before, after in pairwise(self._events)]
        return [1e3 * (after - before) for before, after in pairwise(self._times)]
