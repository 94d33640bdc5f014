"""The archive: what it proves is true, whatever it was told and in whatever order."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.errors import InputError
from oracle.search import STRATEGIES, Archive, Problem, Space, make
from oracle.testing.landscapes import METRIC, outcome, plateaus
from oracle.types import Allocation, Outcome

UNITS = 5


@dataclass(frozen=True)
class Case:
    """A space of which every mask's quality is known, and what an archive is told of it."""

    space: Space
    truth: dict[Allocation, Outcome]
    tolerance: float
    told: list[Outcome]
    exhausted: list[int]

    def qualifying(self) -> list[Outcome]:
        least = self.truth[self.space.full].quality[METRIC] - self.tolerance - 1e-9
        return [one for one in self.truth.values() if one.quality[METRIC] >= least]

    def archive(self, told: list[Outcome]) -> Archive:
        archive = Archive(self.space, METRIC, self.tolerance)
        archive.add(told)
        for count in self.exhausted:
            archive.add(one for one in self.qualifying() if archive.free_count(one.allocation) == count)
            archive.exhaust(count)
        return archive


@st.composite
def cases(draw: st.DrawFn) -> Case:
    free = tuple(sorted(draw(st.sets(st.integers(0, UNITS - 1)))))
    costs = draw(
        st.one_of(st.just([1.0] * UNITS), st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=5, max_size=5))
    )
    space = Space(units=UNITS, free=free, costs=tuple(costs))
    masks = [mask for count in range(len(free) + 1) for mask in space.masks(count)]
    levels = draw(st.lists(st.integers(0, 4), min_size=len(masks), max_size=len(masks)))
    truth = {mask: outcome(mask, level / 4) for mask, level in zip(masks, levels, strict=True)}
    tolerance = draw(st.sampled_from([0.0, 0.25, 0.3]))
    case = Case(space, truth, tolerance, [], draw(st.lists(st.integers(0, len(free)), max_size=2)))
    qualifying = {one.allocation for one in case.qualifying()}
    some = draw(st.permutations(draw(st.lists(st.sampled_from(masks), unique=True)))) if masks else []
    told = [truth[mask] for mask in dict.fromkeys([*some, space.full])]
    hidden = [draw(st.booleans()) and one.allocation not in qualifying for one in told]
    told = [replace(one, dropped=True, quality={}) if hide else one for one, hide in zip(told, hidden, strict=True)]
    return replace(case, told=told)


@given(cases())
def test_the_bounds_are_true(case: Case) -> None:
    archive = case.archive(case.told)
    least = min(case.space.cost(one.allocation) for one in case.qualifying())
    assert archive.upper is not None and archive.upper.allocation in archive
    assert archive.qualifies(archive.upper) and archive.upper in case.qualifying()
    upper = case.space.cost(archive.upper.allocation)
    assert archive.lower <= least + 1e-9 <= upper + 2e-9
    assert archive.certified == (archive.lower == upper)


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_makes_no_difference(case: Case, random) -> None:
    one = case.archive(case.told)
    other = Archive(case.space, METRIC, case.tolerance)
    shuffled = random.sample(case.told, len(case.told))
    for count in case.exhausted:
        other.exhaust(count)
        shuffled += [found for found in case.qualifying() if one.free_count(found.allocation) == count]
    for found in shuffled:
        other.add([found])
    assert other.outcomes == one.outcomes and len(other) == len(one)
    assert (other.threshold, other.upper, other.lower) == (one.threshold, one.upper, one.lower)
    assert (other.certified, other.frontier()) == (one.certified, one.frontier())


@given(cases())
def test_the_frontier_is_the_best_at_each_cost(case: Case) -> None:
    archive = case.archive(case.told)
    frontier = archive.frontier()
    steps = [(case.space.cost(one.allocation), archive.quality(one)) for one in frontier]
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(steps))
    for one in archive.outcomes.values():
        if not one.dropped:
            cost, quality = case.space.cost(one.allocation), archive.quality(one)
            assert any(c <= cost and q >= quality for c, q in steps)


@settings(max_examples=40)
@given(
    cases(), st.sampled_from(sorted(set(STRATEGIES) - {"tpe", "motpe", "nsga2", "influence", "dp"})), st.integers(1, 9)
)
def test_the_bounds_are_true_all_through_a_search(case: Case, name: str, count: int) -> None:
    archive = Archive(case.space, METRIC, case.tolerance)
    strategy = make(name, Problem(space=case.space, archive=archive, seed=0))
    least = min(case.space.cost(one.allocation) for one in case.qualifying())
    for _ in range(20):
        strategy.tell([case.truth[one.allocation] for one in strategy.ask(count)])
        assert archive.upper is not None and archive.qualifies(archive.upper)
        assert archive.lower <= least + 1e-9
        assert case.space.cost(archive.upper.allocation) >= least
        if strategy.done:
            break


