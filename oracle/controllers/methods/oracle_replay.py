"""The oracle as a controller: replays the allocations of a run."""

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any, Literal

from oracle.config import SearchConfig
from oracle.controllers.base import SequenceController
from oracle.controllers.prompts import Prompt
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.pipeline.reload import model_of
from oracle.store import Run
from oracle.types import Allocation

__all__ = ["OracleController", "Policy"]

Policy = Literal["equal_quality", "minimal"]

TABLES: dict[str, str] = {"equal_quality": "assignment", "minimal": "minimal_budgets"}


class OracleController(SequenceController):
    """Replays the oracle's allocation for each prompt of a run.

    If sequences share a prompt, the first one's allocation is used.

    Args:
        engine: runs the model under the run's settings.
        allocations: allocation per prompt.
    """

    name = "oracle"

    def __init__(self, engine: Engine, allocations: dict[str, Allocation]) -> None:
        super().__init__(engine)
        self._allocations = allocations

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """The data-set oracle, and the minimal budget per sequence."""
        return [{"policy": policy} for policy in TABLES]

    @classmethod
    def from_run(
        cls,
        folder: Path | str,
        *,
        policy: Policy = "equal_quality",
        model: LanguageModel | str | None = None,
        trust_remote_code: bool = False,
    ) -> "OracleController":
        """Creates the oracle of a stored run.

        Args:
            folder: the run.
            policy: `equal_quality` (the data-set oracle at the full model's mean quality) or `minimal` (the minimal
                budget per sequence).
            model: the run's model, if already loaded, or its name; by default its name in the run.
            trust_remote_code: whether code shipped with the model may run while loading it; requires its name.

        Raises:
            InputError: if the run is not complete, or the model's fingerprint differs from the run's.
        """
        _check(policy)
        run = Run.open(folder)
        config = SearchConfig.from_dict(run.manifest["config"])
        engine = Engine(model_of(run, model, trust_remote_code=trust_remote_code), config)
        return cls.of(run, engine, policy=policy)

    @classmethod
    def of(cls, run: Run, engine: Engine, *, policy: Policy = "equal_quality") -> "OracleController":
        """Creates the oracle on an engine with the run's model and settings."""
        _check(policy)
        prompts = run.sequences().set_index("sequence")["prompt"]
        chosen = run.table(TABLES[policy])
        allocations = {
            prompts[sequence]: tuple(allocation.tolist())
            # In reverse, so that the first sequence of a shared prompt wins.
            for sequence, allocation in zip(chosen["sequence"][::-1], chosen["allocation"][::-1], strict=True)
        }
        return cls(engine, allocations)

    def allocation(self, prompt: str) -> Allocation:
        """The oracle's allocation for a prompt.

        Raises:
            InputError: if the prompt is not one of the run's.
        """
        if prompt not in self._allocations:
            raise InputError(
                f"one of the {len(self._allocations)} prompts of the oracle's run is required, got '{prompt[:60]}'; "
                "search that prompt first"
            )
        return self._allocations[prompt]

    def open(self, prompts: Seq[str | Prompt]) -> list[Prompt]:
        """Runs the prompts, after checking that all are in the run."""
        for prompt in prompts:
            self.allocation(prompt if isinstance(prompt, str) else prompt.text)
        return super().open(prompts)

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The oracle's allocation per prompt."""
        return [self.allocation(prompt.text) for prompt in prompts]


def _check(policy: str) -> None:
    if policy not in TABLES:
        raise InputError(f"the policy must be one of {', '.join(TABLES)}, not '{policy}'")
