"""What the full model's hidden states say about its units: block influence, and dynamic programming over skips.

Both look at one text, teacher-forced: the prompt at full depth, then the tokens that the full model generated.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from oracle.engine.engine import Engine
from oracle.engine.oom_backoff import no_backoff
from oracle.engine.prompts import PromptState
from oracle.models.kv_cache import PassCache
from oracle.models.layer_call import Call
from oracle.models.layer_runner import Step
from oracle.types import Allocation

__all__ = ["HiddenStates"]

GRID = 64
"""Budgets that uneven costs are rounded to."""


class HiddenStates:
    """The states that enter each unit and leave the last, on the tokens of one output of the full model.

    The full model's come from the engine's store of hidden states, if it has one and they are there.

    Args:
        engine: runs the model.
        prompt: the prompt.
        tokens: the output; its last token is not looked at, since it predicts nothing.

    Attributes:
        executions: layer x token units executed so far.

    Raises:
        InputError: for the parts of parallel blocks, which have no state between them.
    """

    @no_backoff()
    def __init__(self, engine: Engine, prompt: PromptState, tokens: Seq[int]) -> None:
        self._decoder, self._units = engine.model.decoder, engine.units
        done, every = engine.hidden.executions, tuple(range(engine.units.count))
        before_T = prompt.uncached
        fed = len(before_T) + (len(tokens[:-1]) or len(tokens))
        # All tokens, the last one too, so that other readers of this output's states find the same ones.
        self._full_UTD = engine.hidden.states(prompt, tokens, every).generated.every()[:, :fed]
        self.executions = engine.hidden.executions - done
        self._tokens_1T = torch.cat([before_T, before_T.new_tensor(list(tokens))])[None, :fed]
        self._cache = PassCache(self._decoder.layers, prompt.cache, shared=self._decoder.shares_prompts)
        start = self._cache.length
        self._positions = torch.arange(start, start + fed, device=self._decoder.device)[None]
        self._steps: dict[int, Step] = {}

    def _step(self, rows: int) -> Step:
        rows = 1 if self._decoder.shares_prompts else rows
        if rows not in self._steps:
            tokens = self._tokens_1T.expand(rows, -1)
            self._steps[rows] = self._decoder.begin(tokens, cache=self._cache, positions_RT=self._positions)
        return self._steps[rows]

    @torch.inference_mode()
    def _run(self, unit: int, hidden_GTD: Tensor) -> Tensor:
        calls: tuple[Call, ...] = self._units.calls((unit,))
        with self._decoder.sharing(self._cache) if self._decoder.shares_prompts else nullcontext():
            for call in calls:
                hidden_GTD = self._decoder.run(call, hidden_GTD, self._step(len(hidden_GTD)))
        self.executions += len(hidden_GTD) * hidden_GTD.shape[1]
        return hidden_GTD

    @torch.inference_mode()
    def influence(self, *, normed: bool = False) -> tuple[float, ...]:
        """Block influence of each unit: 1 - cos(state before, state after), the mean over tokens.

        Source: ShortGPT, Men et al. 2024 (arXiv 2403.03853), equation 1, which has no norm. The released code takes
        the last state after the final norm, which changes the last unit's influence.

        Args:
            normed: whether the last unit's state after is that of the released code.
        """
        before_UTD, after_UTD = self._full_UTD[:-1].float(), self._full_UTD[1:].float()
        if normed:
            after_UTD = torch.cat([after_UTD[:-1], self._decoder.normed(self._full_UTD[-1:]).float()])
        return tuple((1 - cosine_similarity(before_UTD, after_UTD, dim=-1).mean(1)).tolist())

    @no_backoff()
    @torch.inference_mode()
    def skips(
        self,
        costs: Seq[float],
        free: Seq[int],
        most: int | None = None,
        *,
        weights: Seq[int] | None = None,
        least: float | None = None,
    ) -> dict[float, Allocation]:
        """For each budget the mask whose state stays closest to the full model's, unit by unit.

        Dynamic programming over (units passed, budget spent): the better of running the unit on the best state that
        leaves room for it and of carrying the best state of the same budget over, by cosine similarity to the full
        model's state at that depth. Approximate, since only one state is kept for each budget.

        Sources: CLaSp, Chen et al. 2025 (arXiv 2505.24196), which looks at one token and bounds the skips by `most`;
        all budgets and several tokens at once are ours. Over sublayers with costs as weights, KnapSpec (arXiv
        2602.20217).

        Args:
            costs: of each unit.
            free: units that may be skipped.
            most: maximum number of skipped units. With it, the full model's own states are taken as they are instead of
                computed again. None for any number.
            weights: costs as whole numbers, such as KnapSpec's; None to round `costs` to a grid.
            least: mean cosine similarity below which a state is dropped, as KnapSpec does (0.5); None for none.

        Returns:
            The masks by their costs.
        """
        grid = _grid(costs) if weights is None else weights
        best: dict[int, tuple[Tensor, Allocation]] = {0: (self._full_UTD[0], ())}
        for unit in range(self._units.count):
            ran = self._ran(unit, best, known=most is not None)
            found: dict[int, list[tuple[Tensor, Allocation]]] = {}
            for (spent, (_, mask)), ran_TD in zip(best.items(), ran, strict=True):
                found.setdefault(spent + grid[unit], []).append((ran_TD, (*mask, unit)))
            if unit in free:
                for spent, carried in best.items():
                    if most is not None and unit - len(carried[1]) >= most:
                        continue
                    found.setdefault(spent, []).append(carried)
            target_TD = self._full_UTD[unit + 1].float()
            closest = {spent: _closest(states, target_TD, least) for spent, states in sorted(found.items())}
            best = {spent: state for spent, state in closest.items() if state is not None}
        return {sum(costs[unit] for unit in mask): mask for _, mask in best.values()}

    def _ran(self, unit: int, best: Mapping[int, tuple[Tensor, Allocation]], *, known: bool) -> list[Tensor]:
        """The states after a unit; that of the full model from its own pass if `known`."""
        states = [state for state, mask in best.values() if not (known and len(mask) == unit)]
        ran = list(self._run(unit, torch.stack(states))) if states else []
        return ran if len(ran) == len(best) else [*ran, self._full_UTD[unit + 1]]


def _closest(
    states: list[tuple[Tensor, Allocation]], target_TD: Tensor, least: float | None
) -> tuple[Tensor, Allocation] | None:
    """The state with the highest mean cosine similarity to the target; None if that is below `least`."""
    if len(states) == 1 and least is None:
        return states[0]
    similar = cosine_similarity(torch.stack([state for state, _ in states]).float(), target_TD, dim=-1).mean(1)
    place = int(similar.argmax())
    return None if least is not None and float(similar[place]) < least else states[place]


def _grid(costs: Seq[float]) -> list[int]:
    """Costs as whole numbers: exactly where all are equal, otherwise rounded to a grid over their sum."""
    if len(set(costs)) == 1:
        return [1] * len(costs)
    unit = sum(costs) / GRID
    return [max(1, round(cost / unit)) for cost in costs]
