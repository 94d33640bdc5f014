"""The sequences, model and search space of a search, loaded and checked."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from oracle.config import SearchConfig
from oracle.costs import Costs
from oracle.costs.resolve import search_costs
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.executors import Item
from oracle.metrics import get_metric
from oracle.models import LanguageModel, load_model
from oracle.pipeline.resume import KnownOutcomes
from oracle.search import Space
from oracle.sequences import check_sequences, data_hash, load_sequences
from oracle.store import git_commit, versions
from oracle.store.hidden import HiddenStore
from oracle.types import Sequence
from oracle.utils.machine import resolve_device

__all__ = ["Setup"]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Sequences to search and the model to search with.

    Attributes:
        config: settings; the dtype is the model's, never `auto`.
        sequences: in order.
        engine: engine of the loaded model.
        prompt_tokens: length of each prompt, in tokens.
        costs: costs of the units; None where each costs 1.
    """

    config: SearchConfig
    sequences: Seq[Sequence]
    engine: Engine
    prompt_tokens: Seq[int]
    costs: Costs | None

    @classmethod
    def load(
        cls, config: SearchConfig, store: HiddenStore | None = None, expected: Mapping[str, Any] | None = None
    ) -> "Setup":
        """Loads the model and data of a config, and runs every check that needs no computation.

        Args:
            config: settings.
            store: hidden states shared between searches.
            expected: manifest of the run whose model and data are required; None for any.

        Raises:
            InputError: for bad input, or if the model or data differ from `expected`.
        """
        resolve_device(config.device)  # raises before anything is loaded
        sequences = _sequences(config)
        if expected:
            _require_same("data", data_hash(sequences), (expected.get("data") or {}).get("hash"))
        model = load_model(
            config.model, dtype=config.dtype, device=config.device, trust_remote_code=config.trust_remote_code
        )
        if expected:
            _require_same("model", model.describe()["fingerprint"], expected["model"]["fingerprint"])
        config = replace(config, dtype=model.machine.dtype)
        engine = Engine(model, config, store)
        prompt_tokens = _check_prompts(engine, sequences)
        costs = search_costs(config, model, prompt_tokens, expected=expected)
        setup = cls(config=config, sequences=sequences, engine=engine, prompt_tokens=prompt_tokens, costs=costs)
        _check_continuations(engine, sequences, prompt_tokens, setup.partners)
        return setup

    @property
    def model(self) -> LanguageModel:
        """The language model."""
        return self.engine.model

    @cached_property
    def space(self) -> Space:
        """The search space: the units that may be allocated, with their costs."""
        space = Space.of(self.engine.units.count, paths=self.config.paths)
        return replace(space, costs=self.costs.relative) if self.costs else space

    @cached_property
    def partners(self) -> Mapping[str, Sequence]:
        """Sequence id -> another sequence: its successor in one random cycle through all sequences."""
        order = np.random.default_rng(self.config.seed).permutation(len(self.sequences))
        following = zip(order, np.roll(order, -1), strict=True)
        return {self.sequences[a].id: self.sequences[b] for a, b in following}

    def manifest(self) -> dict[str, Any]:
        """Manifest of the run: settings, model, data and provenance."""
        return {
            "config": self.config.to_dict(),
            "model": self.model.describe(),
            "machine": self.model.machine.to_dict(),
            "data": {
                "source": self.config.data,
                "hash": data_hash(self.sequences),
                "sequences": len(self.sequences),
            },
            "rounding": self.engine.rounding(),
            "versions": versions(),
            "commit": git_commit(),
            "seed": self.config.seed,
            **({"costs": self.costs.to_dict()} if self.costs else {}),
        }

    def items(self, prior: KnownOutcomes | None = None, known: KnownOutcomes | None = None) -> list[Item]:
        """The sequences as work items.

        Args:
            prior: outcomes of the earlier run that this one starts from.
            known: outcomes of this run so far, including those of the earlier one.
        """
        seeds = np.random.SeedSequence(self.config.seed).generate_state(len(self.sequences)).tolist()
        return [
            Item(
                sequence=sequence,
                partner=self.partners[sequence.id],
                seed=seed,
                prompt_tokens=length,
                prior=tuple(outcome for _, outcome in prior.outcomes(sequence.id)) if prior else (),
                exhausted=prior.exhausted.get(sequence.id, 0) if prior else 0,
                known=tuple(known.outcomes(sequence.id)) if known else (),
            )
            for sequence, length, seed in zip(self.sequences, self.prompt_tokens, seeds, strict=True)
        ]


def _require_same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise InputError(
            f"the run's {what} (fingerprint {str(expected)[:12]}) is required, but the current {what} has fingerprint "
            f"{str(found)[:12]}; restore the run's own {what}, or start a new run"
        )


def _sequences(config: SearchConfig) -> list[Sequence]:
    sequences = load_sequences(
        config.data,
        columns=config.columns,
        reference_files=config.reference_files,
        tasks=config.tasks,
        limit=config.limit,
    )
    for name in dict.fromkeys((config.criterion, *config.metrics)):
        check_sequences(sequences, get_metric(name))
    return sequences


def _check_prompts(engine: Engine, sequences: Seq[Sequence]) -> list[int]:
    """Lengths of the prompts in tokens; raises `InputError` if one does not fit the model."""
    lengths = []
    for sequence in sequences:
        try:
            lengths.append(len(engine.encode(sequence.prompt)))
        except InputError as error:
            raise type(error)(f"sequence '{sequence.id}': {error}") from error
    return lengths


def _check_continuations(
    engine: Engine, sequences: Seq[Sequence], prompt_tokens: Seq[int], partners: Mapping[str, Sequence]
) -> None:
    """Raises `InputError` unless every text to score has tokens and fits the context after its prompt."""
    config, model = engine.config, engine.model
    for sequence, length in zip(sequences, prompt_tokens, strict=True):
        scored: list[tuple[str, str]] = []
        if "log_likelihood" in config.model_metrics:
            scored += [("reference", text) for text in sequence.references]
            scored += [("reference (another sequence's, for the null)", t) for t in partners[sequence.id].references]
        if "choice_accuracy" in config.model_metrics:
            scored += [("choice", text) for text in sequence.choices]
        for kind, text in scored:
            count = len(model.tokenizer(text, add_special_tokens=False)["input_ids"])
            if not count:
                raise InputError(f"sequence '{sequence.id}': a {kind} of at least one token is required; remove it")
            if model.context is not None and length + count > model.context:
                raise InputError(
                    f"sequence '{sequence.id}': a prompt of {length} tokens and a {kind} of {count} do not fit the "
                    f"model's context of {model.context} tokens; shorten or remove them"
                )
