"""Samplers of optuna as search strategies."""

import math
import warnings
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from oracle.errors import InputError
from oracle.search.enumeration import Random
from oracle.search.strategy import Problem
from oracle.types import Allocation, Outcome

# Importing optuna takes as long as importing numpy; it waits until a sampler is used.
if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = ["MultiTpe", "Nsga2", "Sampler", "Tpe"]

Directions = tuple[Literal["minimize", "maximize"], ...]
COST: Directions = ("minimize",)
COST_AND_QUALITY: Directions = ("minimize", "maximize")

REPEATS = 20
"""Maximum number of consecutive proposals of known masks."""
OPEN = 16
"""Minimum of the limit on masks under evaluation; the limit is the number of known ones if that is larger."""
TOLD = 500
"""Maximum number of outcomes of other origin told at a time, the best first: with 4000 TPE takes 75 ms."""


class Sampler(Random):
    """Skip masks proposed by a sampler of optuna: one yes-or-no variable per free unit.

    The sampler's study is in memory and holds all outcomes of the archive, including those of other origin. One
    objective is the cost of a mask that qualifies, and for any other the full cost plus the shortfall of its quality;
    two are cost and quality. A mask of unknown quality, which cannot qualify, gets the worst quality so far.

    Samplers repeat themselves. A mask settled by the archive is told again at once, one under evaluation is failed;
    `REPEATS` consecutive repetitions are followed by a random new mask, and without any the search is done.

    With a storage, finished trials are copied into a study there, each mask once, for optuna's dashboard, and not read
    back: a search continues from its archive. (Asking for and telling a trial in SQLite took 240 ms, adding one 30 ms.)

    Args:
        problem: what to search.
        storage: as for `optuna.create_study`: a URL such as sqlite:///trials.db, or a storage; None for none.
        study: name of the study in the storage, continued if it exists; None for a new one with a generated name.

    Raises:
        InputError: if the storage cannot be opened, or has a study of that name with other objectives.
    """

    directions: ClassVar[Directions]
    generations: ClassVar[bool] = False
    """Whether the sampler learns only from trials it was asked for, because it numbers generations in them."""

    def __init__(
        self, problem: Problem, *, storage: "str | BaseStorage | None" = None, study: str | None = None
    ) -> None:
        super().__init__(problem)
        from optuna import create_study
        from optuna.distributions import CategoricalDistribution

        self._units = {f"unit {unit:02}": unit for unit in problem.space.free}
        # Not integers: TPE's density estimates collapse on single masks.
        variable: BaseDistribution = CategoricalDistribution((False, True))
        self._variables = dict.fromkeys(self._units, variable)
        with _quiet():
            sampler = self._sampler(int(self._rng.integers(2**32)))
            self._study = create_study(directions=self.directions, sampler=sampler)
        self._copy = None if storage is None else _stored(storage, study, self.directions)
        self._copied = {self._mask(trial.params) for trial in self._copy.trials} if self._copy else set()
        self._open: dict[Allocation, Trial] = {}
        self._told: set[Allocation] = set()
        self._worst = math.inf

    def _sampler(self, seed: int) -> "BaseSampler":
        raise NotImplementedError

    def _candidates(self, count: int) -> Iterable[Allocation]:
        self._tell_new()
        repeats = 0
        while len(self._open) < max(OPEN, len(self._told)):
            if repeats < REPEATS:
                trial = self._study.ask(self._variables)
            else:
                fresh = next((mask for mask in super()._candidates(count) if not self.known(mask)), None)
                if fresh is None:
                    return
                trial = self._trial(fresh)
            mask = self._mask(trial.params)
            if self.known(mask):
                self._repeat(trial, mask)
                repeats += 1
            else:
                self._open[mask] = trial
                repeats = 0
                yield mask

    def _repeat(self, trial: "Trial", mask: Allocation) -> None:
        from optuna.trial import TrialState

        if self.problem.archive.settled(mask):
            self._study.tell(trial, self._values(mask))
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _learn(self, outcomes: Seq[Outcome]) -> None:
        self._tell_new()

    def _tell_new(self) -> None:
        """Tells the study the new outcomes of the archive, in an order that does not depend on their arrival."""
        archive = self.problem.archive
        if archive.full is None:
            return
        new = {mask: one for mask, one in archive.outcomes.items() if mask not in self._told}
        self._told.update(new)
        self._worst = min([self._worst, *(archive.quality(one) for one in new.values() if not one.dropped)])
        masks = [mask for mask in new if archive.free_count(mask) is not None]
        masks.sort(key=lambda mask: (self._loss(mask), mask))
        others = [mask for mask in masks if mask not in self._open][:TOLD]
        for mask in [mask for mask in masks if mask in self._open] + others:
            finished = self._finished(mask)
            if self.generations and mask not in self._open:
                self._open[mask] = self._trial(mask)
            if mask in self._open:
                self._study.tell(self._open.pop(mask), finished.values)
            else:
                self._study.add_trial(finished)
            if self._copy is not None and mask not in self._copied:
                self._copied.add(mask)
                self._copy.add_trial(finished)

    def _trial(self, mask: Allocation) -> "Trial":
        """A trial of this mask, as if the sampler had chosen it."""
        self._study.enqueue_trial(self._params(mask))
        trial = self._study.ask(self._variables)
        # Given parameters are not drawn, and only a trial that draws enters a generation.
        _ = trial.relative_params
        return trial

    def _finished(self, mask: Allocation) -> "FrozenTrial":
        from optuna.trial import create_trial

        outcome = self.problem.archive.outcomes[mask]
        notes = {
            "cost": self.problem.space.cost(mask),
            "quality": None if outcome.dropped else self.problem.archive.quality(outcome),
            "qualifies": self.problem.archive.qualifies(outcome),
        }
        params, values = self._params(mask), self._values(mask)
        return create_trial(params=params, distributions=self._variables, values=values, user_attrs=notes)

    def _values(self, mask: Allocation) -> list[float]:
        """Objectives of a mask that the archive settles."""
        if self.directions == COST:
            return [self._loss(mask)]
        return [self.problem.space.cost(mask), self._quality(mask)]

    def _loss(self, mask: Allocation) -> float:
        archive, space, outcome = self.problem.archive, self.problem.space, self.problem.archive.outcomes.get(mask)
        assert archive.threshold is not None, "the full model's quality is known"
        if outcome is not None and archive.qualifies(outcome):
            return space.cost(mask)
        return space.cost(space.full) + max(0.0, archive.threshold - self._quality(mask))

    def _quality(self, mask: Allocation) -> float:
        outcome = self.problem.archive.outcomes.get(mask)
        return self._worst if outcome is None or outcome.dropped else self.problem.archive.quality(outcome)

    def _mask(self, params: dict[str, Any]) -> Allocation:
        return self.problem.space.mask({unit for name, unit in self._units.items() if params.get(name)})

    def _params(self, mask: Allocation) -> dict[str, bool]:
        return {name: unit in mask for name, unit in self._units.items()}


