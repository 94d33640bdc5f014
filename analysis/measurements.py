"""Tables that `oracle measure` and `oracle static` wrote into a run. Read without the model.

Each reader returns None if its table was not measured, and raises `InputError` if the folder is not a run or the table
is damaged. `attrs["provenance"]` of a table describes the measurement and the machine.
"""

import json

import pandas as pd
import pyarrow.parquet as pq

from analysis.experiment import InputError, Run
from oracle.types import RunPath

__all__ = [
    "FOLDER",
    "STATIC",
    "STATIC_COLUMNS",
    "claims",
    "features",
    "read_table",
    "similarity",
    "static_masks",
    "throughput",
]

FOLDER = "measures"

STATIC = "static"
"""Folder of the tables of `oracle static`: one per data split, objective and list of budgets."""

STATIC_COLUMNS = (
    "method",
    "budget",
    "cost",
    "fraction",
    "allocation",
    "chosen",
    *(f"{value}{end}" for value in ("quality", "kl", "ahead") for end in ("", "_low", "_high")),
    "full_quality",
    "tokens_per_second",
    "full_tokens_per_second",
)
"""Columns that readers of static masks use; `oracle.static.curve.SCHEMA` describes them."""


def similarity(folder: RunPath) -> pd.DataFrame | None:
    """Similarity of the final hidden state to the full model's; None if not measured.

    Teacher-forced on the full model's own output, after the final norm. In scope `decode` the first token has no row:
    it is the full model's under any allocation.

    Returns:
        One row per sequence, kind, budget and token: `sequence`; `kind` (`skip`: unified skipping, `exit`: the first
        layers); `budget`, number of units that ran; `token`, index of the output token that the state predicts, from 0;
        `cosine`, -1 to 1; `relative_error`, norm of the difference over that of the full model's state; `same_token`,
        whether it predicts the full model's token.
    """
    return _measure(folder, "similarity")


def features(folder: RunPath) -> pd.DataFrame | None:
    """Features of each sequence under the full model; None if not measured.

    Returns:
        One row per sequence: `sequence`, `prompt_tokens`, `output_tokens`; of its own output `log_likelihood`
        (nats/token) and `entropy` (nats), means over its tokens; `first_entropy` (nats) and `first_gap` (difference of
        the two highest probabilities) at the first token; `prompt_state`, the hidden state after the middle layer, mean
        over the prompt's tokens, an array of the hidden width.
    """
    return _measure(folder, "features")


def throughput(folder: RunPath) -> pd.DataFrame | None:
    """Tokens per second and quality of the full model, early exit, SkipDecode and unified skipping, all zero-shot.

    None if not measured. Runs measured by earlier versions have the full model and unified skipping only.

    Returns:
        One row per policy, speed-up and batch: `policy` (`full`, `early-exit`, `skipdecode`, `unified`), `speedup`
        (nominal), `batch`, `cost` and `fraction` as in the run (for `skipdecode` the mean over the tokens of a
        full-length output), `tokens_per_second`, `quality` (mean of the run's criterion over `sequences` sequences, the
        same for every batch).
    """
    return _measure(folder, "throughput")


def claims(folder: RunPath) -> pd.DataFrame | None:
    """Published claims checked on the run's model; None if not checked.

    Returns:
        One row per claim: `claim`, `source`, `theirs` (the published figure), `sample`, `figure` (what is measured),
        `value` with its 95 % interval `low` to `high` (missing if not measured), `verdict` (agrees, does not agree,
        cannot tell), `note`.
    """
    return _measure(folder, "claims", "measure it again with the benchmark of claims")


def static_masks(folder: RunPath) -> pd.DataFrame | None:
    """Static masks of all tables of `oracle static`; None if there are none.

    A budget that several tables have is taken from the one with most budgets.

    Returns:
        One row per budget and method, budgets from high to low: `STATIC_COLUMNS`, and of its table `judge` (`kl` or
        `quality`: what was maximised on the training part), `training_sequences` and `held_out_sequences` (counts), and
        `table`, its name.

    Raises:
        InputError: if a table is damaged or belongs to another model.
    """
    run = Run.open(folder)
    found = []
    for path in sorted((run.folder / STATIC).glob("*.parquet")):
        again = f"delete it, and repeat 'oracle static {folder}'"
        table = read_table(run, f"{STATIC}/{path.stem}", STATIC_COLUMNS, again)
        about = table.attrs["provenance"]
        if about.get("model") != run.manifest["model"]:
            raise InputError(f"the static masks in '{path}' are not of this run's model; {again}")
        table["judge"] = about["plan"]["judge"]
        table["training_sequences"] = len(about["training"])
        table["held_out_sequences"] = len(about["held_out"])
        table["table"] = path.stem
        found.append(table)
    if not found:
        return None
    found.sort(key=lambda table: (-table["budget"].nunique(), table["table"].iloc[0]))
    seen: set[float] = set()
    kept = []
    for table in found:
        kept.append(table[~table["budget"].isin(seen)])
        seen.update(table["budget"])
    # Empty frames would change the column types.
    whole = pd.concat([table for table in kept if len(table)])
    whole = whole.sort_values("budget", ascending=False, kind="stable", ignore_index=True)
    whole.attrs = dict(found[0].attrs)
    return whole


def _measure(folder: RunPath, name: str, again: str = "") -> pd.DataFrame | None:
    run = Run.open(folder)
    if not run.has(f"{FOLDER}/{name}"):
        return None
    again = again or f"measure it again with 'oracle measure {run.folder} --only {name}'"
    return read_table(run, f"{FOLDER}/{name}", (), again)


def read_table(run: Run, name: str, columns: tuple[str, ...], again: str, *, empty: bool = False) -> pd.DataFrame:
    """A table of a run with its provenance, checked for its columns, and for rows unless it may be `empty`."""
    path = run.folder / f"{name}.parquet"
    try:
        table = run.table(name)
        table.attrs["provenance"] = json.loads(pq.read_schema(path).metadata[b"provenance"])
        lacking = [column for column in columns if column not in table]
        if lacking or (columns and table.empty and not empty):
            raise KeyError(lacking[0] if lacking else "rows")
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' is damaged; {again}") from error
    return table
