"""Hidden states of any sequence under any allocation: read from the store, or computed by one teacher-forced pass.

States are the embeddings that enter the first unit, and the output of each unit before the final norm (the library's
`output_hidden_states` ends behind it; apply `Decoder.normed`). They are computed in the same way for every caller: the
prompt in one pass, then all given tokens in one more, by the model's own attention at batch 1. So a stored state equals
the one that would be computed.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

from oracle.config import SearchConfig
from oracle.engine.prompts import PromptState
from oracle.engine.schedule import Units
from oracle.errors import InputError
from oracle.models.kv_cache import RowCache
from oracle.models.layer_call import Call
from oracle.models.loading import LanguageModel
from oracle.store.hidden import HiddenStore, Key
from oracle.types import Allocation

__all__ = ["Hidden", "States", "Trace"]

VERSION = 1
"""Moves when the meaning of a state does; stored states of another version are not found."""


@dataclass(frozen=True)
class _Pass:
    """The last prompt that was run: its states, and the keys and values that it left."""

    ids: tuple[int, ...]
    allocation: Allocation
    states_ITD: Tensor
    cache: RowCache


class Trace:
    """The states of some tokens under an allocation. Nothing is read or computed until it is asked for.

    Attributes:
        allocation: the units that ran on these tokens.
        units: U.
    """

    def __init__(self, allocation: Allocation, units: int, read: Callable[[slice], Tensor]) -> None:
        self.allocation = allocation
        self.units = units
        self._read = read

    def executed(self) -> Tensor:
        """The states before the first execution and after each (I T D)."""
        return self._read(slice(None))

    def after(self, depth: int) -> Tensor:
        """The state after `depth` units, skipped ones included (T D); 0 is that of the embeddings.

        One read of just that state, if it is stored.
        """
        if not 0 <= depth <= self.units:
            raise InputError(f"a depth of 0 to {self.units} units is required, not {depth}")
        place = self._place(depth)
        return self._read(slice(place, place + 1))[0]

    def every(self) -> Tensor:
        """The states before the first unit and after each, one that is skipped leaving them as they are (U+1 T D)."""
        return self._read(slice(None))[[self._place(depth) for depth in range(self.units + 1)]]

    def _place(self, depth: int) -> int:
        if list(self.allocation) != sorted(set(self.allocation)):
            raise InputError(f"states by depth need a rising allocation, not {self.allocation}; see `executed`")
        return bisect_left(self.allocation, depth)


@dataclass(frozen=True, kw_only=True)
class States:
    """The states of a sequence under an allocation.

    Attributes:
        prompt: of the prompt's tokens; in scope `decode` under the full allocation.
        generated: of the tokens after it, under the allocation.
    """

    prompt: Trace
    generated: Trace


class Hidden:
    """Hidden states, from the store where it has them.

    Args:
        model: the model.
        units: what allocations are made of.
        config: scope and unit.
        store: keeps what is computed; None to compute whatever is asked for.

    Attributes:
        store: where states are kept.
        hits: states of prompts or outputs that were read from the store.
        misses: those that had to be computed.
        executions: layer x token units that this took.
    """

    def __init__(self, model: LanguageModel, units: Units, config: SearchConfig, store: HiddenStore | None) -> None:
        self._model, self._units, self._config, self.store = model, units, config, store
        self._full = tuple(range(units.count))
        self._last: _Pass | None = None
        self.hits = self.misses = self.executions = 0

    def counts(self) -> dict[str, int]:
        """For the summary of a run: hits, misses, and how many of the misses were damaged files."""
        return {"hits": self.hits, "misses": self.misses, "damaged": len(self.store.damaged) if self.store else 0}

    def states(self, prompt: PromptState | Seq[int], tokens: Seq[int], allocation: Allocation) -> States:
        """The states of a prompt and of what follows it.

        Args:
            prompt: an open prompt, or just its token ids (`Engine.encode`): then nothing is run if all is stored.
            tokens: ids that are fed after the prompt, at least one; an output's last token may be among them or not.
            allocation: the units that run: in scope `decode` on the tokens, in scope `sequence` on the prompt too.

        Raises:
            InputError: for allocations that cannot run, tokens that do not fit, and the parts of parallel blocks,
                which have no state between them.
        """
        opened = prompt if isinstance(prompt, PromptState) else None
        ids = tuple(int(token) for token in (prompt.tokens.tolist() if isinstance(prompt, PromptState) else prompt))
        fed, allocation = tuple(int(token) for token in tokens), tuple(int(unit) for unit in allocation)
        self._check(ids, fed, allocation)
        ran = self._full if self._config.scope == "decode" else allocation
        return States(
            prompt=self._trace(ids, (), ran, lambda: self._prompt(ids, ran).states_ITD),
            generated=self._trace(ids, fed, allocation, lambda: self._generated(ids, fed, allocation, ran, opened)),
        )

    def _check(self, ids: tuple[int, ...], fed: tuple[int, ...], allocation: Allocation) -> None:
        self._units.check(allocation, rising=self._config.scope == "decode")
        if not self._units.sequential:
            raise InputError(
                "hidden states between attention and MLP need blocks that run them one after the other; those of this "
                "model run side by side: use the unit 'layer'"
            )
        if not ids or not fed:
            raise InputError(f"hidden states need at least one token of each, not {len(ids)} and {len(fed)} after it")
        context = self._model.context
        if context is not None and len(ids) + len(fed) > context:
            raise InputError(f"{len(ids)} tokens and {len(fed)} after them do not fit the context of {context} tokens")

    def _trace(
        self, ids: tuple[int, ...], fed: tuple[int, ...], allocation: Allocation, compute: Callable[[], Tensor]
    ) -> Trace:
        computed: list[Tensor] = []
        counted: list[bool] = []
        store, key = self.store, self._key(ids, fed, allocation) if self.store else None

        def read(states: slice) -> Tensor:
            if not computed:
                found = store.get(key, states) if store and key else None
                if found is not None:
                    self.hits += not counted
                    counted.append(True)
                    return _tensor(found).to(self._model.decoder.device)
                self.misses += 1
                computed.append(compute())
                if store and key:
                    store.put(key, _array(computed[0]), name=self._model.name)
            return computed[0][states].to(self._model.decoder.device)

        return Trace(allocation, self._units.count, read)

    def _key(self, ids: tuple[int, ...], fed: tuple[int, ...], allocation: Allocation) -> Key:
        return Key(
            model=self._model.fingerprint,
            dtype=str(self._model.network.dtype).removeprefix("torch."),
            unit=self._config.unit,
            # Under the full allocation both scopes are one.
            scope="decode" if allocation == self._full else self._config.scope,
            prompt=ids,
            generated=fed,
            allocation=allocation,
            code=self._code,
        )

    @cached_property
    def _code(self) -> str:
        """What else the numbers depend on: libraries and kernels, down to rounding."""
        libraries = [f"{name} {version(name)}" for name in ("torch", "transformers")]
        return " ".join([str(VERSION), *libraries, self._model.decoder.device.type])

    def _prompt(self, ids: tuple[int, ...], ran: Allocation) -> _Pass:
        """One pass over a prompt; that over the last one is at hand."""
        if self._last is None or (self._last.ids, self._last.allocation) != (ids, ran):
            calls = self._units.calls(ran)
            cache = RowCache(_steps(calls, self._model.layers), len(ids))
            self._last = None  # before the next one takes its memory
            self._last = _Pass(ids, ran, self._run(ids, calls, cache), cache)
        return self._last

    @torch.inference_mode()
    def _generated(
        self,
        ids: tuple[int, ...],
        fed: tuple[int, ...],
        allocation: Allocation,
        ran: Allocation,
        opened: PromptState | None,
    ) -> Tensor:
        """One pass over what follows a prompt."""
        calls = self._units.calls(allocation)
        cache = RowCache(_steps(self._units.calls(ran), self._model.layers), len(ids) + len(fed))
        cache.advance(len(ids))
        if opened is not None and ran == self._full:
            for layer, states in enumerate(opened.cache):
                cache.fill_prompts(layer, [states], len(ids))
        else:
            only = np.zeros(1, dtype=np.int64)
            for step in range(cache.steps):
                cache.take(step, [(self._prompt(ids, ran).cache, only, only)], 1)
        return self._run(fed, calls, cache)

    @torch.inference_mode()
    def _run(self, ids: tuple[int, ...], calls: tuple[Call, ...], cache: RowCache) -> Tensor:
        """Runs tokens through some layers, one row; returns the states, on the CPU (I T D)."""
        decoder = self._model.decoder
        tokens_1T = torch.tensor([ids], device=decoder.device)
        positions_1T = torch.arange(cache.length, cache.length + len(ids), device=decoder.device)[None]
        step = decoder.begin(tokens_1T, cache=cache, positions_RT=positions_1T)
        hidden_1TD = step.hidden_RTD
        with torch.inference_mode(False):  # training on the states needs ordinary tensors
            states_ITD = torch.empty((len(calls) + 1, *hidden_1TD.shape[1:]), dtype=hidden_1TD.dtype)
        states_ITD[0] = hidden_1TD[0]
        for place, (call, number) in enumerate(zip(calls, _numbers(calls, decoder.layers), strict=True), 1):
            cache.step = number
            hidden_1TD = decoder.run(call, hidden_1TD, step)
            states_ITD[place] = hidden_1TD[0]
        cache.advance(len(ids))
        self.executions += len(calls) * len(ids)
        return states_ITD


def _numbers(calls: Seq[Call], layers: int) -> list[int]:
    """For each call the place of its keys and values: that of its layer, and another one for every repeat."""
    seen: Counter[Call] = Counter()
    numbers = []
    for call in calls:
        numbers.append(call.layer + layers * seen[call])
        seen[call] += 1
    return numbers


def _steps(calls: Seq[Call], layers: int) -> int:
    """How many places there are."""
    return layers * max([1, *Counter(calls).values()])


def _array(states_ITD: Tensor) -> np.ndarray:
    """The states for the store, which takes bfloat16 as bits."""
    return (states_ITD.view(torch.uint16) if states_ITD.dtype == torch.bfloat16 else states_ITD).numpy()


def _tensor(states_ITD: np.ndarray) -> Tensor:
    states = torch.from_numpy(states_ITD)
    return states.view(torch.bfloat16) if states.dtype == torch.uint16 else states
