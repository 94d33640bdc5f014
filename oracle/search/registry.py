"""The strategies by name."""

from typing import Any

from oracle.errors import InputError
from oracle.search.auto import Auto
from oracle.search.enumeration import ByBudget, Exhaustive, Families, Random, Spread
from oracle.search.guided import Dp, Influence, Transfer
from oracle.search.local_search import Beam, Greedy, Local
from oracle.search.mcts import Cola, DrLlm, Wide
from oracle.search.optuna_samplers import MultiTpe, Nsga2, Tpe
from oracle.search.strategy import Problem, Strategy
from oracle.utils.plugins import STRATEGIES as PLUGINS
from oracle.utils.plugins import plugin_class, plugins
from oracle.utils.text import nearest_hint

__all__ = ["PATH_STRATEGIES", "STRATEGIES", "get_strategy", "make"]


_FIRST: tuple[type[Strategy], ...] = (Auto, ByBudget, Exhaustive, Families, Random, Spread, Greedy, Beam, Local)
_THEN: tuple[type[Strategy], ...] = (Influence, Dp, Transfer, Tpe, MultiTpe, Nsga2, Cola, DrLlm, Wide)

STRATEGIES = {strategy.name: strategy for strategy in (*_FIRST, *_THEN)}
"""The strategies by name, in the order of the help."""


PATH_STRATEGIES = tuple(name for name, strategy in STRATEGIES.items() if strategy.paths)
"""Names of the strategies that may repeat layers."""


def get_strategy(name: str) -> type[Strategy]:
    """The strategy of a name, also of an installed package (entry points `layer_oracle.strategies`).

    Raises:
        InputError: if no strategy has that name; lists the known ones and the nearest.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    if found := plugin_class(PLUGINS, name, Strategy, "a subclass of oracle.search.Strategy"):
        return found
    known = [*STRATEGIES, *plugins(PLUGINS)]
    raise InputError(f"unknown strategy {name!r}: the strategies are {', '.join(known)}{nearest_hint(name, known)}")


def make(name: str, problem: Problem, **settings: Any) -> Strategy:
    """Creates a search for a problem, with settings of its own such as the samplers' `storage`.

    Raises:
        InputError: if no strategy has that name, or the problem lacks its required input.
    """
    return get_strategy(name)(problem, **settings)
