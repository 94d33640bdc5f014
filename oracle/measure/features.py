"""Features of a sequence under the full model: lengths, confidence, and the prompt's hidden state."""

from collections.abc import Sequence as Seq
from functools import partial
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from oracle.allocations import full
from oracle.engine import Engine
from oracle.measure.tables import FEATURES
from oracle.measure.teacher_forced import HEAD_ROWS, per_sequence, predicting, states_of
from oracle.pipeline.reload import SearchedSequence
from oracle.utils.progress import Advance

__all__ = ["measure_features"]


@torch.inference_mode()
def measure_features(engine: Engine, originals: Seq[SearchedSequence], advance: Advance) -> pa.Table:
    """One row per sequence; see `oracle.measure.tables`."""
    return pa.Table.from_pylist(per_sequence(engine, originals, partial(_of_one, engine), advance), schema=FEATURES)


def _of_one(engine: Engine, original: SearchedSequence) -> dict[str, Any]:
    units = engine.units.count
    states = states_of(engine, original, full(units))
    hidden_TD = predicting(engine, states, units, from_prompt=True)
    gold_T, entropy_T, first_V = _distributions(engine, hidden_TD, original.tokens)
    first, second = first_V.exp().topk(2).values.tolist()
    prompt_TD = states.prompt.after(units // 2)
    return {
        "sequence": original.sequence.id,
        "prompt_tokens": len(prompt_TD),
        "output_tokens": len(original.tokens),
        "log_likelihood": float(gold_T.mean()),
        "entropy": float(entropy_T.mean()),
        "first_entropy": float(entropy_T[0]),
        "first_gap": first - second,
        "prompt_state": prompt_TD.double().mean(0).float().tolist(),
    }


def _distributions(engine: Engine, hidden_TD: Tensor, tokens: Seq[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability per token and entropy per distribution, in nats; log-probabilities of the first distribution."""
    gold: list[Tensor] = []
    entropy: list[Tensor] = []
    first_V: Tensor | None = None
    targets_T = torch.tensor(tokens, device=hidden_TD.device)
    for some_TD, target_T in zip(hidden_TD.split(HEAD_ROWS), targets_T.split(HEAD_ROWS), strict=True):
        logs_TV = engine.model.decoder.finish(some_TD[:, None])[:, 0].double().log_softmax(-1)
        first_V = logs_TV[0] if first_V is None else first_V
        gold.append(logs_TV.gather(1, target_T[:, None])[:, 0])
        entropy.append(-(logs_TV.exp() * logs_TV).nan_to_num(nan=0.0).sum(-1))
    assert first_V is not None, "an output has at least one token"
    return torch.cat(gold), torch.cat(entropy), first_V
