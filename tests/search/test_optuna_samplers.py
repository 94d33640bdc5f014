"""Optuna's samplers: what they are told and how often they repeat, what is stored, and how near they come."""

import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from oracle.errors import InputError
from oracle.search.archive import Archive
from oracle.search.enumeration import Random
from oracle.search.optuna_samplers import OPEN, TOLD, MultiTpe, Nsga2, Sampler, Tpe
from oracle.search.space import Space
from oracle.search.strategy import Problem
from oracle.testing.landscapes import METRIC, Landscape, additive, outcome, pairs, plateaus, run
from oracle.types import Allocation, Outcome, Proposal

SAMPLERS = [Tpe, MultiTpe, Nsga2]
every = pytest.mark.parametrize("build", SAMPLERS)


def search(landscape: Landscape, strategy: Sampler, evaluations: int, batch: int) -> list[Allocation]:
    asked: list[Allocation] = []
    while len(asked) < evaluations and not strategy.done:
        proposals = strategy.ask(min(batch, evaluations - len(asked)))
        assert proposals, "all outcomes are told, so that there is nothing to wait for"
        asked += [one.allocation for one in proposals]
        strategy.tell(landscape.evaluate(proposals)[::-1])
    return asked


def masks(landscape: Landscape, seed: int, count: int) -> list[Outcome]:
    """Outcomes of the full model and of random masks."""
    rng = np.random.default_rng(seed)
    drawn = [tuple(np.flatnonzero(row).tolist()) for row in rng.random((count, landscape.units)) < 0.6]
    full = landscape.space.full
    return landscape.evaluate(Proposal(allocation=one, family="random") for one in dict.fromkeys([full, *drawn]))


def told(strategy: Sampler) -> dict[Allocation, list[float]]:
    trials = strategy._study.get_trials(states=(TrialState.COMPLETE,))
    return {strategy._mask(trial.params): trial.values for trial in trials}


@pytest.mark.parametrize(("build", "evaluations"), [(Tpe, 60), (MultiTpe, 60), (Nsga2, 120)])
@pytest.mark.parametrize("batch", [1, 16])
def test_comes_near_the_optimum(build: type[Sampler], evaluations: int, batch: int) -> None:
    """Units too many, summed over three landscapes of 4096 masks; chance leaves eleven after sixty."""

    def excess(strategy: type[Random], evaluations: int) -> int:
        landscapes = [pairs(seed) for seed in range(3)]
        return sum(run(one, strategy(one.problem()), evaluations, batch)[-1] - one.optimum for one in landscapes)

    assert excess(build, evaluations) <= 4
    assert excess(Random, 60) >= 6


@every
@pytest.mark.parametrize("batch", [1, 16])
def test_exhausts_a_small_space_and_ends(build: type[Sampler], batch: int) -> None:
    landscape = additive(0, 5)
    strategy = build(landscape.problem())
    asked = search(landscape, strategy, 100, batch)
    assert len(set(asked)) == len(asked) == 32
    assert strategy.done and strategy.ask(4) == []
    assert strategy.problem.archive.upper is not None
    assert strategy.problem.archive.upper.cost == landscape.optimum


