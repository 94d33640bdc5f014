"""Tasks of lm-evaluation-harness: as sequences, with their prompts, stop texts, filters and metrics.

The harness renders, filters and scores; this package calls it. Requires the extra `lm-eval`.
"""

from oracle.tasks.options import EXTRA, PREFIX, TaskOptions, task_names
from oracle.tasks.scoring import continuation_quality, continuations_of, text_quality

__all__ = [
    "EXTRA",
    "PREFIX",
    "TaskOptions",
    "continuation_quality",
    "continuations_of",
    "task_names",
    "text_quality",
]