def test_before_the_full_model_is_known_nothing_is() -> None:
    archive = Archive(Space.of(2), METRIC)
    archive.add([outcome((), 1.0), outcome((0,), 0.5)])
    assert (archive.full, archive.threshold, archive.upper, archive.certified) == (None, None, None, False)
    assert archive.lower == 0
    assert not archive.qualifies(outcome((), 1.0))
    archive.add([outcome((0, 1), 0.5)])
    assert archive.threshold == 0.5
    assert archive.upper == outcome((), 1.0) and archive.certified


def test_lower_rises_as_budgets_are_exhausted() -> None:
    space = Space(units=4, free=(0, 1, 3), costs=(1.0, 2.0, 5.0, 4.0))
    archive = Archive(space, METRIC)
    archive.add([outcome(space.full, 1.0)])
    assert archive.lower == 5
    archive.add([outcome((2,), 0.0)])
    assert archive.lower == 6, "the fixed unit and the cheapest free one"
    archive.add([outcome((0, 2), 0.0), outcome((1, 2), 0.0)])
    assert archive.lower == 6 and not archive.exhausted(1)
    archive.add([outcome((2, 3), 0.0)])
    assert archive.lower == 8 and archive.exhausted(1)
    archive.add([outcome((0, 1, 2), 1.0)])
    assert archive.lower == 8 and archive.certified
    archive.exhaust(2)
    assert archive.lower == 8


def test_a_count_that_is_exhausted_above_a_gap_does_not_raise_the_bound() -> None:
    archive = Archive(Space.of(3), METRIC)
    archive.add([outcome((0, 1, 2), 1.0), outcome((), 0.0)])
    archive.exhaust(2)
    assert archive.lower == 1
    archive.exhaust(1)
    assert archive.lower == 3 and archive.certified


def test_what_the_upper_bound_prefers() -> None:
    archive = Archive(Space.of(3), METRIC)
    archive.add([outcome((0, 1, 2), 0.5), outcome((1,), 0.5), outcome((2,), 0.7), outcome((0,), 0.4)])
    assert archive.upper == outcome((2,), 0.7)
    archive.add([outcome((0, 2), 0.9), outcome((2,), 0.1)])
    assert archive.upper == archive.outcomes[(2,)] == outcome((2,), 0.7), "what is known stays as it is"
    archive.add([outcome((), 0.5 - 2e-9)])
    assert archive.upper == outcome((2,), 0.7)
    archive.add([outcome((1, 1), 0.9)])
    assert archive.free_count((1, 1)) is None and archive.free_count((1, 0)) is None


def test_rounding_does_not_disqualify() -> None:
    archive = Archive(Space.of(1), METRIC)
    archive.add([outcome((0,), 0.1 + 0.2), outcome((), 0.3)])
    assert archive.upper == outcome((), 0.3)


def test_a_dropped_outcome_counts_as_tested_only() -> None:
    archive = Archive(Space.of(1), METRIC)
    dropped = replace(outcome((), 0.0), dropped=True, quality={})
    archive.add([dropped, outcome((0,), 0.0)])
    assert archive.quality(dropped) == -math.inf and not archive.qualifies(dropped)
    assert archive.certified and archive.lower == 1
    assert archive.frontier() == [outcome((0,), 0.0)]


def test_outcomes_are_read_only() -> None:
    archive = Archive(Space.of(1), METRIC)
    with pytest.raises(TypeError):
        archive.outcomes[()] = outcome((), 1.0)


@pytest.mark.parametrize("tolerance", [-0.1, math.nan])
def test_the_tolerance_is_checked(tolerance: float) -> None:
    with pytest.raises(InputError, match="tolerance must be 0 or more"):
        Archive(Space.of(1), METRIC, tolerance)


def test_only_budgets_that_exist_can_be_exhausted() -> None:
    with pytest.raises(InputError, match="0 to 3 free units"):
        Archive(Space.of(3), METRIC).exhaust(4)


def test_settled_is_what_was_evaluated_or_ruled_out() -> None:
    landscape = plateaus(0, 4)
    archive = landscape.problem().archive
    archive.add([outcome((0, 1, 2, 3), 1.0)])
    archive.exhaust(1)
    assert archive.settled((0, 1, 2, 3)) and archive.settled((2,))
    assert not archive.settled((0, 1)) and not archive.settled((1, 1))
    assert (2,) not in archive
