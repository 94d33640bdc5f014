"""Results of `oracle draft`: drafts of the full model by skip masks, by choice of the mask, and proven bounds."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.experiment import Run
from analysis.measurements import read_table
from oracle.types import RunPath

__all__ = ["DRAFTS", "bound_summary", "draft_bounds", "draft_summary", "drafts"]

DRAFTS = "drafts"
"""Folder of the tables."""

COLUMNS = ("choice", "draft_length", "draft_ms", "token_ms", "accepts", "possible", "rounds", "drafted", "accepted")

BOUND_COLUMNS = ("budget", "masks", "draft_ms", "first", "first_any", "rounds", "tokens", "ended", "speedup")


def drafts(folder: RunPath) -> pd.DataFrame | None:
    """One row per sequence and choice of a draft mask; None if `oracle draft` has not run.

    The columns are described by `oracle.draft.study.SCHEMA`; `attrs["provenance"]` holds the settings, the cost model
    (`times`, ms) and the number of layers.

    Raises:
        InputError: if the folder is not a run, or the table is damaged.
    """
    return _read(folder, "drafts", COLUMNS)


def draft_bounds(folder: RunPath) -> pd.DataFrame | None:
    """One row per sequence and enumerated budget: proven bounds; None if `oracle draft` has not run.

    The columns are described by `oracle.draft.bounds.SCHEMA`. Empty if nothing was enumerated.

    Raises:
        InputError: as `drafts`.
    """
    return _read(folder, "bounds", BOUND_COLUMNS)


def draft_summary(table: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One row per choice, over all sequences: sums over sums, with 95 % bootstrap intervals over sequences.

    Returns:
        `choice`; `oracle`, whether the masks were chosen on these very sequences; `draft_cost`, of a draft token in
        plain tokens; `draft_length`, mean; `first`, share of verified prefixes at which the first draft token is
        accepted; `accepted`, mean accepted length: accepted draft tokens per round, with `accepted_low` and
        `accepted_high`; `acceptance`, accepted per drafted token (missing if nothing was drafted);
        `tokens_per_round`; `expected` and `expected_speedup` (with `_low`, `_high`) of the cost model, `measured`,
        `plain` and `measured_speedup` (with `_low`, `_high`): tokens per second after the first token, missing if not
        measured; `pays_below`: the draft cost below which drafting is faster than plain decoding on this machine, and
        `pays_below_flat`: if a verification cost as much as one token; `equal`, outputs equal to the full model's,
        `settled`, near-ties settled; `sequences`.
    """
    rows = []
    for choice, part in table.groupby("choice", sort=False):
        rounds, drafted, accepted, tokens = (
            part[name].to_numpy(float) for name in ("rounds", "drafted", "accepted", "tokens")
        )
        plain_ms, expected_ms = part["token_ms"].to_numpy(float) * tokens, part["expected_ms"].to_numpy(float)
        spent = (part["expected_ms"] - part["verify_ms"]).to_numpy(float)
        token = float(part["token_ms"].iloc[0])
        verified = float(part["verify_ms"].sum()) / token
        first = (
            np.array([each[0] for each in part["accepts"]]).sum()
            / np.array([each[0] for each in part["possible"]]).sum()
        )
        total = drafted.sum()
        row: dict[str, Any] = {
            "choice": choice,
            "oracle": str(choice).startswith("best "),
            "draft_cost": float(spent.sum() / total / token if total else part["draft_ms"].mean() / token),
            "draft_length": float(part["draft_length"].mean()),
            "first": float(first),
            **_ratio("accepted", accepted, rounds, resamples, seed),
            "acceptance": float(accepted.sum() / total) if total else np.nan,
            "tokens_per_round": float(tokens.sum() / rounds.sum()),
            "expected": float(1e3 * tokens.sum() / expected_ms.sum()),
            **_ratio("expected_speedup", plain_ms, expected_ms, resamples, seed),
            "pays_below": float((tokens.sum() - verified) / total) if total else np.nan,
            "pays_below_flat": float((tokens.sum() - rounds.sum()) / total) if total else np.nan,
            "sequences": len(part),
        }
        if part["measured_ms"].notna().all():
            measured, plain = part["measured_ms"].to_numpy(float), part["plain_ms"].to_numpy(float)
            row |= {
                "measured": float(1e3 * tokens.sum() / measured.sum()),
                "plain": float(1e3 * tokens.sum() / plain.sum()),
                **_ratio("measured_speedup", plain, measured, resamples, seed),
                "equal": int(part["equal"].sum()),
                "settled": int(part["settled"].sum()),
            }
        rows.append(row)
    lacking = (
        "measured",
        "plain",
        "measured_speedup",
        "measured_speedup_low",
        "measured_speedup_high",
        "equal",
        "settled",
    )
    found = pd.DataFrame(rows)
    return found.reindex(columns=[*found.columns, *(name for name in lacking if name not in found)])


def bound_summary(bounds: pd.DataFrame) -> pd.DataFrame:
    """One row per enumerated budget, over all sequences: upper bounds for masks of whole layers.

    Returns:
        `budget`, `masks`, `sequences`; `draft_ms`, of a draft token of the budget's cheapest layers; `first`, on the
        share of prefixes at which one mask per sequence gets its first token accepted; `first_any`, likewise for one
        mask per prefix; `accepted`, on the accepted tokens per round; `speedup`, on the expected speed-up of masks
        within the budget; `speedup_any`, of masks of any number of layers, which above the budget assumes that all is
        accepted.
    """
    rows = []
    for budget, part in bounds.groupby("budget", sort=True):
        tokens, rounds = part["tokens"].to_numpy(float), part["rounds"].to_numpy(float)
        prefixes = part["prefixes"].to_numpy(float)
        beyond = part["speedup_beyond"].to_numpy(float)  # missing where there are no more layers
        either = np.fmax(part["speedup"].to_numpy(float), beyond)
        rows.append(
            {
                "budget": budget,
                "masks": int(part["masks"].iloc[0]),
                "sequences": len(part),
                "draft_ms": float(part["draft_ms"].mean()),
                "first": float((part["first"] * prefixes).sum() / prefixes.sum()),
                "first_any": float((part["first_any"] * prefixes).sum() / prefixes.sum()),
                "accepted": float((tokens - rounds + part["ended"]).sum() / rounds.sum()),
                "speedup": float(tokens.sum() / (tokens / part["speedup"]).sum()),
                "speedup_any": float(tokens.sum() / (tokens / either).sum()),
            }
        )
    return pd.DataFrame(rows)


def _ratio(
    name: str, over: NDArray[np.float64], under: NDArray[np.float64], resamples: int, seed: int
) -> dict[str, float]:
    """A sum over a sum, with its interval; none for a single sequence."""
    found = {name: float(over.sum() / under.sum()), f"{name}_low": np.nan, f"{name}_high": np.nan}
    if len(over) > 1 and resamples:
        chosen_BN = np.random.default_rng(seed).integers(len(over), size=(resamples, len(over)))
        low, high = np.quantile(over[chosen_BN].sum(1) / under[chosen_BN].sum(1), [0.025, 0.975])
        found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def _read(folder: RunPath, name: str, columns: tuple[str, ...]) -> pd.DataFrame | None:
    run = Run.open(folder)
    if not run.has(f"{DRAFTS}/{name}"):
        return None
    return read_table(run, f"{DRAFTS}/{name}", columns, f"delete it, and repeat 'oracle draft {folder}'", empty=True)
