"""The contract of a search strategy; see `oracle.search.Strategy`."""

from collections.abc import Callable
from dataclasses import replace

from oracle.search import Archive, Hints, Memory, Problem, Space, Strategy
from oracle.testing.landscapes import Landscape, additive, pairs, plateaus
from oracle.types import Allocation, Outcome, Proposal

__all__ = ["CHECKS", "FIXED", "archive", "check_strategy", "masks", "problem", "search"]

FIXED = Space(units=7, free=(1, 2, 4, 5, 6), costs=(1.0,) * 7)
"""A space in which two units always run."""

UNEVEN = Space(units=5, free=(0, 1, 3, 4), costs=(2.0, 0.5, 1.0, 0.0, 3.0))
"""A space of uneven costs."""

Evaluate = Callable[[list[Proposal]], list[Outcome]]


def check_strategy(kind: type[Strategy]) -> None:
    """Runs every check of the contract on a strategy.

    Raises:
        AssertionError: names the rule that is broken.
    """
    for check in CHECKS:
        check(kind)


def problem(landscape: Landscape, space: Space | None = None, seed: int = 0, known: int = 0) -> Problem:
    """A problem with all kinds of guidance, and a number of known masks in its archive."""
    space = space or landscape.space
    memory = Memory()
    for other in (additive(11, landscape.units), pairs(12, landscape.units)):
        memory.learn(archive(other, space, 12))
    influence = tuple(float(unit * 7 % 5) for unit in range(space.units))
    by_cost = {space.cost(mask): mask for mask in [space.masks(count)[0] for count in range(len(space.free) + 1)]}
    return Problem(
        space=space,
        archive=archive(landscape, space, known),
        seed=seed,
        memory=memory,
        hints=Hints(influence=influence, masks=by_cost),
    )


