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
from oracle.engine.prompts import check_cache_switch
from oracle.errors import InputError
from oracle.executors import Item
from oracle.metrics import get_metric
from oracle.models import LanguageModel, load_model
from oracle.pipeline.data import read_sequences
from oracle.pipeline.prompts import FixedPrompts, fix_prompts, prompt_ids
from oracle.pipeline.reload import require_same_decoding
from oracle.pipeline.resume import FREE_TO_CHANGE, KnownOutcomes
from oracle.pipeline.settings_check import check_functions
from oracle.pipeline.vacuous import scored_tokens
from oracle.search import Space
from oracle.sequences import LoadedData, check_sequences, data_hash
from oracle.store import Run, git_commit, versions
from oracle.store.derived import key_of, origin_of
from oracle.store.hidden import HiddenStore
from oracle.tasks import continuations_of
from oracle.types import Sequence
from oracle.utils.machine import resolve_device

__all__ = ["Setup"]


EFFORT = (
    *FREE_TO_CHANGE,
    *("model", "data", "reference_files", "columns", "layout", "task_options", "skip_unusable", "tasks", "limit"),
    "trust_remote_code",
    *("chat_template", "system", "template_args"),
    *("study", "evaluations", "seconds", "layer_executions", "prove", "seed"),
)
"""Settings that change the value of an allocation not at all, or only through what a study names itself."""

OF_ALL = ("model", "data", "prompts", "config", "seed")
"""Entries of a manifest that a study names in another way."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Sequences to search and the model to search with.

    Attributes:
        config: settings; the dtype is the model's, never `auto`.
        data: how the sequences were read.
        prompts: the sequences, in order, with their prompts rendered.
        engine: engine of the loaded model.
        costs: costs of the units; None where each costs 1.
    """

    config: SearchConfig
    data: LoadedData
    prompts: FixedPrompts
    engine: Engine
    costs: Costs | None

    @classmethod
    def load(
        cls, config: SearchConfig, store: HiddenStore | None = None, earlier: Run | None = None, *, same: bool = False
    ) -> "Setup":
        """Loads the model and data of a config, and runs every check that needs no computation.

        Args:
            config: settings.
            store: hidden states shared between searches.
            earlier: run whose prompts are taken over, as they were rendered for it; None to render all.
            same: whether it is the run to continue, whose model, data and prompts are required.

        Raises:
            InputError: for bad input, or if the model, data or prompts differ from the run to continue.
        """
        expected = earlier.manifest if earlier and same else None
        check_functions(config)
        resolve_device(config.device)  # raises before anything is loaded
        data = read_sequences(config)
        sequences = data.sequences
        for name in dict.fromkeys((config.criterion, *config.metrics)):
            check_sequences(sequences, get_metric(name), data.columns)
        if expected:
            _require_same("data", data_hash(sequences), (expected.get("data") or {}).get("hash"))
        model = load_model(
            config.model, dtype=config.dtype, device=config.device, trust_remote_code=config.trust_remote_code
        )
        if expected:
            _require_same("model", model.describe()["fingerprint"], expected["model"]["fingerprint"])
        config = replace(config, dtype=model.machine.dtype)
        engine = Engine(model, config, store)
        if expected:
            require_same_decoding(engine, expected)
        prompts = fix_prompts(engine, sequences, earlier, same=same)
        lengths = [len(prompt_ids(sequence)) for sequence in prompts.sequences]
        costs = search_costs(config, model, lengths, expected=expected)
        setup = cls(config=config, data=data, prompts=prompts, engine=engine, costs=costs)
        _check_continuations(engine, setup.sequences, setup.prompt_tokens, setup.partners)
        return setup

    @cached_property
    def scored_tokens(self) -> list[dict[str, int]]:
        """Per sequence, tokens of the longest choice and reference, where a metric scores them by likelihood."""
        return scored_tokens(self.model.tokenizer, self.config, self.sequences)

    @property
    def sequences(self) -> Seq[Sequence]:
        """The sequences, in order."""
        return self.prompts.sequences

    @property
    def model(self) -> LanguageModel:
        """The language model."""
        return self.engine.model

    @cached_property
    def prompt_tokens(self) -> list[int]:
        """Length of each prompt, in tokens."""
        return [len(prompt_ids(sequence)) for sequence in self.sequences]

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
                **self.data.facts(),
            },
            "prompts": dict(self.prompts.manifest),
            "rounding": self.engine.rounding(),
            "generation": self.engine.generation(),
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
        study = self._study_key() if self.config.study else ""
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
                study=_study(sequence, study) if study else None,
            )
            for sequence, length, seed in zip(self.sequences, self.prompt_tokens, seeds, strict=True)
        ]

    def _study_key(self) -> str:
        """Digest of everything but the sequence that the value of a trial depends on."""
        manifest = self.manifest()
        settings = {name: value for name, value in manifest["config"].items() if name not in EFFORT}
        rest = {name: value for name, value in origin_of(manifest).items() if name not in OF_ALL}
        return key_of(manifest["model"]["fingerprint"], settings, rest)


def _study(sequence: Sequence, key: str) -> str:
    """Name of a sequence's study: its id, and a digest of the sequence and of what all sequences share."""
    content: list[object] = [prompt_ids(sequence), sequence.references, sequence.choices, sequence.answer]
    content += [sequence.record] if sequence.record else []
    return f"{sequence.id} {key_of(key, *content)}"


def _require_same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise InputError(
            f"the run's {what} (fingerprint {str(expected)[:12]}) is required, but the current {what} has fingerprint "
            f"{str(found)[:12]}; restore the run's own {what}, or start a new run"
        )


def _check_continuations(
    engine: Engine, sequences: Seq[Sequence], prompt_tokens: Seq[int], partners: Mapping[str, Sequence]
) -> None:
    """Raises `InputError` unless every text to score has tokens and fits the context after its prompt."""
    config, model = engine.config, engine.model
    for sequence, length in zip(sequences, prompt_tokens, strict=True):
        texts: list[tuple[str, str]] = []
        if "log_likelihood" in config.asked_metrics:
            texts += [("reference", text) for text in sequence.references]
            texts += [("reference (another sequence's, for the null)", t) for t in partners[sequence.id].references]
        scored = [(kind, len(model.tokenizer(text, add_special_tokens=False)["input_ids"])) for kind, text in texts]
        if "choice_accuracy" in config.asked_metrics:
            scored += [("choice", len(engine.encode_choice(sequence, choice))) for choice in sequence.choices]
        if any(get_metric(name).kind == "continuations" for name in config.asked_metrics):
            both = (None, partners[sequence.id])
            scored += [("continuation", len(ids)) for other in both for ids in continuations_of(sequence, other)]
        for kind, count in scored:
            if not count:
                raise InputError(f"sequence '{sequence.id}': a {kind} of at least one token is required; remove it")
            if config.scope != "sequence":
                try:
                    check_cache_switch(model.decoder, length, count - 1, f"tokens of a {kind}")
                except InputError as error:
                    raise InputError(f"sequence '{sequence.id}': {error}") from error
            if model.context is not None and length + count > model.context:
                raise InputError(
                    f"sequence '{sequence.id}': a prompt of {length} tokens and a {kind} of {count} do not fit the "
                    f"model's context of {model.context} tokens; shorten or remove them"
                )
