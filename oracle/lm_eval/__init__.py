"""The model `layer-oracle` of lm-evaluation-harness: importing this package registers it.

`python -m oracle.lm_eval run --model layer-oracle --model_args run=RUN,controller=unified,speedup=2 --tasks TASK` is
the harness's own command line with the model registered. Requires the extra `lm-eval`.
"""

from oracle.tasks.harness import require_harness

require_harness()

from lm_eval.api.registry import model_registry, register_model  # noqa: E402

from oracle.lm_eval.evaluate import evaluate_tasks  # noqa: E402
from oracle.lm_eval.model import LayerOracle  # noqa: E402

__all__ = ["NAME", "LayerOracle", "evaluate_tasks"]

NAME = "layer-oracle"
"""Name of the model in the harness."""

if NAME not in model_registry:
    register_model(NAME)(LayerOracle)
