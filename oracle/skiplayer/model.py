"""A small decoder-only model whose tokens may skip layers (SkipLayer: Zeng et al. 2023, arXiv 2311.15436).

RMS norms, rotary positions, SwiGLU, untied embedding and head. A skipping token passes through unchanged. Its keys and
values are always computed, its query, attention and feed-forward part are not: running tokens are gathered and their
results scattered back. In shapes, X is the running tokens over all rows, Q the maximum number of them per row.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from oracle.skiplayer.config import SkipConfig
from oracle.skiplayer.router import Gates, Routing

__all__ = ["Model", "Pass"]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Result of one forward pass.

    Attributes:
        hidden_RTD: hidden states after the last layer, before the final norm.
        picks: routing per unit.
        after: hidden states after each layer; empty unless requested.
    """

    hidden_RTD: Tensor
    picks: tuple[Routing, ...]
    after: tuple[Tensor, ...]


class Layer(nn.Module):
    """One decoder layer, in parts that accept any number of tokens."""

    def __init__(self, config: SkipConfig) -> None:
        super().__init__()
        width, wide = config.width, config.feed_forward
        self.heads = config.heads
        self.before, self.between = nn.RMSNorm(width), nn.RMSNorm(width)
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.states = nn.Linear(width, 2 * width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * wide, bias=False), nn.Linear(wide, width, bias=False)

    def keys_and_values(self, normed_RTD: Tensor, rotation_TW: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated keys, and values, of all tokens (B H T E each)."""
        keys, values = self.states(normed_RTD).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return _rotated(keys, rotation_TW), values

    def attend(self, normed_RTD: Tensor, pick: Routing, states: tuple[Tensor, Tensor], rotation_TW: Tensor) -> Tensor:
        """Attention output for the computed tokens (X D)."""
        keys, values = states
        index_X = pick.index
        if index_X is None:
            query = self.query(normed_RTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            mixed = functional.scaled_dot_product_attention(_rotated(query, rotation_TW), keys, values, is_causal=True)
            return self.out(mixed.transpose(1, 2).flatten(2).flatten(0, 1))
        rows, tokens, width = normed_RTD.shape
        row_X, place_X = index_X // tokens, index_X % tokens
        assert pick.runs_RT is not None
        rank_X = (pick.runs_RT.cumsum(1) - 1).flatten()[index_X]
        most = int(pick.runs_RT.sum(1).max())
        query_XHW = self.query(_gather(normed_RTD, index_X)).unflatten(-1, (self.heads, -1))
        query_XHW = _rotated(query_XHW.transpose(0, 1), rotation_TW[place_X]).transpose(0, 1)
        query_RQHW = query_XHW.new_zeros((rows, most, *query_XHW.shape[1:])).index_put((row_X, rank_X), query_XHW)
        place_RQ = place_X.new_zeros((rows, most)).index_put((row_X, rank_X), place_X)
        sees_RQT = torch.arange(tokens, device=place_RQ.device) <= place_RQ[:, :, None]
        mixed = functional.scaled_dot_product_attention(
            query_RQHW.transpose(1, 2), keys, values, attn_mask=sees_RQT[:, None]
        )
        return self.out(mixed.transpose(1, 2)[row_X, rank_X].reshape(-1, width))

    def feed(self, hidden_XD: Tensor) -> Tensor:
        """Feed-forward output (X D)."""
        gate, up = self.up(self.between(hidden_XD)).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


class Model(nn.Module):
    """The model; the gates passed to a call decide which tokens skip.

    Args:
        config: its shape.
        vocabulary: vocabulary size, V.
        layers: L; None for the config's.
    """

    rotation_TW: Tensor

    def __init__(self, config: SkipConfig, vocabulary: int, layers: int | None = None) -> None:
        super().__init__()
        self.unit = config.unit
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(layers or config.layers))
        self.last = nn.RMSNorm(config.width)
        self.head = nn.Linear(config.width, vocabulary, bias=False)
        self.register_buffer("rotation_TW", _rotation(config.context, config.width // config.heads), persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights from normal distributions; output projections are scaled by 1 / sqrt(2 L)."""
        small = 1 / math.sqrt(2 * len(self.layers))
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                scale = small if name.endswith(("out.weight", "down.weight")) else 1.0
                scale *= 0.02 if "embedding" in name or "head" in name else weight.shape[1] ** -0.5
                weight.data.copy_(torch.randn(weight.shape, generator=generator) * scale)

    @property
    def units(self) -> int:
        """Routing decisions per token: L, or 2L with unit `module`."""
        return len(self.layers) * (2 if self.unit == "module" else 1)

    def forward(self, tokens_RT: Tensor, gates: Gates | None = None, *, every: bool = False) -> Pass:
        """Runs a batch.

        Args:
            tokens_RT: token ids.
            gates: decide which tokens run; None for all.
            every: whether to return the hidden states after each layer.
        """
        hidden = self.embedding(tokens_RT)
        turns = self.rotation_TW[: tokens_RT.shape[1]]
        picks: list[Routing] = []
        after: list[Tensor] = []

        def decide(normed: Tensor) -> Routing:
            picks.append(gates(len(picks), hidden, normed) if gates else Routing())
            return picks[-1]

        for layer in self.layers:
            assert isinstance(layer, Layer)
            normed = layer.before(hidden)
            pick = decide(normed)
            added = layer.attend(normed, pick, layer.keys_and_values(normed, turns), turns)
            if self.unit == "layer":
                added = added + layer.feed(_gather(hidden, pick.index) + added)
            else:
                hidden = _scatter_add(hidden, pick, added)
                pick = decide(layer.between(hidden))
                added = layer.feed(_gather(hidden, pick.index))
            hidden = _scatter_add(hidden, pick, added)
            if every:
                after.append(hidden)
        return Pass(hidden_RTD=hidden, picks=tuple(picks), after=tuple(after))

    def logits(self, hidden: Tensor) -> Tensor:
        """Final norm and head."""
        return self.head(self.last(hidden))


def _gather(hidden_RTD: Tensor, index_X: Tensor | None) -> Tensor:
    """Hidden states of the tokens to compute (X D)."""
    flat = hidden_RTD.flatten(0, 1)
    return flat if index_X is None else flat.index_select(0, index_X)


def _scatter_add(hidden_RTD: Tensor, pick: Routing, added_XD: Tensor) -> Tensor:
    """Adds the gated outputs to the hidden states (B T D)."""
    index_X = pick.index
    if pick.gate_RT is not None:
        gate_X = pick.gate_RT.flatten()
        added_XD = added_XD * (gate_X if index_X is None else gate_X[index_X])[:, None]
    if index_X is None:
        return hidden_RTD + added_XD.view_as(hidden_RTD)
    return hidden_RTD.flatten(0, 1).index_add(0, index_X, added_XD).view_as(hidden_RTD)


def _rotation(tokens: int, width: int) -> Tensor:
    """Rotation per position: cosines, then sines (T W)."""
    speed = 10_000.0 ** (-torch.arange(0, width, 2).float() / width)
    angle = torch.arange(tokens).float()[:, None] * speed
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def _rotated(states: Tensor, rotation_TW: Tensor) -> Tensor:
    """Rotates queries or keys (... T E) by their positions."""
    (left, right), (cos, sin) = states.chunk(2, dim=-1), rotation_TW.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)
