"""Per-sequence frontiers: the evaluations that are better than all cheaper ones."""

import numpy as np
import pandas as pd

from analysis.grouping import IntArray

__all__ = ["frontiers"]


def frontiers(evaluations: pd.DataFrame, metric: str) -> IntArray:
    """Positions of the evaluations that are better than all cheaper ones of their sequence, by sequence and cost.

    The rule of the view `frontiers` of `Run.query`: per cost the highest quality, of equal ones the lowest number.
    `evaluations` has `sequence`, `number`, `cost` and the column `metric`.
    """
    code_E, quality_E = pd.factorize(evaluations["sequence"])[0], evaluations[metric].to_numpy(np.float64)
    order_E = np.lexsort((evaluations["number"], -quality_E, evaluations["cost"], code_E))
    quality, code_E = pd.Series(quality_E[order_E]), code_E[order_E]
    before = quality.groupby(code_E).cummax().groupby(code_E).shift()
    return order_E[~(quality <= before).to_numpy()]  # before the first of a sequence stands NaN
