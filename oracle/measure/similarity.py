"""Similarity of the last hidden state to the full model's with fewer layers, for skipping and for early exit.

Teacher-forced: all passes are fed the full model's own output, so that the states at a position are of the same text
and differ by the layers alone. Early exit after k layers leaves the full model's own state at that depth, since no
layer depends on later ones: one pass of the full model computes them all.
"""

from collections.abc import Sequence as Seq

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from oracle.allocations import full, unified
from oracle.engine import Engine
from oracle.measure.tables import SIMILARITY
from oracle.measure.teacher_forced import best_tokens, per_sequence, predicting, states_of
from oracle.pipeline.reload import SearchedSequence
from oracle.utils.progress import Advance

__all__ = ["budget_grid", "measure_similarity"]


def budget_grid(units: int, count: int) -> list[int]:
    """Budgets evenly spread from 0 to all units."""
    return np.unique(np.rint(np.linspace(0, units, count)).astype(int)).tolist()


@torch.inference_mode()
def measure_similarity(
    engine: Engine, originals: Seq[SearchedSequence], budgets: Seq[int], advance: Advance
) -> pa.Table:
    """Cosine and relative error of the final hidden state, after the final norm, against the full model's.

    In scope `decode` the first token comes from the prompt's full-depth pass under any allocation and has no row.

    Returns:
        One row per sequence, kind, budget (units that run) and token; see `oracle.measure.tables`.
    """
    tables = per_sequence(engine, originals, lambda original: _of_one(engine, original, budgets), advance)
    return pa.concat_tables([SIMILARITY.empty_table(), *tables])


def _of_one(engine: Engine, original: SearchedSequence, budgets: Seq[int]) -> pa.Table:
    units, from_prompt = engine.units.count, engine.config.scope != "decode"
    whole = states_of(engine, original, full(units))
    full_TD = predicting(engine, whole, units, from_prompt=from_prompt)
    if not len(full_TD):
        return SIMILARITY.empty_table()
    full_tokens_T = best_tokens(engine, original, full_TD)
    tables = []
    for budget in budgets:
        skipped = states_of(engine, original, unified(units, budget))
        for kind, hidden_TD in (
            ("skip", predicting(engine, skipped, units, from_prompt=from_prompt)),
            ("exit", predicting(engine, whole, budget, from_prompt=from_prompt)),
        ):
            cosine_T, error_T = _compare(engine, hidden_TD, full_TD)
            tokens_T = best_tokens(engine, original, hidden_TD)
            columns = {
                "sequence": [original.sequence.id] * len(full_TD),
                "kind": [kind] * len(full_TD),
                "budget": [budget] * len(full_TD),
                "token": np.arange(len(full_TD)) + (not from_prompt),
                "cosine": cosine_T.cpu().numpy(),
                "relative_error": error_T.cpu().numpy(),
                "same_token": (tokens_T == full_tokens_T).cpu().numpy(),
            }
            tables.append(pa.table(columns, schema=SIMILARITY))
    return pa.concat_tables(tables)


def _compare(engine: Engine, hidden_TD: Tensor, full_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine similarity, and the norm of the difference over that of the full model's state."""
    ours_TD, theirs_TD = (engine.model.decoder.normed(each[None])[0].double() for each in (hidden_TD, full_TD))
    cosine_T = torch.nn.functional.cosine_similarity(ours_TD, theirs_TD, dim=-1)
    return cosine_T.clamp(-1, 1), (ours_TD - theirs_TD).norm(dim=-1) / theirs_TD.norm(dim=-1)
