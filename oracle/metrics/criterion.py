"""The criterion: an allocation qualifies if its quality is at least the full model's, less a tolerance.

Every comparison with the full model's quality uses it: search, engine, export and analyses.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["SLACK", "least_quality", "qualifies"]

SLACK = 1e-9
"""Shortfall of quality that is attributed to rounding.

Qualities are quotients and means in double precision: equal ones computed in different ways differ by about 1e-15. The
smallest real difference of a text metric is about one over the product of two text lengths: 1e-6 at a thousand words.
"""

Quality = TypeVar("Quality", float, NDArray[np.float64])


def least_quality(full: Quality, tolerance: float) -> Quality:
    """The least quality that qualifies.

    Args:
        full: quality of the full model, a number or an array.
        tolerance: allowed loss of quality, in units of the metric.
    """
    return full - tolerance - SLACK


def qualifies(quality: NDArray[np.float64], full: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Whether qualities meet the criterion, elementwise with broadcasting."""
    return np.asarray(quality >= least_quality(full, tolerance))
