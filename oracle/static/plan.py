"""Settings of a search for static masks; imports nothing heavy, for help texts."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from oracle.errors import InputError
from oracle.utils.text import one_of
from oracle.utils.validation import check_names

__all__ = ["JUDGES", "METHOD_NAMES", "Judge", "Plan"]

Judge = Literal["kl", "quality"]

JUDGES: tuple[Judge, ...] = get_args(Judge)

METHOD_NAMES = ("unified", "influence", "greedy", "evolution", "surrogate")
"""Names of the methods in `oracle.search.mask_search.METHODS`, in the order in which they run."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a search for static masks.

    Attributes:
        judge: what is maximised on the training part: minus the `kl` divergence from the full model, or mean `quality`.
        methods: names in `METHOD_NAMES`; the best on the training part is chosen.
        budgets: costs per generated token; empty for a curve.
        speedups: target ratios of the full model's cost; they add budgets.
        evaluations: masks on the whole training part, per budget, for methods that can use more.
        training: share of the sequences in the training part.
        limit: maximum number of sequences, evenly spaced over the run; None for all.
        seed: seed of the split and the methods.
        timed: whether to measure tokens per second.
    """

    judge: Judge = "kl"
    methods: tuple[str, ...] = METHOD_NAMES
    budgets: tuple[float, ...] = ()
    speedups: tuple[float, ...] = ()
    evaluations: int = 48
    training: float = 0.5
    limit: int | None = None
    seed: int = 0
    timed: bool = True

    def __post_init__(self) -> None:
        if self.judge not in JUDGES:
            raise InputError(f"--by must be {one_of(JUDGES, self.judge)}")
        check_names("--methods", self.methods, METHOD_NAMES)
        if not self.methods:
            raise InputError(f"--methods requires at least one of {', '.join(METHOD_NAMES)}")
        if any(not math.isfinite(one) or one <= 0 for one in self.budgets):
            raise InputError(f"--budget must be above 0, not {min(self.budgets)}")
        if any(not math.isfinite(one) or one <= 1 for one in self.speedups):
            raise InputError(f"--speedup must be above 1, not {min(self.speedups)}")
        if self.evaluations < 1:
            raise InputError(f"--evaluations must be at least 1, not {self.evaluations}")
        if not 0 < self.training < 1:
            raise InputError(f"--training must be above 0 and below 1, not {self.training}")
