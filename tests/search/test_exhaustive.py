"""Ground truth: on five layers every mask can be tried, so that what a search reports must be the optimum."""

from collections.abc import Callable
from itertools import combinations, product

import pytest
from tiny import LAYERS

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.metrics import agreement
from oracle.models import LanguageModel
from oracle.store import Run

FULL = tuple(range(LAYERS))
MASKS = [mask for cost in range(LAYERS + 1) for mask in combinations(range(LAYERS), cost)]
TOLERANCE = 0.5


@pytest.fixture(scope="module")
def exhaustive(search: Callable[..., Run]) -> Run:
    """Every mask of the model on four sequences."""
    return search(criterion="agreement", tolerance=TOLERANCE, evaluations=2**LAYERS, limit=4)


def test_enumeration_certifies_the_minimal_budgets(exhaustive: Run, tiny_model: LanguageModel) -> None:
    minimal = exhaustive.table("minimal_budgets").set_index("sequence")
    assert minimal["certified"].all()
    assert (minimal["lower"] == minimal["upper"]).all()
    assert minimal["upper"].nunique() > 1, "budgets that are all the same would prove little"
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=6))
    for row in exhaustive.sequences().itertuples():
        prompt = engine.open(row.prompt)
        full = engine.alone(prompt, FULL)
        best: dict[int, float] = {}
        for mask in MASKS:
            quality = agreement(engine.alone(prompt, mask), full)
            best[len(mask)] = max(quality, best.get(len(mask), 0.0))
        budget = min(cost for cost, quality in best.items() if quality >= 1 - TOLERANCE)
        found = minimal.loc[row.sequence]
        assert (found["upper"], found["quality"]) == (budget, best[budget])


def test_enumeration_tries_every_mask_once(exhaustive: Run) -> None:
    for _, rows in exhaustive.evaluations().groupby("sequence"):
        assert sorted(map(tuple, rows["allocation"])) == sorted(MASKS)


def test_the_oracle_is_the_best_choice_of_all_combinations(exhaustive: Run) -> None:
    best = exhaustive.evaluations().groupby(["sequence", "cost"])["agreement"].max().unstack().to_numpy()
    count = len(best)
    enough = [
        (sum(costs), -sum(best[range(count), costs]))
        for costs in product(range(LAYERS + 1), repeat=count)
        if sum(best[range(count), costs]) / count >= 1 - TOLERANCE - 1e-9
    ]
    cost, quality = min(enough)
    chosen = exhaustive.table("assignment")
    assert (chosen["cost"].sum(), chosen["quality"].sum()) == (cost, pytest.approx(-quality))
    assert exhaustive.summary()["equal_quality_fraction"] == pytest.approx(cost / (count * LAYERS))
