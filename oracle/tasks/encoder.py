"""Token ids of the harness's requests, by the methods of its own `hf` model without the model.

Imports the harness and torch: imported where it is used.
"""

from collections.abc import Sequence as Seq
from typing import Any

from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM

__all__ = ["Encoder", "HarnessModel", "Pair"]

Pair = tuple[list[int], list[int]]
"""Token ids of a context, at least one, and of its continuation."""


class HarnessModel(HFLM):
    """The harness's `hf` model with a tokenizer and without weights.

    Its methods for templates, special tokens, pairs of context and continuation, and rolling windows are the harness's.

    Args:
        tokenizer: the model's tokenizer.
        context: longest input, in tokens; None for the harness's default.
        config: configuration of the model; None where the model is not loaded.
    """

    def __init__(self, tokenizer: Any, context: int | None, config: Any = None) -> None:
        LM.__init__(self)
        self.tokenizer = tokenizer
        self.backend = "causal"
        self.add_bos_token = None
        self.custom_prefix_token_id = None
        self.chat_template_args: dict[str, Any] = {}
        self.enable_thinking = None
        self._max_length = context or self._DEFAULT_MAX_LENGTH
        self._config = config
        self.batch_size_per_gpu = 1
        self.batch_sizes: dict[int, int] = {}


class Encoder(HarnessModel):
    """Turns requests into token ids; nothing is scored."""

    def pairs(self, requests: Seq[Any]) -> list[Pair]:
        """Context and continuation of each request of type `loglikelihood`."""
        return self._caught(self.loglikelihood, requests)

    def windows(self, request: Any) -> list[Pair]:
        """Context and continuation of each window of a request of type `loglikelihood_rolling`."""
        return self._caught(self.loglikelihood_rolling, [request])

    def _caught(self, score: Any, requests: Seq[Any]) -> list[Pair]:
        self._pairs: list[Pair] = []
        score(list(requests), disable_tqdm=True)
        return self._pairs

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: Any = None) -> Any:
        self._pairs += [(list(context), list(continuation)) for _, context, continuation in requests]
        return [(0.0, False)] * len(requests)