class Tpe(Sampler):
    """Bayesian optimisation of the cost by a tree-structured Parzen estimator over all units together."""

    name = "tpe"
    hint = "optuna's Bayesian optimisation (TPE) of the cost: few evaluations, each with 5-20 ms overhead"
    directions = COST

    def _sampler(self, seed: int) -> "BaseSampler":
        from optuna.samplers import TPESampler

        # The constant liar keeps the masks of one batch apart.
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)


class MultiTpe(Tpe):
    """The same with two objectives, cost and quality.

    On synthetic landscapes of 30 units it was as good after 200 masks as CMA-ES, which needs one more package and
    stalls on masks that it proposed before, and after 50 as a Gaussian process, which takes 250-400 ms per mask.
    """

    name = "motpe"
    hint = "optuna's Bayesian optimisation (TPE) of cost and quality at once: good where hardly any mask qualifies"
    directions = COST_AND_QUALITY


class Nsga2(Sampler):
    """Evolution of a population towards the frontier of cost and quality."""

    name = "nsga2"
    hint = "optuna's NSGA-II: evolves the whole frontier of cost and quality, 1-5 ms overhead per evaluation"
    directions = COST_AND_QUALITY
    generations = True

    def _sampler(self, seed: int) -> "BaseSampler":
        from optuna.samplers import NSGAIISampler

        # Optuna's default of 50 leaves too few generations in the few hundred evaluations per sequence.
        return NSGAIISampler(seed=seed, population_size=20)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses optuna's notices; its settings are restored."""
    from optuna import logging
    from optuna.exceptions import ExperimentalWarning

    level = logging.get_verbosity()
    logging.set_verbosity(max(level, logging.WARNING))
    try:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            yield
    finally:
        logging.set_verbosity(level)


def _stored(storage: "str | BaseStorage", name: str | None, directions: Directions) -> "Study":
    from optuna import create_study
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with _quiet():
            study = create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    except (OptunaError, SQLAlchemyError, ImportError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"a storage is required that optuna can open, such as sqlite:///x.db: {reason}") from error
    if (found := tuple(one.name.lower() for one in study.directions)) != directions:
        raise InputError(f"study {name} has the objectives {found}, not {directions}: choose another name")
    return study
