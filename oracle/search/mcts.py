"""Monte Carlo tree search over layer paths, as published for CoLa and Dr.LLM."""

import math
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from oracle.errors import InputError
from oracle.search.space import Space
from oracle.search.strategy import Problem, Strategy
from oracle.types import Allocation, Outcome

__all__ = ["COLA", "DRLLM", "Cola", "DrLlm", "Mcts", "MctsSettings"]


@dataclass(frozen=True, kw_only=True)
class MctsSettings:
    """Settings of a published tree search.

    Attributes:
        simulations: number of simulations.
        skip: maximum length of a block skipped by one edit.
        block: maximum length of a block repeated by one edit.
        repeats: maximum number of additional runs of a block in one edit.
        exploration: c, weight of the exploration term.
        penalty: lambda, weight of the relative path length.
        random: probability that a step down the tree goes to a random child.
        widening: a node of v visits may have v ** widening children, rounded up: 1 tries every edit of a node before
            descending, 0 follows a single chain of edits.
        longest: maximum length of a path, in multiples of the model's.
    """

    simulations: int
    skip: int
    block: int
    repeats: int
    exploration: float
    penalty: float
    random: float = 0.1
    widening: float = 0.5
    longest: float = 2.0

    def __post_init__(self) -> None:
        if min(self.simulations, self.skip, self.block, self.repeats) < 1:
            raise InputError(f"simulations, skip, block and repeats must be 1 or more, but {self} was given")
        if not (0 <= self.random <= 1 and 0 <= self.widening <= 1 and self.longest >= 1):
            raise InputError(f"random and widening must be within 0..1 and longest 1 or more, but {self} was given")


COLA = MctsSettings(simulations=200, skip=4, block=4, repeats=4, exploration=1.8, penalty=5.0)
"""CoLa (arXiv 2507.07996); its exploration weight is taken over from Dr.LLM."""
DRLLM = MctsSettings(simulations=50, skip=2, block=1, repeats=1, exploration=1.8, penalty=3.0)
"""Dr.LLM (arXiv 2510.12773)."""


class Edit(NamedTuple):
    """Runs the block [start, start + length) of a path `times` times: not at all, or more than once."""

    start: int
    length: int
    times: int

    def __call__(self, path: Allocation) -> Allocation:
        stop = self.start + self.length
        return path[: self.start] + path[self.start : stop] * self.times + path[stop:]


@dataclass(eq=False, kw_only=True, slots=True)
class Node:
    """A path in the tree, with the statistics of the simulations through it."""

    path: Allocation
    untried: list[Edit]
    children: list["Node"] = field(default_factory=list)
    visits: int = 0
    reward: float = 0.0

    def ucb(self, total: int, length: float, settings: MctsSettings) -> float:
        """Upper confidence bound: Q / v + c sqrt(ln V / v) - lambda |P| / L, with V = `total` and |P| / L = `length`.

        V counts the simulations of the whole search so far; c and lambda are settings.
        """
        exploration = settings.exploration * math.sqrt(math.log(total) / self.visits)
        return self.reward / self.visits + exploration - settings.penalty * length


