"""Settings of a SkipLayer study, with defaults and validation."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from oracle.errors import InputError
from oracle.utils.devices import AUTO, check_device
from oracle.utils.text import one_of
from oracle.utils.validation import check_types

__all__ = ["ARMS", "PRESETS", "Arm", "Estimator", "SkipConfig", "Unit"]

Arm = Literal["skiplayer", "random", "dense", "early-exit", "full"]

ARMS = get_args(Arm)
"""`skiplayer`: learned routers. `random`: random routing of the same density. `dense`: no routers; two models, of the
depths whose FLOPs enclose SkipLayer's, interpolated at equal FLOPs. `early-exit`: intermediate exits, taken by
confidence. `full`: every layer for every token."""

Unit = Literal["layer", "module"]

Estimator = Literal["executed", "all"]


@dataclass(frozen=True, kw_only=True)
class SkipConfig:
    """Settings of a study.

    Published (Zeng et al. 2023): the router, the straight-through Gumbel-softmax, the form of the density loss, keys
    and values of skipping tokens, the arms. Ours: noise that falls to 0 (`settle`), the estimator `executed`, the
    weight of the density loss, the temperature, the tasks and all sizes but those of `paper-*`.

    Attributes:
        width: hidden width, D.
        layers: number of layers, L.
        heads: number of attention heads; D must be a multiple, and the head width even.
        feed_forward: width of the SwiGLU feed-forward part.
        context: tokens per row, in training and validation.
        tokenizer: `bytes` (a vocabulary of 256), or a `tokenizer.json` of the tokenizers library.
        unit: unit of a routing decision: a `layer`, or its attention and feed-forward parts separately (`module`).
        density: P, the target share of units that a token executes.
        arms: the arms to train and compare.
        text: training text files; empty for the bundled text.
        task_share: share of the training rows that are one-shot tasks instead of text.
        steps: number of optimiser steps.
        batch: rows per step.
        learning_rate: peak learning rate, after warm-up; it falls to a tenth along a cosine.
        warmup: number of warm-up steps.
        weight_decay: weight decay of matrices.
        clip: maximum gradient norm.
        density_weight: weight of the density loss, in nats. Zeng et al. use 0.1, which over a few hundred steps leaves
            the executed density 0.05 above the target, because the cross-entropy gain of a layer outweighs it.
        temperature: temperature of the soft gate that carries the gradient.
        settle: share of the steps over which the gates' noise falls to 0, its value at inference.
        estimator: gradient estimator of the gates; see `oracle.skiplayer.router`.
        validation: number of held-out rows.
        questions: questions per one-shot task.
        checkpoint: steps between two checkpoints.
        seed: seed of every random choice.
        seeds: number of trainings per arm, from `seed` upwards; text, held-out rows and questions are the same for all.
        device: `cpu`, `cuda`, `cuda:N`, or `auto` (a GPU if available, else the CPU).
    """

    width: int = 64
    layers: int = 8
    heads: int = 4
    feed_forward: int = 176
    context: int = 128
    tokenizer: str = "bytes"
    unit: Unit = "layer"
    density: float = 0.5
    arms: tuple[str, ...] = ARMS
    text: tuple[str, ...] = ()
    task_share: float = 0.25
    steps: int = 400
    batch: int = 16
    learning_rate: float = 4e-3
    warmup: int = 30
    weight_decay: float = 0.1
    clip: float = 1.0
    density_weight: float = 1.0
    temperature: float = 2.0
    settle: float = 0.8
    estimator: Estimator = "executed"
    validation: int = 64
    questions: int = 200
    checkpoint: int = 100
    seed: int = 0
    seeds: int = 3
    device: str = AUTO

    def __post_init__(self) -> None:
        check_types(self)
        for name, known in (("unit", get_args(Unit)), ("estimator", get_args(Estimator))):
            if (found := getattr(self, name)) not in known:
                raise InputError(f"--{name} needs {one_of(known, found)}")
        if unknown := [arm for arm in self.arms if arm not in ARMS]:
            raise InputError(f"--arms needs arms, each {one_of(ARMS, unknown[0])}")
        least = {"width": 2, "layers": 2, "heads": 1, "feed_forward": 1, "context": 16, "steps": 1, "batch": 1}
        least |= {"validation": 2, "questions": 0, "checkpoint": 1, "warmup": 0, "seed": 0, "seeds": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InputError(f"--{name.replace('_', '-')} needs at least {bound}, not {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise InputError(f"--width needs a multiple of twice the {self.heads} heads, not {self.width}")
        for name in ("density", "task_share", "settle"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"--{name.replace('_', '-')} needs a share from 0 to 1, not {getattr(self, name)}")
        for name in ("density_weight", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} needs a number of at least 0, not {getattr(self, name)}")
        check_device(self.device)
        for name in ("learning_rate", "temperature", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} needs a number above 0, not {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """Settings as plain values, for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SkipConfig":
        """Restores a config from `to_dict` output, also after a JSON round trip.

        Raises:
            InputError: if a setting is unknown or no longer allowed.
        """
        try:
            plain: dict[str, Any] = {"seeds": 1}  # studies of earlier versions trained one seed and do not say so
            plain |= {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            return cls(**plain)
        except (AttributeError, TypeError) as error:
            raise InputError(f"the settings of the study are not those of this layer-oracle ({error})") from error


_LAPTOP = SkipConfig()

_PAPER = replace(
    _LAPTOP,
    context=1024,
    batch=256,
    tokenizer="tokenizer.json",
    steps=1_000_000,
    warmup=10_000,
    learning_rate=2e-4,
    task_share=0.0,
    density_weight=0.1,
    validation=1024,
    checkpoint=1000,
    seeds=1,
    device="cuda",
)

PRESETS: dict[str, SkipConfig] = {
    "laptop": _LAPTOP,
    "trial": replace(_LAPTOP, steps=200),
    "paper-408m": replace(_PAPER, width=1024, layers=16, heads=16, feed_forward=5504),
    "paper-5.8b": replace(_PAPER, width=3072, layers=30, heads=48, feed_forward=16384),
}
"""`laptop` is the default, `trial` is for the benchmark. The others have the smallest and the largest parameter count
of Zeng et al. (408 M and 5.79 B, head width 64, 32k tokens, 256 rows of 1024 tokens per step; from secondary sources);
their split into width and depth is ours."""
