"""Per-token gates: every token decides at every layer whether it runs it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.errors import InputError
from oracle.models.gated_kv_cache import Policy

__all__ = ["Fed", "Gate", "TableGate"]


@dataclass(frozen=True, kw_only=True)
class Fed:
    """The tokens that a gate is asked about.

    Attributes:
        requests: for each row the request it belongs to, counted from 0 in the order they were given.
        start: place of the first of the tokens among the generated ones (0 is the first generated token); prompts end
            at -1.
        skipped_R: padding before each row's tokens: as many of its first places mean nothing.
    """

    requests: tuple[int, ...]
    start: int
    skipped_R: tuple[int, ...]


class Gate(ABC):
    """Decides which tokens run a layer.

    A decision must depend on the hidden states and the places alone: the engine may ask again for the same tokens.
    The engine asks at every layer, in order, with the hidden states that enter it; what does not run passes through
    unchanged. Keys and values of a token that skips a layer are settled by the policy: `propagate` projects its
    un-updated state, `copy` takes those of the nearest lower layer that it ran, `omit` leaves the token out of what
    later tokens attend to in that layer (and so does `copy` where no lower layer ran). An adapter on the skip path and
    a weight of the MLP's branch are for gates that override `weighed` and `skipped`.

    Sources: Glavas et al. 2024 (arXiv 2410.20022) and SkipLayer (2311.15436) propagate; Unified Layer Skipping
    (2404.06954) copies.
    """

    policy: ClassVar[Policy] = "propagate"

    @abstractmethod
    def runs(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> Tensor:
        """Which tokens run the layer (R T, boolean), on the device of the hidden states."""

    def weighed(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> tuple[Tensor, Tensor | None]:
        """Which tokens run the layer, and the factor on its MLP's branch for those that do (R T); None for 1."""
        return self.runs(layer, hidden_RTD, fed), None

    def skipped(self, layer: int, hidden_GTD: Tensor, weight_GT: Tensor) -> Tensor:
        """The states after the layer of tokens that skip it (G T D); called for layers with weights only."""
        return hidden_GTD


class TableGate(Gate):
    """Decisions that are known beforehand.

    Args:
        tables: for each request the decisions (tokens L): row i is that of generated token i. Tokens beyond the table
            repeat its last row; prompt tokens run the layers of `prompt`.
        policy: what becomes of the keys and values of skipped layers.
        prompt: the layers that prompt tokens run in scope `sequence` (L); all of them by default.
    """

    def __init__(
        self, tables: Seq[NDArray[np.bool_]], *, policy: Policy, prompt: NDArray[np.bool_] | None = None
    ) -> None:
        if policy not in get_args(Policy):
            raise InputError(f"the policy must be one of {', '.join(get_args(Policy))}, not '{policy}'")
        self._tables = [np.asarray(table, dtype=np.bool_) for table in tables]
        if any(table.ndim != 2 or not len(table) for table in self._tables):
            raise InputError("a table of decisions needs the shape (tokens, layers) and at least one token")
        self._prompt = prompt
        self.policy = policy  # type: ignore[misc]

    def runs(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> Tensor:
        """The decisions of the tables."""
        places_T = np.arange(fed.start, fed.start + hidden_RTD.shape[1])
        decided = []
        for request in fed.requests:
            if request >= len(self._tables):
                raise InputError(f"a table of decisions for each prompt is required, but there are {len(self._tables)}")
            table = self._tables[request]
            generated_T = table[np.clip(places_T, 0, len(table) - 1), layer]
            reading = True if self._prompt is None else bool(self._prompt[layer])
            decided.append(np.where(places_T < 0, reading, generated_T))
        return torch.from_numpy(np.stack(decided)).to(hidden_RTD.device)
