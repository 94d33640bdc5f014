"""KV cache for per-token gates: each token runs its own subset of layers."""

from typing import Literal

import torch
from torch import Tensor

from oracle.models.kv_cache import RowCache, States

__all__ = ["GatedCache", "Policy", "Stored"]

Policy = Literal["propagate", "copy", "omit"]
"""Source of a token's keys and values in a layer it skipped; see `oracle.engine.gates.Gate`."""


class Stored(Exception):  # noqa: N818 - control flow, not an error
    """Raised inside a layer once its keys and values are cached, to skip the rest of it."""


class GatedCache(RowCache):
    """A cache whose layers hold every row, whether or not a row's tokens ran the layer.

    Args:
        layers: L.
        rows: R.
        slots: capacity in tokens.
        policy: source of keys and values for skipped layers.
        device: the model's device.

    Attributes:
        visible_LRS: whether a token may be attended to in a layer.
        rows_G: rows passed to the running layer; None for all.
        runs_RT: which new tokens run the layer, if it is passed all rows.
        states_only: whether the layer stops after computing its keys and values.
    """

    def __init__(self, layers: int, rows: int, slots: int, policy: Policy, device: torch.device) -> None:
        super().__init__(layers, slots)
        self.policy = policy
        self.visible_LRS = torch.ones((layers, rows, slots), dtype=torch.bool, device=device)
        self.rows_G: Tensor | None = None
        self.runs_RT: Tensor | None = None
        self.states_only = False
        self._lower: States | None = None
        self._any_RT: Tensor | None = None

    def begin_tokens(self) -> None:
        """Resets per-token state at the start of a pass."""
        self._lower = self._any_RT = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> States:
        """Stores new states of some rows and returns all states of those rows."""
        end = self.own + key_states.shape[2]
        if self._keys[self.step] is None:
            rows = self.visible_LRS.shape[1]
            self._keys[self.step] = self._allocate(rows, key_states)
            self._values[self.step] = self._allocate(rows, value_states)
        keys, values = self._keys[self.step], self._values[self.step]
        assert keys is not None and values is not None
        if self.rows_G is None:
            keys[:, :, self.own : end], values[:, :, self.own : end] = self._mixed(key_states, value_states)
        else:
            keys[self.rows_G, :, self.own : end] = key_states
            values[self.rows_G, :, self.own : end] = value_states
        if self.states_only:
            raise Stored
        if self.rows_G is None:
            return keys[:, :, :end], values[:, :, :end]
        return keys[:, :, :end].index_select(0, self.rows_G), values[:, :, :end].index_select(0, self.rows_G)

    def _mixed(self, keys: Tensor, values: Tensor) -> States:
        """States of all new tokens; under `copy`, tokens that skip the layer take the lower layer's."""
        if self.policy == "copy" and self._lower is not None and self.runs_RT is not None:
            runs = self.runs_RT[:, None, :, None]
            return torch.where(runs, keys, self._lower[0]), torch.where(runs, values, self._lower[1])
        return keys, values

    def record(self, runs_RT: Tensor) -> None:
        """Called after each layer: records which tokens are visible in it and, under `copy`, fills skipped ones."""
        if self.policy == "propagate":
            return
        end = self.own + runs_RT.shape[1]
        window = slice(self.own, end)
        visible_RT = self.visible(runs_RT)
        self.visible_LRS[self.step, :, window] = visible_RT
        self._any_RT = visible_RT
        if self.policy == "copy":
            self._fill(runs_RT, window)

    def _fill(self, runs_RT: Tensor, window: slice) -> None:
        keys, values = self._keys[self.step], self._values[self.step]
        if keys is None or values is None:
            if self._lower is None:
                return
            rows = self.visible_LRS.shape[1]
            keys = self._keys[self.step] = self._allocate(rows, self._lower[0])
            values = self._values[self.step] = self._allocate(rows, self._lower[1])
        if self._lower is not None:
            runs = runs_RT[:, None, :, None]
            keys[:, :, window] = torch.where(runs, keys[:, :, window], self._lower[0])
            values[:, :, window] = torch.where(runs, values[:, :, window], self._lower[1])
        self._lower = keys[:, :, window].clone(), values[:, :, window].clone()

    def visible(self, runs_RT: Tensor) -> Tensor:
        """Which new tokens may be attended to in the running layer (R T), given which of them run it."""
        if self.policy == "copy" and self._any_RT is not None:
            return self._any_RT | runs_RT
        return runs_RT

    def keep(self, rows: Tensor) -> None:
        """Keeps only these rows."""
        self.visible_LRS = self.visible_LRS.index_select(1, rows)
        for store in (self._keys, self._values):
            for step, states in enumerate(store):
                if states is not None:
                    store[step] = states.index_select(0, rows)
