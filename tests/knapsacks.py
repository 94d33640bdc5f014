"""Random knapsacks whose groups are sequences, and their solution by other means."""

from itertools import product

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from analysis.knapsack.items import Items


def of_layers(quality_NC):
    """Items that cost 0, 1, 2 ... layers."""
    N, K = quality_NC.shape
    return Items(cost_NC=np.tile(np.arange(K), (N, 1)), quality_NC=quality_NC, full_cost=K - 1, step=1)


def layered(seed, sequences, layers, missing=0.3, digits=2):
    """Random qualities by layers, the full model always there; few digits make ties."""
    rng = np.random.default_rng(seed)
    quality_NC = np.round(rng.random((sequences, layers + 1)) + np.linspace(0, 0.5, layers + 1), digits)
    quality_NC[rng.random(quality_NC.shape) < missing] = -np.inf
    quality_NC[:, -1] = np.round(0.4 + 0.5 * rng.random(sequences), digits)
    return of_layers(quality_NC)


def uneven(seed, sequences, columns, digits=6, kinds=None):
    """The same for costs that are no multiples of anything: of any value, or sums of two prices."""
    rng = np.random.default_rng(seed)
    cost_NC = 10 + 50 * rng.random((sequences, columns))
    if kinds:
        cost_NC = 10 + rng.integers(0, 12, (sequences, columns, 2)) @ np.array([np.pi, np.e / 3])
    quality_NC = layered(seed, sequences, columns - 1, digits=digits).quality_NC
    cost_NC = np.sort(cost_NC, axis=1)
    quality_NC[:, :-1][cost_NC[:, :-1] == cost_NC[:, 1:]] = -np.inf
    cost_NC[:, -1] = 80.0
    return Items(cost_NC=cost_NC, quality_NC=quality_NC, full_cost=80.0, step=None)


def brute_force(items):
    """Best total quality at each total cost, by trying all combinations."""
    best = {}
    for choice in product(*(np.flatnonzero(row > -np.inf).tolist() for row in items.quality_NC)):
        cost, quality = items.costs(np.array(choice)).sum(), items.qualities(np.array(choice)).sum()
        best[cost] = max(best.get(cost, -np.inf), quality)
    return best


def integer_programme(items, *, cost=None, quality=None, integral=True):
    """Most total quality within a total cost, or least total cost with a total quality, by `scipy.optimize.milp`.

    Items may be mixed if it need not be integral.
    """
    known_NK = np.isfinite(items.quality_NC)
    N, K = known_NK.shape
    gain, price = np.where(known_NK, items.quality_NC, 0.0).ravel(), items.cost_NC.ravel() / items.full_cost
    limit = LinearConstraint(price[None], ub=cost and cost / items.full_cost)
    result = milp(
        -gain if quality is None else price,
        constraints=[
            limit if quality is None else LinearConstraint(gain[None], lb=quality),
            LinearConstraint(np.kron(np.eye(N), np.ones(K)), 1, 1),
        ],
        integrality=np.full(N * K, int(integral)),
        bounds=Bounds(0, known_NK.ravel().astype(float)),
        options={"mip_rel_gap": 0.0},
    )
    assert result.success
    return -result.fun if quality is None else result.fun * items.full_cost
