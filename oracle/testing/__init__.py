"""Contract tests for metrics, strategies and controllers of other packages, to be called from their own tests.

Each raises `AssertionError` with the rule that is broken. The strategies and controllers of this package keep to them.

Example:
    >>> from oracle.testing import check_metric
    >>> check_metric(lambda references, output, record: float(output in references))
"""

from oracle.testing.controllers import check_controller
from oracle.testing.metrics import check_metric
from oracle.testing.strategies import check_strategy

__all__ = ["check_controller", "check_metric", "check_strategy"]
