"""Routers for a pretrained model with frozen weights.

A router reads the hidden state that enters a layer, divided by its root mean square. Keys and values of a skipping
token are projected from its un-updated state, so that trained routers are an engine gate under policy `propagate`.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from oracle.engine.gates import Fed, Gate
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.models.checkpoints import read_tensors, write_tensors
from oracle.models.introspection import find_layers
from oracle.skiplayer.router import Gates, LearnedGates, Routing
from oracle.skiplayer.train import seeded
from oracle.utils.progress import Watch, silent
from oracle.utils.validation import check_types

__all__ = ["RetrofitConfig", "RoutedGate", "retrofit"]

RUN_BIAS = 4.0
"""Initial bias: a token runs a layer with probability 0.98."""


@dataclass(frozen=True, kw_only=True)
class RetrofitConfig:
    """Training settings of routers.

    Attributes:
        density: target share of layers that a token runs, the mean over layers.
        steps: number of optimiser steps.
        batch: rows per step.
        context: tokens per row.
        learning_rate: learning rate of Adam.
        density_weight: weight of L (executed - density)^2, in nats.
        settle: share of the steps over which the gates' noise falls to 0.
        seed: seed of batches and noise.
    """

    density: float = 0.9
    steps: int = 150
    batch: int = 2
    context: int = 64
    learning_rate: float = 3e-3
    density_weight: float = 3.0
    settle: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.density <= 1:
            raise InputError(f"the density must be a share from 0 to 1, not {self.density}")
        if min(self.steps, self.batch, self.context - 1) < 1:
            raise InputError(
                f"steps and batch must be at least 1 and context at least 2, not {self.steps}, {self.batch} and "
                f"{self.context}"
            )


class RoutedGate(Gate):
    """Trained routers as an engine gate.

    Args:
        router: one router per layer.
        about: provenance.
    """

    def __init__(self, router: LearnedGates, about: Mapping[str, Any]) -> None:
        self.router, self.about = router.eval(), dict(about)

    def runs(self, layer: int, hidden_RTD: Tensor, fed: Fed) -> Tensor:
        """Noise-free decisions: whether each token runs the layer (R T)."""
        with torch.no_grad():
            runs_RT = self.router(layer, hidden_RTD, _normed(hidden_RTD)).runs_RT
        assert runs_RT is not None
        return runs_RT

    def save(self, path: Path) -> None:
        """Writes the routers to a safetensors file, with their provenance as JSON metadata."""
        write_tensors(path, self.router.state_dict(), self.about)

    @classmethod
    def load(cls, path: Path, model: LanguageModel) -> "RoutedGate":
        """Reads a file written by `save`.

        Raises:
            InputError: if the file is damaged, or the routers belong to another model.
        """
        tensors, about = read_tensors(path)
        wanted = about.get("fingerprint")
        if wanted != model.fingerprint:
            raise InputError(
                f"the routers in '{path}' were trained for a model of fingerprint {wanted}, but '{model.name}' has "
                f"{model.fingerprint}; give the same model"
            )
        router = _router(model)
        try:
            router.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(f"'{path}' does not contain routers ({error}); train them again") from error
        return cls(router, about)


def retrofit(
    model: LanguageModel, texts: Seq[str], config: RetrofitConfig | None = None, *, watch: Watch = silent
) -> RoutedGate:
    """Trains one router per layer on texts; the model's weights stay frozen.

    Loss: cross-entropy of the text (nats/token) + `density_weight` x L (mean executed rate - density)^2. Only the mean
    over layers is held to the density, not each layer as in training from scratch, because a pretrained model fails
    without its first layers. Skipped layers are computed in training: estimator `all` of `oracle.skiplayer.router`.

    Args:
        model: a loaded decoder-only model.
        texts: training texts.
        config: training settings; None for the defaults.
        watch: reports progress.

    Raises:
        InputError: if the texts have fewer tokens than one row.
    """
    config = config or RetrofitConfig()
    ids = [token for text in texts for token in model.tokenizer.encode(text)]
    if len(ids) <= config.context:
        raise InputError(f"text of more than {config.context} tokens is required, but there are {len(ids)}; give more")
    tokens, router = torch.tensor(ids), _router(model)
    optimiser = torch.optim.Adam(router.parameters(), lr=config.learning_rate)
    losses: list[float] = []
    frozen = [one for one in model.network.parameters() if one.requires_grad]
    for one in frozen:
        one.requires_grad_(False)
    try:
        with watch("Training routers", config.steps) as advance:
            for step in range(config.steps):
                losses.append(_step(model, router, optimiser, _rows(tokens, config, step), config, step))
                advance(1, f"{losses[-1]:.3f} nats/token")
    finally:
        for one in frozen:
            one.requires_grad_(True)
    router.generator = None
    about = {"fingerprint": model.fingerprint, "model": model.name, "config": asdict(config), "losses": losses}
    return RoutedGate(router, about)


def _router(model: LanguageModel) -> LearnedGates:
    width = model.network.config.get_text_config().hidden_size
    router = LearnedGates(model.layers, width, temperature=1.0, estimator="all", bias=RUN_BIAS)
    return router.to(model.network.device)


def _rows(tokens: Tensor, config: RetrofitConfig, step: int) -> Tensor:
    starts = np.random.default_rng([config.seed, step]).integers(0, len(tokens) - config.context, config.batch)
    return torch.stack([tokens[start : start + config.context + 1] for start in starts.tolist()])


def _step(
    model: LanguageModel,
    router: LearnedGates,
    optimiser: torch.optim.Optimizer,
    rows_RT: Tensor,
    config: RetrofitConfig,
    step: int,
) -> float:
    """One step; returns the cross-entropy in nats/token."""
    router.noise = max(0.0, 1 - step / max(1.0, config.settle * config.steps))
    router.generator = seeded(config.seed, 3, step)
    rows_RT = rows_RT.to(model.network.device)
    with routed(model, router) as picks:
        logits_RTV = model.network(input_ids=rows_RT[:, :-1], use_cache=False).logits.float()
    entropy = functional.cross_entropy(logits_RTV.flatten(0, 1), rows_RT[:, 1:].flatten())
    rates_L = torch.stack([pick.rate for pick in picks if pick.rate is not None])
    loss = entropy + config.density_weight * len(rates_L) * (rates_L.mean() - config.density).square()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return entropy.item()


@contextmanager
def routed(model: LanguageModel, gates: Gates) -> Iterator[list[Routing]]:
    """Applies gates to the model's own forward passes; yields a list that grows by one routing per layer run."""
    owner, name = find_layers(model.network)
    picks: list[Routing] = []

    def hook(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        hidden_RTD = args[0] if args else kwargs["hidden_states"]
        pick = gates(len(picks), hidden_RTD, _normed(hidden_RTD))
        picks.append(pick)
        after_RTD = output[0] if isinstance(output, tuple) else output
        assert pick.runs_RT is not None
        gate_RT = pick.runs_RT if pick.gate_RT is None else pick.gate_RT
        mixed_RTD = hidden_RTD + gate_RT.to(after_RTD.dtype)[:, :, None] * (after_RTD - hidden_RTD)
        return (mixed_RTD, *output[1:]) if isinstance(output, tuple) else mixed_RTD

    handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer in getattr(owner, name)]
    try:
        yield picks
    finally:
        for handle in handles:
            handle.remove()


def _normed(hidden: Tensor) -> Tensor:
    return functional.rms_norm(hidden.float(), hidden.shape[-1:])
