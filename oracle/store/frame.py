"""A run as one table of its sequences."""

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from oracle.store.run import Run

__all__ = ["frame_of"]

QUERY = """
    SELECT sequence, task, prompt, "references", prompt_tokens, upper, lower, certified, budget.fraction, quality,
        full_quality, zero_quality, budget.allocation, budget.family, found.text AS output, whole.text AS full_output
    FROM minimal_budgets AS budget JOIN sequences USING (sequence)
    JOIN (SELECT sequence, number, text FROM evaluations) AS found USING (sequence, number)
    JOIN (SELECT sequence, text FROM evaluations WHERE number = 0) AS whole USING (sequence)
"""


def frame_of(run: "Run") -> pd.DataFrame:
    """See `Run.to_frame`."""
    order = run.table("minimal_budgets")["sequence"]
    return run.query(QUERY).set_index("sequence").loc[order].reset_index()
