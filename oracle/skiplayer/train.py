"""Training of one arm of a study, seeded per step, so that resumed training ends with identical weights."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from oracle.errors import InputError, Interrupted
from oracle.models.checkpoints import load_training, save_training
from oracle.skiplayer.config import SkipConfig
from oracle.skiplayer.early_exit import exit_loss
from oracle.skiplayer.model import Model
from oracle.skiplayer.router import Gates, LearnedGates, RandomGates
from oracle.skiplayer.text import Corpus
from oracle.utils.machine import resolve_device
from oracle.utils.progress import Watch, silent

__all__ = ["Learner", "Stop", "never", "seeded", "train"]

Stop = Callable[[], bool]


def never() -> bool:
    """Returns False: the default of `stop`."""
    return False


def seeded(*numbers: int) -> torch.Generator:
    """An independent random generator per combination of numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number) % 2**63
    return torch.Generator().manual_seed(mixed)


class Learner(nn.Module):
    """A model in training.

    Args:
        arm: the arm to train; see `oracle.skiplayer.config.ARMS`.
        config: settings.
        vocabulary: vocabulary size, V.
        layers: L; None for the config's.

    Raises:
        InputError: if the config's device is not available.

    Attributes:
        model: the model.
        router: its learned routers; None for arms without.
        device: device of both.
        done: number of steps taken.
        losses: cross-entropy per step taken, in nats/token.
    """

    def __init__(self, arm: str, config: SkipConfig, vocabulary: int, layers: int | None = None) -> None:
        super().__init__()
        self.arm, self.config, self.device = arm, config, resolve_device(config.device)
        self.model = Model(config, vocabulary, layers)
        self.model.initialise(seeded(config.seed))
        self.router: LearnedGates | None = None
        if arm == "skiplayer":
            options: dict[str, Any] = {"temperature": config.temperature, "estimator": config.estimator}
            self.router = LearnedGates(self.model.units, config.width, **options)
        self.to(self.device)
        self.done, self.losses = 0, list[float]()
        decayed = [one for name, one in self.model.named_parameters() if one.dim() > 1 and "embedding" not in name]
        others = [one for one in self.parameters() if all(one is not other for other in decayed)]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))

    def gates(self, *, step: int | None = None) -> Gates | None:
        """Gates of a training step, or of inference; without confidence gates, which need a threshold."""
        if self.arm == "random":
            return RandomGates(self.config.density, seeded(self.config.seed, 1, -1 if step is None else step))
        if self.router is not None:
            fading = max(self.config.settle * self.config.steps, 1)
            self.router.noise = 0.0 if step is None else max(0.0, 1 - step / fading)
            self.router.generator = None if step is None else seeded(self.config.seed, 1, step)
        return self.router

    def step(self, rows_RT: Tensor) -> float:
        """Takes one step on rows (B T+1); returns their cross-entropy in nats/token."""
        config, gold_RT = self.config, rows_RT[:, 1:]
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * _share(self.done, config)
        early = self.arm == "early-exit"
        passed = self.model(rows_RT[:, :-1], self.gates(step=self.done), every=early)
        if early:
            loss = entropy = exit_loss(self.model, passed, gold_RT)
        else:
            logits_RTV = self.model.logits(passed.hidden_RTD)
            loss = entropy = functional.cross_entropy(logits_RTV.flatten(0, 1), gold_RT.flatten())
        if self.router is not None:
            rates_U = torch.stack([pick.rate for pick in passed.picks])
            loss = entropy + config.density_weight * (rates_U - config.density).square().sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), config.clip)
        self.optimiser.step()
        self.done += 1
        self.losses.append(entropy.item())
        if not math.isfinite(self.losses[-1]):
            raise InputError(
                f"the loss of {self.arm} is not finite after {self.done} steps; use a smaller --learning-rate"
            )
        return self.losses[-1]

    def save(self, path: Path) -> None:
        """Writes weights, the optimiser's moments and the losses to one safetensors file."""
        about = {"arm": self.arm, "step": self.done, "config": self.config.to_dict(), "losses": self.losses}
        save_training(path, self, self.optimiser, about)

    def load(self, path: Path) -> None:
        """Restores a checkpoint written by `save`.

        Raises:
            InputError: if it is damaged, or of another arm.
        """
        about = load_training(path, self, self.optimiser, {"arm": self.arm})
        if "losses" not in about:
            raise InputError(f"the checkpoint '{path}' is of another version; delete it to train again")
        self.done, self.losses = int(about["step"]), [float(loss) for loss in about["losses"]]


def train(
    learner: Learner,
    corpus: Corpus,
    path: Path | None = None,
    *,
    watch: Watch = silent,
    stop: Stop = never,
) -> None:
    """Trains to the last step, from a checkpoint if there is one.

    Args:
        learner: the model in training.
        corpus: training text.
        path: path of the checkpoint; None for no checkpoints.
        watch: reports progress.
        stop: returns whether the user requested a stop.

    Raises:
        Interrupted: on a requested stop, after writing the checkpoint.
        InputError: if the checkpoint cannot be used, or the loss is not finite.
    """
    config = learner.config
    if path is not None and path.is_file():
        learner.load(path)
    if learner.done == config.steps:
        return
    with watch(f"Training {learner.arm}", config.steps) as advance:
        advance(learner.done, "")
        while learner.done < config.steps:
            rows_RT = torch.from_numpy(corpus.batch(config, learner.done)).to(learner.device)
            advance(1, f"{learner.step(rows_RT):.3f} nats/token")
            asked = stop()
            if path is not None and (asked or not learner.done % config.checkpoint or learner.done == config.steps):
                learner.save(path)
            if asked:
                raise Interrupted(str(path))


def _share(step: int, config: SkipConfig) -> float:
    """Learning rate over its peak: linear warm-up, then a cosine to a tenth."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    way = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, way)))
