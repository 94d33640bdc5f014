"""The table of arms, from measurements written by hand."""

import numpy as np
import pytest

from oracle.skiplayer.config import SkipConfig
from oracle.skiplayer.measure import Measured
from oracle.skiplayer.results import ArmResult, tables


def trained(layers: int, flops: float, loss: float) -> ArmResult:
    measured = Measured(
        loss_R=np.array([loss - 0.1, loss + 0.1]),
        density_U=np.full(4, layers / 4),
        flops=flops,
        tokens_per_second=1000.0 / layers,
    )
    return ArmResult(layers=layers, parameters=100, losses=[1.0], measured=measured, right_Y=np.zeros(0, dtype=bool))


@pytest.mark.parametrize(
    ("flops", "loss", "outside"),
    [((12.0, 15.0), (2.8, 2.5), 0), ((20.0, 25.0), (2.0, 1.5), 1), ((5.0, 8.0), (3.5, 3.2), 2)],
)
def test_the_line_of_the_dense_models_is_extended_only_where_it_says_so(
    flops: tuple[float, float], loss: tuple[float, float], outside: int
) -> None:
    """Losses of 3 at 10 FLOPs and 2 at 20: 0.1 less per FLOP."""
    skip = [trained(4, one, 1.0) for one in flops]
    dense = [trained(1, 10.0, 3.0), trained(2, 20.0, 2.0)] * 2
    config = SkipConfig(layers=4, seeds=2)
    found = tables(config, {"skiplayer": skip, "dense": dense}, [], [], 0.0)
    assert found.extrapolated == outside
    arms = found.arms.set_index("arm")
    assert arms.loc["dense", "flops"] == pytest.approx(np.mean(flops))
    assert arms.loc["dense", "loss"] == pytest.approx(np.mean(loss))
    assert arms.loc["dense", "difference"] == pytest.approx(np.mean(loss) - 1.0)
    # Student's t of 1 degree of freedom: 12.7062 times the standard error |a - b| / 2.
    half = 12.7062 * abs(loss[0] - loss[1]) / 2
    assert arms.loc["dense", "difference_low"] == pytest.approx(np.mean(loss) - 1.0 - half, rel=1e-4)
