"""What is measured: the sequences of a run with the full model's outputs, and the model that gave them."""

from collections.abc import Hashable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.engine.hidden_states import States
from oracle.errors import InputError
from oracle.models import LanguageModel, load_model
from oracle.store import Run
from oracle.types import Allocation, Sequence

__all__ = ["Subject", "best_tokens", "model_of", "predicting", "spread", "states_of", "subjects_of"]

HEAD_ROWS = 64
"""Positions that pass through the vocabulary head at once."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One sequence of a run.

    Attributes:
        sequence: as it was searched.
        tokens: the full model's output.
        quality: of that output, by the run's criterion.
    """

    sequence: Sequence
    tokens: tuple[int, ...]
    quality: float


def model_of(
    run: Run, model: LanguageModel | None = None, *, device: str | None = None, trust_remote_code: bool = False
) -> LanguageModel:
    """The model that a run was made with.

    Args:
        run: the run.
        model: the model, if it is loaded already; otherwise it is loaded by the name in the run.
        device: where it is loaded to; None for the run's setting.
        trust_remote_code: whether code that comes with the model may run when it is loaded.

    Raises:
        InputError: if it is another one, or the device is not there.
    """
    config, wanted = SearchConfig.from_dict(run.manifest["config"]), run.manifest["model"]["fingerprint"]
    if model is None:
        where = config.device if device is None else device
        model = load_model(config.model, dtype=config.dtype, device=where, trust_remote_code=trust_remote_code)
    if model.fingerprint != wanted:
        raise InputError(
            f"the run was made with a model of fingerprint {wanted}, but '{model.name}' has {model.fingerprint}; "
            "give the same model (restore it at that place), or search again with this one"
        )
    return model


def subjects_of(run: Run) -> list[Subject]:
    """The sequences whose full model has been evaluated, in the order of the run."""
    evaluations = run.evaluations()
    full = evaluations[evaluations["number"] == 0]
    values = zip(full["tokens"], full[run.manifest["config"]["criterion"]], strict=True)
    known = dict(zip(full["sequence"], values, strict=True))
    subjects = []
    for row in run.sequences().to_dict("records"):
        if row["sequence"] in known:
            tokens, quality = known[row["sequence"]]
            subjects.append(Subject(sequence=_sequence(row), tokens=tuple(tokens.tolist()), quality=float(quality)))
    return subjects


def _sequence(row: Mapping[Hashable, Any]) -> Sequence:
    return Sequence(
        id=row["sequence"],
        prompt=row["prompt"],
        references=tuple(row["references"]),
        choices=tuple(row["choices"]),
        answer=None if pd.isna(row["answer"]) else int(row["answer"]),
        task=row["task"],
    )


def spread(subjects: Seq[Subject], most: int) -> list[Subject]:
    """At most so many, evenly spread."""
    places = np.linspace(0, len(subjects) - 1, min(most, len(subjects)))
    return [subjects[place] for place in np.rint(places).astype(int)]


def states_of(engine: Engine, subject: Subject, allocation: Allocation) -> States:
    """The states of the full model's output under an allocation, out of the engine's store where it has them.

    All tokens are fed, the last one too, as searches do: so they find each other's states.
    """
    return engine.hidden.states(engine.encode(subject.sequence.prompt), subject.tokens, allocation)


def predicting(states: States, depth: int, *, from_prompt: bool) -> Tensor:
    """The states after so many units at the positions that predict the tokens of the output (T D).

    Args:
        states: of all tokens of the output.
        depth: units passed, skipped ones included.
        from_prompt: whether to begin with the prompt's last position, which predicts the first token; in scope `decode`
            that is the full model's whatever the allocation.
    """
    generated_TD = states.generated.after(depth)[:-1]
    return torch.cat([states.prompt.after(depth)[-1:], generated_TD]) if from_prompt else generated_TD


def best_tokens(engine: Engine, hidden_TD: Tensor) -> Tensor:
    """The likeliest token after each state (T)."""
    finish = engine.model.decoder.finish
    return torch.cat([finish(some_TD[:, None])[:, 0].argmax(-1) for some_TD in hidden_TD.split(HEAD_ROWS)])
