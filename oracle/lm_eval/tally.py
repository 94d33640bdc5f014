"""What requests of the harness cost: layers, FLOPs and time, beside the scores."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Tally"]


@dataclass
class Tally:
    """Sums over the requests of one kind.

    Attributes:
        requests: number of requests.
        prompts: number of prompts that were run; requests with the same context share one.
        prompt_tokens: tokens of these prompts.
        tokens: generated or scored tokens.
        executed: layers (or sublayers) executed for these tokens.
        prompt_executed: the same for the prompts' tokens.
        flops: FLOPs for the generated or scored tokens; None if they cannot be counted.
        prompt_seconds: time of the prompts' passes.
        seconds: time of generating or scoring.
        truncated: requests whose context was cut from the left, as the harness does, to fit the model.
    """

    requests: int = 0
    prompts: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    executed: float = 0.0
    prompt_executed: float = 0.0
    flops: float | None = 0.0
    prompt_seconds: float = 0.0
    seconds: float = 0.0
    truncated: int = 0

    def add_tokens(self, tokens: int, cost: float, flops: float | None) -> None:
        """Adds generated or scored tokens with their mean layers and FLOPs per token."""
        self.tokens += tokens
        self.executed += tokens * cost
        self.flops = None if flops is None or self.flops is None else self.flops + tokens * flops

    def add_prompt(self, tokens: int, executed: float) -> None:
        """Adds a prompt with the layers executed over all of its tokens."""
        self.prompts += 1
        self.prompt_tokens += tokens
        self.prompt_executed += executed

    def to_dict(self, units: int) -> dict[str, Any]:
        """The sums and their ratios as JSON values.

        Args:
            units: number of units of the full model.

        Returns:
            `executed_fraction` is over generated or scored tokens; in `end_to_end_fraction` the prompts' tokens count
            too. `tokens_per_second` leaves out the prompts' passes.
        """
        whole = self.tokens + self.prompt_tokens
        return {
            "requests": self.requests,
            "prompts": self.prompts,
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "executed_fraction": self.executed / (units * self.tokens) if self.tokens else None,
            "end_to_end_fraction": (self.executed + self.prompt_executed) / (units * whole) if whole else None,
            "flops_per_token": self.flops / self.tokens if self.tokens and self.flops is not None else None,
            "tokens_per_second": self.tokens / self.seconds if self.seconds else None,
            "seconds": round(self.seconds, 3),
            "prompt_seconds": round(self.prompt_seconds, 3),
            "truncated": self.truncated,
        }