def archive(landscape: Landscape, space: Space, known: int) -> Archive:
    """The full allocation and others spread over the space, `known` in all."""
    found = Archive(space, "quality", landscape.tolerance)
    every = [mask for count in range(len(space.free), -1, -1) for mask in space.masks(count)]
    some = every[:: max(1, len(every) // max(1, known))][:known]
    found.add(landscape.evaluate([Proposal(allocation=mask, family="random") for mask in some]))
    return found


def search(strategy: Strategy, evaluate: Evaluate, count: int = 7, most: int = 400) -> list[Proposal]:
    """Everything that a strategy asks, told in reverse order."""
    asked: list[Proposal] = []
    while not strategy.done and len(asked) < most:
        batch = strategy.ask(count)
        _require(
            0 < len(batch) <= count,
            f"`ask` gives 1 to {count} proposals if it is not done and nothing is awaited",
            batch,
        )
        strategy.tell(evaluate(batch)[::-1])
        asked += batch
    return asked


def masks(proposals: list[Proposal]) -> list[Allocation]:
    """The allocations of proposals."""
    return [proposal.allocation for proposal in proposals]


def new_masks_of_the_space_and_an_end(kind: type[Strategy]) -> None:
    """The full allocation first, then masks of the space, each once, and an end."""
    for space, count in ((None, 1), (None, 512), (FIXED, 7), (UNEVEN, 5)):
        landscape = plateaus(3, 5 if space is None else space.units)
        given = problem(landscape, space)
        strategy = kind(given)
        asked = search(strategy, landscape.evaluate, count)
        first = Proposal(allocation=given.space.full, family="full")
        _require(asked[0] == first, "the full allocation comes first", asked[0])
        _require(len(set(masks(asked))) == len(asked), "no allocation is proposed twice", asked)
        _require(
            len(asked) == len(given.archive) <= 2 ** len(given.space.free), "outcomes are added to the archive", None
        )
        for one in asked:
            _require(given.archive.free_count(one.allocation) is not None, "masks are of the space", one)
        _require(strategy.done and strategy.ask(10) == [], "a strategy that is done asks nothing", None)


def the_full_allocation_comes_first_and_alone(kind: type[Strategy]) -> None:
    """Nothing is proposed before the full model's outcome is told, which sets the threshold."""
    landscape = additive(0)
    strategy = kind(problem(landscape))
    _require(not strategy.done and strategy.ask(0) == [], "`ask(0)` gives nothing", None)
    first = strategy.ask(20)
    _require(first == [Proposal(allocation=landscape.space.full, family="full")], "the full allocation is alone", first)
    _require(strategy.ask(20) == [] and not strategy.done, "nothing more before its outcome is told", None)
    strategy.tell(landscape.evaluate(first))
    _require(bool(strategy.ask(20)), "more once its outcome is told", None)


def nothing_is_proposed_twice_while_outcomes_are_awaited(kind: type[Strategy]) -> None:
    """What was proposed and not told yet is not proposed again."""
    landscape = additive(1)
    strategy = kind(problem(landscape, known=1))
    batches = [strategy.ask(5) for _ in range(4)]
    asked = masks([one for batch in batches for one in batch])
    _require(bool(asked) and len(set(asked)) == len(asked), "no allocation is proposed twice", asked)
    _require(not strategy.done, "a strategy that awaits outcomes is not done", None)
    strategy.tell(landscape.evaluate(batches[0]))
    later = masks(strategy.ask(20))
    _require(not set(later) & set(asked), "no allocation is proposed twice", later)


def goes_on_from_an_archive(kind: type[Strategy]) -> None:
    """What the archive holds is not proposed."""
    landscape = plateaus(1, 5)
    given = problem(landscape, known=12)
    known = set(given.archive.outcomes)
    asked = search(kind(given), landscape.evaluate)
    _require(not known & set(masks(asked)), "what the archive holds is not proposed", asked)
    _require("full" not in {proposal.family for proposal in asked}, "nor is the full allocation", asked)


def equal_seeds_give_equal_searches(kind: type[Strategy]) -> None:
    """Proposals depend on seed, archive and calls alone."""
    landscape = pairs(4, 9)
    for count in (3, 30):
        first, again = (search(kind(problem(landscape)), landscape.evaluate, count, 40) for _ in range(2))
        _require(first == again, "equal seeds give equal searches", (first, again))


def the_order_of_outcomes_makes_no_difference(kind: type[Strategy]) -> None:
    """Outcomes may be told in any order."""
    landscape = pairs(5, 9)
    backwards = search(kind(problem(landscape)), landscape.evaluate, 16, 40)
    forwards = search(kind(problem(landscape)), lambda batch: landscape.evaluate(batch)[::-1], 16, 40)
    _require(forwards == backwards, "the order in which outcomes are told makes no difference", (forwards, backwards))


def bears_dropped_outcomes(kind: type[Strategy]) -> None:
    """Outcomes that were dropped have no quality."""
    landscape = additive(6, 5)
    given = problem(landscape)
    [full] = landscape.evaluate([Proposal(allocation=landscape.space.full, family="full")])
    least = full.quality["quality"] - landscape.tolerance

    def evaluate(batch: list[Proposal]) -> list[Outcome]:
        found = landscape.evaluate(batch)
        return [one if one.quality["quality"] >= least else replace(one, dropped=True, quality={}) for one in found]

    asked = search(kind(given), evaluate)
    _require(len(given.archive) == len(asked) >= 1, "dropped outcomes are added to the archive", asked)
    upper = given.archive.upper
    _require(upper is not None and upper.cost >= landscape.optimum, "they do not qualify", upper)


def next_to_no_space(kind: type[Strategy]) -> None:
    """Spaces of one unit, and of no free unit."""
    for space in (Space.of(1), Space(units=3, free=(), costs=(1.0,) * 3)):
        landscape = additive(0, space.units)
        asked = search(kind(problem(landscape, space)), landscape.evaluate)
        _require(1 <= len(asked) <= 2 ** len(space.free), "next to no space has an end", asked)


CHECKS: tuple[Callable[[type[Strategy]], None], ...] = (
    new_masks_of_the_space_and_an_end,
    the_full_allocation_comes_first_and_alone,
    nothing_is_proposed_twice_while_outcomes_are_awaited,
    goes_on_from_an_archive,
    equal_seeds_give_equal_searches,
    the_order_of_outcomes_makes_no_difference,
    bears_dropped_outcomes,
    next_to_no_space,
)
"""The checks, each on one strategy."""


def _require(condition: bool, rule: str, found: object) -> None:
    if not condition:
        raise AssertionError(f"{rule}: {found!r}" if found is not None else rule)
