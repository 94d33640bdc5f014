"""Search of several sequences on one loaded model, in any worker."""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from itertools import combinations
from math import comb

import numpy as np

from oracle.config import SearchConfig
from oracle.engine import Engine, Evaluator
from oracle.executors.base import Ended, Event, Found, Item, Note
from oracle.executors.search_loop import SequenceSearch, open_search, search_together
from oracle.search import Memory, Space
from oracle.types import Allocation, Outcome, Sequence

__all__ = ["SIDE_BY_SIDE", "SearchEvaluator", "Searcher"]

SIDE_BY_SIDE = 8
"""Number of sequences searched together: enough rows for a batch, few enough to learn from earlier sequences."""


class Searcher:
    """Searches sequences together on one engine.

    Args:
        engine: engine of the loaded model.
        config: settings of the search.
        space: the search space.
    """

    def __init__(self, engine: Engine, config: SearchConfig, space: Space) -> None:
        self.engine = engine
        self._config = config
        self._space = space

    def search(self, items: Seq[Item], memory: Memory) -> Iterator[Event | Note]:
        """Searches sequences; yields the events of each round, then the end of each search."""
        evaluator = SearchEvaluator(
            self.engine,
            metrics=self._config.asked_metrics,
            shuffled={item.sequence.id: item.partner for item in items},
        )
        searches = [self._open(item, memory, evaluator) for item in items]
        try:
            for found in search_together(evaluator, searches, self._config):
                while self.engine.notes:
                    yield Note(values=self.engine.notes.pop(0))
                for search, outcomes in found:
                    yield Found(sequence=search.sequence.id, outcomes=tuple(outcomes), best=self._best(search))
            for search in searches:
                yield Ended(
                    sequence=search.sequence.id,
                    evaluations=len(search.archive),
                    exhausted=search.archive.exhausted_below,
                    executions=search.spent_executions,
                )
        finally:
            for search in searches:
                evaluator.close(search.sequence)

    def _open(self, item: Item, memory: Memory, evaluator: "SearchEvaluator") -> SequenceSearch:
        search = open_search(
            item.sequence,
            self._space,
            self._config,
            seed=item.seed,
            memory=memory,
            prompt_tokens=item.prompt_tokens,
            study=item.study,
        )
        search.archive.add(item.prior)
        search.archive.exhaust_below(item.exhausted)
        search.first = len(item.prior)
        search.known = {outcome.allocation: outcome for _, outcome in item.known}
        search.taken = {number for number, _ in item.known}
        full = search.archive.full or search.known.get(self._space.full)
        if full is not None:
            evaluator.set_full_output(item.sequence, full.tokens)
        return search

    def _best(self, search: SequenceSearch) -> float:
        upper, space = search.archive.upper, self._space
        assert upper is not None, "the full model comes first"
        return space.cost(upper.allocation) / space.cost(space.full)


class SearchEvaluator(Evaluator):
    """Adapter of the engine to the terms of the search, without tensors."""

    def structure(self, sequence: Sequence, space: Space) -> tuple[tuple[float, ...], Mapping[float, Allocation]]:
        """Block influence per unit, and masks from dynamic programming by cost; both empty for parallel blocks."""
        if not self.engine.units.sequential:
            return (), {}
        states = self.hidden_states(sequence)
        found = states.influence(), states.skips(space.costs, space.free)
        self.engine.executions += states.executions
        return found

    def exhaust(self, sequence: Sequence, count: int, space: Space) -> list[Outcome]:
        """See `EvaluatorProtocol.exhaust`."""
        masks = comb(len(space.free), count)
        runs_AU = np.zeros((masks, space.units), dtype=np.bool_)
        runs_AU[:, sorted(space.fixed)] = True
        chosen = np.array(list(combinations(space.free, count)), dtype=np.int64).reshape(masks, count)
        np.put_along_axis(runs_AU, chosen, True, axis=1)
        # Sorted neighbours share most of the computation.
        runs_AU = runs_AU[np.lexsort(runs_AU.T[::-1])]
        return self.reproduces(sequence, runs_AU)
