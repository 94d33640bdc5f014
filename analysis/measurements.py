"""Tables that `oracle measure` wrote into a run: similarity, features, throughput. Read without the model.

Each reader returns None if its table was not measured, and raises `InputError` if the folder is not a run or the table
is damaged. `attrs["provenance"]` of a table describes the measurement and the machine.
"""

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from analysis.experiment import InputError, Run

__all__ = ["FOLDER", "features", "similarity", "throughput"]

FOLDER = "measures"


def similarity(folder: Path | str) -> pd.DataFrame | None:
    """Similarity of the final hidden state to the full model's; None if not measured.

    Teacher-forced on the full model's own output, after the final norm. In scope `decode` the first token has no row:
    it is the full model's under any allocation.

    Returns:
        One row per sequence, kind, budget and token: `sequence`; `kind` (`skip`: unified skipping, `exit`: the first
        layers); `budget`, number of units that ran; `token`, index of the output token that the state predicts, from 0;
        `cosine`, -1 to 1; `relative_error`, norm of the difference over that of the full model's state; `same_token`,
        whether it predicts the full model's token.
    """
    return _table(folder, "similarity")


def features(folder: Path | str) -> pd.DataFrame | None:
    """Features of each sequence under the full model; None if not measured.

    Returns:
        One row per sequence: `sequence`, `prompt_tokens`, `output_tokens`; of its own output `log_likelihood`
        (nats/token) and `entropy` (nats), means over its tokens; `first_entropy` (nats) and `first_gap` (difference of
        the two highest probabilities) at the first token; `prompt_state`, the hidden state after the middle layer, mean
        over the prompt's tokens, an array of the hidden width.
    """
    return _table(folder, "features")


def throughput(folder: Path | str) -> pd.DataFrame | None:
    """Tokens per second and quality of the full model and of unified skipping; None if not measured.

    Returns:
        One row per policy, speed-up and batch: `policy` (`full`, `unified`), `speedup` (nominal), `batch`, `cost` and
        `fraction` as in the run, `tokens_per_second`, `quality` (mean of the run's criterion over `sequences`
        sequences, the same for every batch).
    """
    return _table(folder, "throughput")


def _table(folder: Path | str, name: str) -> pd.DataFrame | None:
    run = Run.open(folder)
    if not run.has(f"{FOLDER}/{name}"):
        return None
    path = run.folder / FOLDER / f"{name}.parquet"
    try:
        table = run.table(f"{FOLDER}/{name}")
        table.attrs["provenance"] = json.loads(pq.read_schema(path).metadata[b"provenance"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        again = f"oracle measure {folder} --only {name}"
        raise InputError(f"'{path}' is damaged; measure it again with '{again}'") from error
    return table
