"""The oracle as a controller: replays the allocations that a run found."""

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
    """Gives each prompt of a run the allocation that the oracle chose for it.

    Of sequences that share a prompt the first one counts.

    Args:
        engine: runs the model under the run's settings.
        allocations: the allocation of each prompt.
    """

    name = "oracle"

    def __init__(self, engine: Engine, allocations: dict[str, Allocation]) -> None:
        super().__init__(engine)
        self._allocations = allocations

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """The data-set oracle, and the minimal budget of each sequence."""
        return [{"policy": policy} for policy in TABLES]

    @classmethod
    def from_run(
        cls,
        folder: Path | str,
        *,
        policy: Policy = "equal_quality",
        model: LanguageModel | None = None,
        trust_remote_code: bool = False,
    ) -> "OracleController":
        """The oracle of a stored run.

        Args:
            folder: the run.
            policy: `equal_quality` (the data-set oracle at the full model's mean quality) or `minimal` (the smallest
                budget of each sequence).
            model: the run's model, if it is loaded already; otherwise it is loaded by the name in the run.
            trust_remote_code: whether code that comes with the model may run when it is loaded.

        Raises:
            InputError: if the run is not complete, or the model is not the one that it was made with.
        """
        _check(policy)
        run = Run.open(folder)
        config = SearchConfig.from_dict(run.manifest["config"])
        engine = Engine(model_of(run, model, trust_remote_code=trust_remote_code), config)
        return cls.of(run, engine, policy=policy)

    @classmethod
    def of(cls, run: Run, engine: Engine, *, policy: Policy = "equal_quality") -> "OracleController":
        """The same on an engine that runs the run's model under its settings."""
        _check(policy)
        prompts = run.sequences().set_index("sequence")["prompt"]
        chosen = run.table(TABLES[policy])
        allocations = {
            prompts[sequence]: tuple(allocation.tolist())
            # Backwards, so that the first sequence of a prompt stays.
            for sequence, allocation in zip(chosen["sequence"][::-1], chosen["allocation"][::-1], strict=True)
        }
        return cls(engine, allocations)

    def allocation(self, prompt: str) -> Allocation:
        """The layers that the oracle runs for a prompt.

        Raises:
            InputError: if the prompt is not one of the run's.
        """
        if prompt not in self._allocations:
            raise InputError(
                f"the oracle knows the {len(self._allocations)} prompts of its run only, and not '{prompt[:60]}'; "
                "search it first"
            )
        return self._allocations[prompt]

    def open(self, prompts: Seq[str | Prompt]) -> list[Prompt]:
        """Runs the prompts, once it is clear that the oracle knows them."""
        for prompt in prompts:
            self.allocation(prompt if isinstance(prompt, str) else prompt.text)
        return super().open(prompts)

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """What the oracle chose."""
        return [self.allocation(prompt.text) for prompt in prompts]


def _check(policy: str) -> None:
    if policy not in TABLES:
        raise InputError(f"the policy must be one of {', '.join(TABLES)}, not '{policy}'")
