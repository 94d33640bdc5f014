"""The oracle as a controller: replays the allocations of a run."""

import warnings
from collections.abc import Sequence as Seq
from typing import Any, Literal

from oracle.config import SearchConfig
from oracle.controllers.base import SequenceController
from oracle.controllers.prompts import Prompt
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.pipeline.prompts import rendered_anew
from oracle.pipeline.reload import model_of, require_same_decoding
from oracle.store import Run
from oracle.store.schema import sequence_of
from oracle.types import Allocation, RunPath, Sequence
from oracle.utils.text import one_of

__all__ = ["OracleController", "Policy"]

Policy = Literal["equal_quality", "minimal"]

TABLES: dict[str, str] = {"equal_quality": "assignment", "minimal": "minimal_budgets"}


class OracleController(SequenceController):
    """Replays the oracle's allocation for each prompt of a run.

    Prompts are those that the run stores: they are not rendered again. If sequences share a prompt, the first one's
    allocation is used.

    Args:
        engine: runs the model under the run's settings.
        replayed: the sequences of the run, each with its allocation.
    """

    name = "oracle"

    def __init__(self, engine: Engine, replayed: Seq[tuple[Sequence, Allocation]]) -> None:
        super().__init__(engine)
        # In reverse, so that the first sequence of a shared prompt wins.
        self._by_text = {sequence.prompt: (sequence, allocation) for sequence, allocation in reversed(replayed)}
        self._by_ids = {tuple(engine.encode(sequence)): allocation for sequence, allocation in reversed(replayed)}

    @classmethod
    def sweep(cls, layers: int) -> list[dict[str, Any]]:
        """The data-set oracle, and the minimal budget per sequence."""
        return [{"policy": policy} for policy in TABLES]

    @classmethod
    def from_run(
        cls,
        folder: RunPath,
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
        if line := rendered_anew(run):
            warnings.warn(line, stacklevel=2)
        require_same_decoding(engine, run.manifest)
        return cls.of(run, engine, policy=policy)

    @classmethod
    def of(cls, run: Run, engine: Engine, *, policy: Policy = "equal_quality") -> "OracleController":
        """Creates the oracle on an engine with the run's model and settings."""
        _check(policy)
        sequences = {row["sequence"]: sequence_of(row) for row in run.sequences().to_dict("records")}
        chosen = run.table(TABLES[policy])
        pairs = zip(chosen["sequence"], chosen["allocation"], strict=True)
        return cls(engine, [(sequences[name], tuple(allocation.tolist())) for name, allocation in pairs])

    def allocation(self, prompt: str) -> Allocation:
        """The oracle's allocation for a prompt, given as the user's text.

        Raises:
            InputError: if the prompt is not one of the run's.
        """
        return self._found(prompt)[1]

    def open(self, prompts: Seq[str | Prompt]) -> list[Prompt]:
        """Runs the prompts as the run stores them, after checking that all are in the run."""
        known = [prompt if isinstance(prompt, Prompt) else self._found(prompt)[0] for prompt in prompts]
        self.allocations([prompt for prompt in known if isinstance(prompt, Prompt)])
        return [prompt if isinstance(prompt, Prompt) else Prompt.of(self.engine, prompt) for prompt in known]

    def allocations(self, prompts: Seq[Prompt]) -> list[Allocation]:
        """The oracle's allocation per prompt."""
        for prompt in prompts:
            if prompt.ids not in self._by_ids:
                raise self._unknown(prompt.text)
        return [self._by_ids[prompt.ids] for prompt in prompts]

    def _found(self, text: str) -> tuple[Sequence, Allocation]:
        if text not in self._by_text:
            raise self._unknown(text)
        return self._by_text[text]

    def _unknown(self, text: str) -> InputError:
        return InputError(
            f"one of the {len(self._by_text)} prompts of the oracle's run is required, got '{text[:60]}'; search that "
            "prompt first"
        )


def _check(policy: str) -> None:
    if policy not in TABLES:
        raise InputError(f"the policy must be {one_of(TABLES, policy)}")