@every
@pytest.mark.parametrize("batch", [1, 16])
def test_equal_seeds_give_equal_searches(build: type[Sampler], batch: int) -> None:
    landscape = pairs(1)
    first, again, other = (search(landscape, build(landscape.problem(seed)), 40, batch) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 40


@every
def test_large_batches_grow_with_what_is_known(build: type[Sampler]) -> None:
    landscape = additive(0, 30)
    strategy = build(landscape.problem())
    sizes = []
    for _ in range(4):
        proposals = strategy.ask(512)
        sizes.append(len(proposals))
        strategy.tell(landscape.evaluate(proposals))
    assert sizes == [1, OPEN, OPEN + 1, 2 * OPEN + 2]


@every
def test_nothing_is_asked_while_it_waits(build: type[Sampler]) -> None:
    landscape = additive(0)
    strategy = build(landscape.problem())
    assert [one.family for one in strategy.ask(5)] == ["full"]
    assert strategy.ask(5) == [] and not strategy.done
    strategy.tell(landscape.evaluate([Proposal(allocation=landscape.space.full, family="full")]))
    batch = strategy.ask(5)
    assert {one.family for one in batch} == {build.name}
    assert len({one.allocation for one in batch} | {one.allocation for one in strategy.ask(5)}) == 10


@every
def test_goes_on_from_an_archive(build: type[Sampler]) -> None:
    landscape = additive(3)
    problem = landscape.problem()
    known = masks(landscape, 0, 60)
    problem.archive.add(known)
    strategy = build(problem)
    asked = search(landscape, strategy, 20, 4)
    assert not {one.allocation for one in known} & set(asked)
    assert {one.allocation for one in known} | set(asked) == told(strategy).keys()


@every
def test_learns_from_an_archive(build: type[Sampler]) -> None:
    """What it asks first is better than what it asks where only the full model is known."""

    def loss(landscape: Landscape, known: list[Outcome]) -> float:
        problem = landscape.problem()
        problem.archive.add(known)
        strategy = build(problem)
        asked = search(landscape, strategy, 12, 12)
        return float(np.mean([strategy._loss(mask) for mask in asked]))

    landscapes = [additive(0, 24), pairs(0, 24), additive(1, 24), pairs(1, 24)]
    known = [masks(landscape, 0, 100) for landscape in landscapes]
    better = [loss(*one) < loss(one[0], one[1][:1]) for one in zip(landscapes, known, strict=True)]
    assert better == [True] * 4


@every
def test_the_order_of_the_archive_makes_no_difference(build: type[Sampler]) -> None:
    landscape = pairs(2)
    forwards, backwards = landscape.problem(), landscape.problem()
    known = masks(landscape, 1, 50)
    forwards.archive.add(known)
    backwards.archive.add(known[::-1])
    assert search(landscape, build(forwards), 12, 4) == search(landscape, build(backwards), 12, 4)


def test_of_a_large_archive_the_best_are_told() -> None:
    landscape = additive(0, 16)
    problem = landscape.problem()
    problem.archive.add(masks(landscape, 0, 700))
    strategy = Tpe(problem)
    strategy.ask(1)
    values = [strategy._loss(mask) for mask in problem.archive.outcomes]
    assert len(told(strategy)) == TOLD < len(values)
    assert max(value for (value,) in told(strategy).values()) <= sorted(values)[TOLD]


def small(known: Iterable[Outcome], costs: tuple[float, ...] = (1.0, 2.0, 3.0)) -> Problem:
    space = Space(units=3, free=(0, 1, 2), costs=costs)
    archive = Archive(space, METRIC, 0.1)
    archive.add(known)
    return Problem(space=space, archive=archive, seed=0)


def dropped(allocation: Allocation) -> Outcome:
    return Outcome(
        allocation=allocation, family="", tokens=(), text="", finished=False, margin=0.0, dropped=True, quality={}
    )


KNOWN = [outcome((0, 1, 2), 0.8), outcome((1, 2), 0.75), outcome((0,), 0.3), outcome((0, 1), 0.5), dropped((2,))]


def test_one_objective_is_the_cost_or_what_the_quality_falls_short_by() -> None:
    strategy = Tpe(small(KNOWN))
    strategy.ask(1)
    assert told(strategy) == {
        (0, 1, 2): [6.0],
        (1, 2): [5.0],
        (0, 1): [pytest.approx(6 + 0.2)],
        (0,): [pytest.approx(6 + 0.4)],
        (2,): [pytest.approx(6 + 0.4)],
    }


@pytest.mark.parametrize("build", [MultiTpe, Nsga2])
def test_two_objectives_are_cost_and_quality(build: type[Sampler]) -> None:
    strategy = build(small(KNOWN))
    strategy.ask(1)
    assert told(strategy) == {
        (0, 1, 2): [6.0, 0.8],
        (1, 2): [5.0, 0.75],
        (0, 1): [3.0, 0.5],
        (0,): [1.0, 0.3],
        (2,): [3.0, 0.3],
    }


@every
def test_masks_that_an_exhausted_budget_rules_out_are_told_but_not_asked(build: type[Sampler]) -> None:
    problem = small(KNOWN)
    problem.archive.exhaust(1)
    strategy = build(problem)
    asked = []
    while not strategy.done:
        batch = strategy.ask(1)
        asked += [one.allocation for one in batch]
        strategy.tell([outcome(one.allocation, 0.1) for one in batch])
    assert sorted(asked) == [(), (0, 2)]


@every
def test_layer_paths_and_fixed_units_do_no_harm(build: type[Sampler]) -> None:
    space = Space(units=6, free=(1, 4), costs=(1.0,) * 6, paths=True)
    archive = Archive(space, METRIC)
    archive.add([outcome(space.full, 1.0), outcome((0, 1, 1, 2, 3, 4, 5), 1.0)])
    strategy = build(Problem(space=space, archive=archive, seed=0))
    asked = {one.allocation for one in strategy.ask(10)}
    assert asked == {(0, 1, 2, 3, 5), (0, 2, 3, 4, 5), (0, 2, 3, 5)}


def storages(folder: Path) -> dict[str, object]:
    return {
        "sqlite": f"sqlite:///{folder / 'trials.db'}",
        "journal": JournalStorage(JournalFileBackend(str(folder / "trials.log"))),
    }


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
@pytest.mark.parametrize("build", [Tpe, Nsga2])
def test_the_study_is_stored(build: type[Sampler], kind: str, tmp_path: Path) -> None:
    storage = storages(tmp_path)[kind]
    landscape = additive(0)
    problem = landscape.problem()
    problem.archive.add(masks(landscape, 0, 5))
    asked = search(landscape, build(problem, storage=storage, study="one"), 8, 4)
    study = optuna.load_study(study_name="one", storage=storages(tmp_path)[kind])
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert len(study.trials) == len(problem.archive) == 6 + len(asked)
    upper = problem.archive.upper
    assert upper is not None
    units = {f"unit {unit:02}": unit in upper.allocation for unit in range(12)}
    if build is Tpe:
        assert study.best_value == upper.cost
        assert study.best_trial.user_attrs["qualifies"]
    best = next(trial for trial in study.best_trials if trial.params == units)
    assert best.user_attrs == {"cost": upper.cost, "quality": upper.quality[METRIC], "qualifies": True}
    if build is Nsga2:
        frontier = [(one.cost, one.quality[METRIC]) for one in problem.archive.frontier()]
        assert sorted({tuple(trial.values) for trial in study.best_trials}) == frontier


def test_a_search_that_goes_on_continues_the_stored_study(tmp_path: Path) -> None:
    storage = storages(tmp_path)["journal"]
    landscape = additive(0)
    problem = landscape.problem()
    search(landscape, Tpe(problem, storage=storage, study="one"), 10, 4)
    search(landscape, Tpe(problem, storage=storage, study="one"), 10, 4)
    trials = optuna.load_study(study_name="one", storage=storage).trials
    assert len(trials) == len(problem.archive) == 20
    assert len({tuple(trial.params.values()) for trial in trials}) == 20


@every
def test_storing_changes_nothing(build: type[Sampler], tmp_path: Path) -> None:
    landscape = pairs(0)
    stored = build(landscape.problem(), storage=storages(tmp_path)["journal"])
    assert search(landscape, stored, 30, 4) == search(landscape, build(landscape.problem()), 30, 4)


def test_storages_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    problem = additive(0).problem()
    for url in ("nonsense", f"sqlite:///{tmp_path / 'missing' / 'trials.db'}"):
        with pytest.raises(InputError, match="such as sqlite"):
            Tpe(problem, storage=url)
    storage = storages(tmp_path)["journal"]
    Tpe(problem, storage=storage, study="one")
    with pytest.raises(InputError, match="choose another name"):
        Nsga2(problem, storage=storage, study="one")


@every
def test_optuna_is_quiet_and_its_settings_are_left_alone(
    build: type[Sampler], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    landscape = plateaus(0)
    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(landscape, build(landscape.problem(), storage=storages(tmp_path)["journal"]), 40, 4)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


def test_optuna_is_not_imported_until_it_is_used() -> None:
    code = "import sys, oracle.search, oracle.search.optuna_samplers; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
