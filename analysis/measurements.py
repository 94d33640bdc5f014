"""What `oracle measure` wrote into a run: similarity, features, throughput; read without the model."""

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from analysis.experiment import InputError, Run

__all__ = ["FOLDER", "claims", "features", "similarity", "throughput"]

FOLDER = "measures"


def similarity(folder: Path | str) -> pd.DataFrame | None:
    """How close the final hidden state comes to the full model's; None if it was not measured.

    Teacher-forced on the full model's own output, after the final norm. In scope `decode` the first token has no row:
    the full model gives it whatever the allocation.

    Args:
        folder: the run.

    Returns:
        One row a sequence, kind, budget and token: `sequence`; `kind` (`skip`: unified skipping, `exit`: the first
        layers); `budget`, the units that ran; `token`, which of the output's tokens the state predicts, from 0;
        `cosine`, -1 to 1; `relative_error`, the norm of the difference over that of the full model's state;
        `same_token`, whether it predicts what the full model does. `attrs["provenance"]` says what was measured.

    Raises:
        InputError: if it is no run, or the table is damaged.
    """
    return _table(folder, "similarity")


def features(folder: Path | str) -> pd.DataFrame | None:
    """What the full model shows of each sequence; None if it was not measured.

    Args:
        folder: the run.

    Returns:
        One row a sequence: `sequence`, `prompt_tokens`, `output_tokens`; of its own output `log_likelihood`
        (nats/token) and `entropy` (nats), means over its tokens; `first_entropy` (nats) and `first_gap` (difference of
        the two highest probabilities) at the first token; `prompt_state`, the hidden state after the middle layer, mean
        over the prompt's tokens, an array of the hidden width. `attrs["provenance"]` says what was measured.

    Raises:
        InputError: if it is no run, or the table is damaged.
    """
    return _table(folder, "features")


def throughput(folder: Path | str) -> pd.DataFrame | None:
    """Tokens per second and quality of the full model, early exit, SkipDecode and unified skipping, all zero-shot.

    None if it was not measured. Runs measured by earlier versions have the full model and unified skipping only.

    Args:
        folder: the run.

    Returns:
        One row a policy, speed-up and batch: `policy` (`full`, `early-exit`, `skipdecode`, `unified`), `speedup`
        (nominal), `batch`, `cost` and `fraction` as in the run, `tokens_per_second`, `quality` (mean of the run's
        criterion over `sequences` sequences). `attrs["provenance"]` says what was measured, and on what.

    Raises:
        InputError: if it is no run, or the table is damaged.
    """
    return _table(folder, "throughput")


def claims(folder: Path | str) -> pd.DataFrame | None:
    """Published claims checked on the run's model; None if they were not.

    Args:
        folder: the run.

    Returns:
        One row per claim: `claim`, `source`, `theirs` (the published figure), `sample`, `figure` (what is measured),
        `value` with its 95 % interval `low` to `high`, `verdict` (agrees, does not agree, cannot tell), `note`.

    Raises:
        InputError: if it is no run, or the table is damaged.
    """
    return _table(folder, "claims", "the benchmark of claims")


def _table(folder: Path | str, name: str, command: str = "") -> pd.DataFrame | None:
    run = Run.open(folder)
    if not run.has(f"{FOLDER}/{name}"):
        return None
    path = run.folder / FOLDER / f"{name}.parquet"
    try:
        table = run.table(f"{FOLDER}/{name}")
        table.attrs["provenance"] = json.loads(pq.read_schema(path).metadata[b"provenance"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        again = command or f"'oracle measure {folder} --only {name}'"
        raise InputError(f"'{path}' is damaged; measure it again with {again}") from error
    return table
