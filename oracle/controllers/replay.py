"""The oracle as a controller: replays the allocations that a run found."""

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Literal

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel, load_model
from oracle.store import Run
from oracle.types import Allocation, Outcome

__all__ = ["OracleController", "Policy"]

Policy = Literal["equal_quality", "minimal"]

TABLES: dict[str, str] = {"equal_quality": "assignment", "minimal": "minimal_budgets"}


class OracleController:
    """Gives each prompt of a run the allocation that the oracle chose for it.

    Of sequences that share a prompt the first one counts.

    Args:
        engine: runs the model under the run's settings.
        allocations: the allocation of each prompt.
    """

    def __init__(self, engine: Engine, allocations: dict[str, Allocation]) -> None:
        self._engine = engine
        self._allocations = allocations

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
        if policy not in TABLES:
            raise InputError(f"the policy must be one of {', '.join(TABLES)}, not '{policy}'")
        run = Run.open(folder)
        config = SearchConfig.from_dict(run.manifest["config"])
        if model is None:
            model = load_model(
                config.model, dtype=config.dtype, device=config.device, trust_remote_code=trust_remote_code
            )
        wanted = run.manifest["model"]["fingerprint"]
        if model.fingerprint != wanted:
            raise InputError(
                f"the run was made with a model of fingerprint {wanted}, but '{model.name}' has {model.fingerprint}; "
                "give the same model"
            )
        prompts = run.sequences().set_index("sequence")["prompt"]
        chosen = run.table(TABLES[policy])
        allocations = {
            prompts[sequence]: tuple(allocation.tolist())
            # Backwards, so that the first sequence of a prompt stays.
            for sequence, allocation in zip(chosen["sequence"][::-1], chosen["allocation"][::-1], strict=True)
        }
        return cls(Engine(model, config), allocations)

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

    def generate(self, prompts: Seq[str]) -> list[Outcome]:
        """Greedy outputs of prompts of the run, token for token what the run recorded."""
        allocations = [self.allocation(prompt) for prompt in prompts]
        states = [self._engine.open(prompt) for prompt in prompts]
        generations = self._engine.generate(list(zip(states, allocations, strict=True)))
        return [
            Outcome(
                allocation=allocation,
                family="oracle",
                tokens=generation.tokens,
                text=self._engine.model.text(generation.tokens),
                finished=generation.finished,
                margin=generation.margin,
                rerun=rerun,
            )
            for allocation, (generation, rerun) in zip(allocations, generations, strict=True)
        ]