class Mcts(Strategy):
    """A tree of paths: the root is the full model's, a child is its parent's path with one block skipped or repeated.

    One simulation
    1. descends from the root to the child of the highest upper confidence bound, or to a random one (`random`);
    2. stops at the first node that may have one more child (`widening`), adds one by a random untried edit, and goes
       there; the first simulation stops at the root, and one at a path without edits stops there;
    3. has the path of its last node evaluated: the reward is 1 if that meets the criterion, otherwise 0;
    4. adds one visit and the reward to all nodes on its way.

    A path in the archive counts as a simulation but is not evaluated again. Several simulations may be open: their
    visits count from the start and their reward when it is known (a virtual loss), so that the others take other
    branches. Asked for one at a time, it is the sequential algorithm. It ends with the last simulation.

    The published settings leave open when a node gets another child. Every edit first (`widening` 1) spends the
    simulations on paths of one edit; children for leaves only (0) make a chain that never chooses among siblings. The
    square root lies between; on synthetic landscapes of 6 to 30 layers it did well on all, the two extremes did not.

    Among siblings whose lengths differ by more than L / lambda the shorter one is preferred even if it never qualified:
    this is the published bound, and on models of a dozen layers it draws the search to paths that are too short.

    Without `Space.paths` the edits that repeat are left out. Fixed units are never skipped.

    Args:
        problem: what to search.
        settings: None for those of the class.
    """

    paths = True

    settings: ClassVar[MctsSettings]

    def __init__(self, problem: Problem, settings: MctsSettings | None = None) -> None:
        super().__init__(problem)
        self._settings = settings or self.settings
        self._rng = np.random.default_rng(problem.seed)
        self._root = self._node(problem.space.full)
        self._started = 0
        self._open: dict[Allocation, list[list[Node]]] = {}

    def _candidates(self, count: int) -> Iterable[Allocation]:
        while self._started < self._settings.simulations:
            trail = self._descend()
            self._started += 1
            for node in trail:
                node.visits += 1
            path = trail[-1].path
            if self.problem.archive.settled(path):
                self._back_up(trail)
            else:
                self._open.setdefault(path, []).append(trail)
                yield path

    def _learn(self, outcomes: Seq[Outcome]) -> None:
        for outcome in outcomes:
            for trail in self._open.pop(outcome.allocation, []):
                self._back_up(trail)

    def _back_up(self, trail: list[Node]) -> None:
        archive = self.problem.archive
        outcome = archive.outcomes.get(trail[-1].path)
        if outcome is not None and archive.qualifies(outcome):
            for node in trail:
                node.reward += 1

    def _descend(self) -> list[Node]:
        """The nodes of the next simulation, from the root to the one to evaluate."""
        trail = [self._root]
        while (node := trail[-1]).visits:
            if len(node.children) < node.visits**self._settings.widening and (child := self._expand(node)):
                return [*trail, child]
            if not node.children:
                break
            trail.append(self._choose(node))
        return trail

    def _choose(self, node: Node) -> Node:
        if self._rng.random() < self._settings.random:
            return node.children[self._rng.integers(len(node.children))]
        length = self.problem.space.units
        return max(node.children, key=lambda one: one.ucb(self._started, len(one.path) / length, self._settings))

    def _expand(self, node: Node) -> Node | None:
        """A new child, unless every edit was tried; edits with equal paths are one."""
        siblings = {node.path} | {child.path for child in node.children}
        while node.untried:
            path = node.untried.pop()(node.path)
            if path not in siblings:
                node.children.append(self._node(path))
                return node.children[-1]
        return None

    def _node(self, path: Allocation) -> Node:
        edits = _edits(path, self.problem.space, self._settings)
        return Node(path=path, untried=[edits[i] for i in self._rng.permutation(len(edits))])


def _edits(path: Allocation, space: Space, settings: MctsSettings) -> list[Edit]:
    def blocks(longest: int) -> list[tuple[int, int]]:
        return [(i, k) for k in range(1, longest + 1) for i in range(len(path) - k + 1)]

    skips = [Edit(i, k, 0) for i, k in blocks(settings.skip) if space.fixed.isdisjoint(path[i : i + k])]
    if not space.paths:
        return skips
    room = int(settings.longest * space.units) - len(path)
    again = range(1, settings.repeats + 1)
    return skips + [Edit(i, k, 1 + r) for i, k in blocks(settings.block) for r in again if k * r <= room]


class Cola(Mcts):
    """CoLa's search: skips or repeats blocks of up to four layers."""

    name = "mcts-cola"
    hint = "tree search of CoLa: skips and, with layer paths, repeats blocks of up to 4 layers; 200 simulations"
    settings = COLA


class DrLlm(Mcts):
    """Dr.LLM's search: skips one or two layers, repeats one."""

    name = "mcts-drllm"
    hint = "tree search of Dr.LLM: skips 1-2 layers and, with layer paths, repeats one; 50 simulations"
    settings = DRLLM
