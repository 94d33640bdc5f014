"""A small decoder-only model whose tokens may skip layers (SkipLayer: Zeng et al. 2023, arXiv 2311.15436).

RMS norms, rotary positions, SwiGLU, untied embedding and head. A skipping token passes through unchanged. Its keys and
values are always computed, its query, attention and feed-forward part are not: running tokens are gathered and their
results scattered back.

Shapes: B rows, T tokens, D width, H heads, E head width, V vocabulary, N running tokens over all rows, Q maximum number
of running tokens per row.
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
        hidden_BTD: hidden states after the last layer, before the final norm.
        picks: routing per unit.
        after: hidden states after each layer; empty unless requested.
    """

    hidden_BTD: Tensor
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

    def keys_and_values(self, normed_BTD: Tensor, rotation_TE: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated keys, and values, of all tokens (B H T E each)."""
        keys, values = self.states(normed_BTD).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return _rotated(keys, rotation_TE), values

    def attend(self, normed_BTD: Tensor, pick: Routing, states: tuple[Tensor, Tensor], rotation_TE: Tensor) -> Tensor:
        """Attention output for the computed tokens (N D)."""
        keys, values = states
        index_N = pick.index
        if index_N is None:
            query = self.query(normed_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            mixed = functional.scaled_dot_product_attention(_rotated(query, rotation_TE), keys, values, is_causal=True)
            return self.out(mixed.transpose(1, 2).flatten(2).flatten(0, 1))
        rows, tokens, width = normed_BTD.shape
        row_N, place_N = index_N // tokens, index_N % tokens
        assert pick.runs_BT is not None
        rank_N = (pick.runs_BT.cumsum(1) - 1).flatten()[index_N]
        most = int(pick.runs_BT.sum(1).max())
        query_NHE = self.query(_gather(normed_BTD, index_N)).unflatten(-1, (self.heads, -1))
        query_NHE = _rotated(query_NHE.transpose(0, 1), rotation_TE[place_N]).transpose(0, 1)
        query_BQHE = query_NHE.new_zeros((rows, most, *query_NHE.shape[1:])).index_put((row_N, rank_N), query_NHE)
        place_BQ = place_N.new_zeros((rows, most)).index_put((row_N, rank_N), place_N)
        sees_BQT = torch.arange(tokens, device=place_BQ.device) <= place_BQ[:, :, None]
        mixed = functional.scaled_dot_product_attention(
            query_BQHE.transpose(1, 2), keys, values, attn_mask=sees_BQT[:, None]
        )
        return self.out(mixed.transpose(1, 2)[row_N, rank_N].reshape(-1, width))

    def feed(self, hidden_ND: Tensor) -> Tensor:
        """Feed-forward output (N D)."""
        gate, up = self.up(self.between(hidden_ND)).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


class Model(nn.Module):
    """The model; the gates passed to a call decide which tokens skip.

    Args:
        config: its shape.
        vocabulary: vocabulary size, V.
        layers: L; None for the config's.
    """

    rotation_TE: Tensor

    def __init__(self, config: SkipConfig, vocabulary: int, layers: int | None = None) -> None:
        super().__init__()
        self.unit = config.unit
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(layers or config.layers))
        self.last = nn.RMSNorm(config.width)
        self.head = nn.Linear(config.width, vocabulary, bias=False)
        self.register_buffer("rotation_TE", _rotation(config.context, config.width // config.heads), persistent=False)

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

    def forward(self, tokens_BT: Tensor, gates: Gates | None = None, *, every: bool = False) -> Pass:
        """Runs a batch.

        Args:
            tokens_BT: token ids.
            gates: decide which tokens run; None for all.
            every: whether to return the hidden states after each layer.
        """
        hidden = self.embedding(tokens_BT)
        turns = self.rotation_TE[: tokens_BT.shape[1]]
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
        return Pass(hidden_BTD=hidden, picks=tuple(picks), after=tuple(after))

    def logits(self, hidden: Tensor) -> Tensor:
        """Final norm and head."""
        return self.head(self.last(hidden))


def _gather(hidden_BTD: Tensor, index_N: Tensor | None) -> Tensor:
    """Hidden states of the tokens to compute (N D)."""
    flat = hidden_BTD.flatten(0, 1)
    return flat if index_N is None else flat.index_select(0, index_N)


def _scatter_add(hidden_BTD: Tensor, pick: Routing, added_ND: Tensor) -> Tensor:
    """Adds the gated outputs to the hidden states (B T D)."""
    index_N = pick.index
    if pick.gate_BT is not None:
        gate_N = pick.gate_BT.flatten()
        added_ND = added_ND * (gate_N if index_N is None else gate_N[index_N])[:, None]
    if index_N is None:
        return hidden_BTD + added_ND.view_as(hidden_BTD)
    return hidden_BTD.flatten(0, 1).index_add(0, index_N, added_ND).view_as(hidden_BTD)


def _rotation(tokens: int, width: int) -> Tensor:
    """Rotation per position: cosines, then sines (T E)."""
    speed = 10_000.0 ** (-torch.arange(0, width, 2).float() / width)
    angle = torch.arange(tokens).float()[:, None] * speed
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def _rotated(states: Tensor, rotation_TE: Tensor) -> Tensor:
    """Rotates queries or keys (... T E) by their positions."""
    (left, right), (cos, sin) = states.chunk(2, dim=-1), rotation_TE.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)
