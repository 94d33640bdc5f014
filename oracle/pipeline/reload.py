"""The sequences of a stored run with the full model's outputs, and the run's model."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel, load_model
from oracle.pipeline.prompts import check_tokenizer
from oracle.store import Run
from oracle.store.schema import sequence_of
from oracle.types import Sequence

__all__ = ["SearchedSequence", "model_of", "require_same_decoding", "searched_sequences", "spread"]


@dataclass(frozen=True, kw_only=True)
class SearchedSequence:
    """One sequence of a run.

    Attributes:
        sequence: the sequence.
        tokens: token ids of the full model's output.
        quality: of that output, by the run's criterion.
    """

    sequence: Sequence
    tokens: tuple[int, ...]
    quality: float


def model_of(
    run: Run, model: LanguageModel | str | None = None, *, device: str | None = None, trust_remote_code: bool = False
) -> LanguageModel:
    """The model of a run.

    Args:
        run: the run.
        model: the model, if already loaded, or its name; None to load it by its name in the run.
        device: device to load it on; None for the run's setting.
        trust_remote_code: whether to run code shipped with the model, which must then be named: a run cannot do that.

    Raises:
        InputError: if the model or its tokenizer differs from the run's, it is not named although its code may run, or
            the device is not available.
    """
    config, wanted = SearchConfig.from_dict(run.manifest["config"]), run.manifest["model"]["fingerprint"]
    if model is None and trust_remote_code:
        raise InputError(
            f"--trust-remote-code needs --model too: code runs only of a model named by the caller, and the run "
            f"'{run.folder}' names '{config.model}'; add --model if you trust that one"
        )
    if model is None or isinstance(model, str):
        where = config.device if device is None else device
        model = load_model(model or config.model, dtype=config.dtype, device=where, trust_remote_code=trust_remote_code)
    if model.fingerprint != wanted:
        raise InputError(
            f"the run needs a model of fingerprint {wanted}, but '{model.name}' has {model.fingerprint}; "
            "restore the run's model, or search again with this one"
        )
    check_tokenizer(model.tokenizer, config, map(sequence_of, run.sequences().to_dict("records")))
    return model


def require_same_decoding(engine: Engine, manifest: Mapping[str, Any]) -> None:
    """Makes sure that an engine decodes as a run's did: under the same settings of the model's `generation_config`.

    Raises:
        InputError: if a setting that is honoured, or the end tokens, have changed since the run.
    """
    stored, now = manifest.get("generation"), engine.generation()
    for name in ("honoured", "end_tokens"):
        if stored is not None and (before := stored.get(name)) != now[name]:
            raise InputError(
                f"the run was decoded under a generation_config with {name.replace('_', ' ')} {before}, but the "
                f"model's now has {now[name]}; restore the model's generation_config, or start a new run"
            )


def searched_sequences(run: Run, evaluations: pd.DataFrame | None = None) -> list[SearchedSequence]:
    """The sequences with an output of the full model, in the order of the run, with their stored prompts.

    Args:
        run: the run.
        evaluations: its evaluations, if already read.
    """
    evaluations = run.evaluations() if evaluations is None else evaluations
    full = evaluations[evaluations["number"] == 0]
    values = zip(full["tokens"], full[run.manifest["config"]["criterion"]], strict=True)
    known = dict(zip(full["sequence"], values, strict=True))
    searched = []
    for row in run.sequences().to_dict("records"):
        if row["sequence"] in known:
            tokens, quality = known[row["sequence"]]
            searched.append(
                SearchedSequence(sequence=sequence_of(row), tokens=tuple(tokens.tolist()), quality=float(quality))
            )
    return searched


def spread(searched: Seq[SearchedSequence], limit: int) -> list[SearchedSequence]:
    """An evenly spread selection of at most `limit` sequences."""
    places = np.linspace(0, len(searched) - 1, min(limit, len(searched)))
    return [searched[place] for place in np.rint(places).astype(int)]
