"""What is measured: the sequences of a run with the full model's outputs, and the model that gave them."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.models import LanguageModel, load_model
from oracle.store import Run
from oracle.store.schema import sequence_of
from oracle.types import Sequence

__all__ = ["SearchedSequence", "model_of", "searched_sequences", "spread"]


@dataclass(frozen=True, kw_only=True)
class SearchedSequence:
    """One sequence of a run.

    Attributes:
        sequence: as it was original.
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


def searched_sequences(run: Run) -> list[SearchedSequence]:
    """The sequences whose full model has been evaluated, in the order of the run."""
    evaluations = run.evaluations()
    full = evaluations[evaluations["number"] == 0]
    values = zip(full["tokens"], full[run.manifest["config"]["criterion"]], strict=True)
    known = dict(zip(full["sequence"], values, strict=True))
    originals = []
    for row in run.sequences().to_dict("records"):
        if row["sequence"] in known:
            tokens, quality = known[row["sequence"]]
            originals.append(
                SearchedSequence(sequence=sequence_of(row), tokens=tuple(tokens.tolist()), quality=float(quality))
            )
    return originals


def spread(originals: Seq[SearchedSequence], most: int) -> list[SearchedSequence]:
    """At most so many, evenly spread."""
    places = np.linspace(0, len(originals) - 1, min(most, len(originals)))
    return [originals[place] for place in np.rint(places).astype(int)]
