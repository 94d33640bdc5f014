"""Controllers on the embedded model: what they promise, measured beside the full model in one run.

    python tests/benchmarks/controllers.py [--json] [--run RUN]

Without --run the demo's search is made first. The figures, and what they should be:

- `replay_exact`: share of the oracle controller's outputs that are the run's, token for token (1.0).
- `realised_over_ideal`: unified skipping at half the layers, batch 8: the time that it should take, embedding, norm and
  head as ever and half of the rest, over the time it takes (at least 0.85).
- `per_token_overhead`: gates that keep every layer, batch 8, over the plain model's forward and cache (at most 1.25).
- `router_headroom_captured`, `ridge_headroom_captured`: at the price that captures most, with its interval, whatever it
  is.
- `skiplayer_density_error` (at most 0.03) and `skiplayer_minus_random` (nats/token, negative is better): three seeds.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from oracle.config import SearchConfig
from oracle.controllers import OracleController, Prompt, compare_run
from oracle.controllers.methods.fixed import Full, Unified
from oracle.costs import Conditions
from oracle.costs.latency import measure_latency
from oracle.engine import Engine, FixedLengthEngine, TableGate
from oracle.models import LanguageModel, load_model
from oracle.pipeline.run import run_search
from oracle.sequences import load_sequences
from oracle.store import Run

BATCH = 8
NEW_TOKENS = 24
ROUNDS = 5


def alternating(*works: Callable[[], object]) -> list[float]:
    """Median seconds of each, taken in turns after a first one that does not count."""
    seconds: list[list[float]] = [[] for _ in works]
    for turn in range(ROUNDS + 1):
        for work, found in zip(works, seconds, strict=True):
            began = time.perf_counter()
            work()
            if turn:
                found.append(time.perf_counter() - began)
    return [statistics.median(found) for found in seconds]


def replay_exact(run: Run, model: LanguageModel) -> float:
    """Share of the oracle's outputs that are those of the run."""
    chosen = run.table("assignment")[["sequence", "number"]].merge(run.evaluations(), on=["sequence", "number"])
    rows = chosen.merge(run.sequences()[["sequence", "prompt"]], on="sequence")
    outputs = OracleController.from_run(run.folder, model=model).generate(rows["prompt"].tolist())
    same = [list(one.tokens) == tokens.tolist() for one, tokens in zip(outputs, rows["tokens"], strict=True)]
    return sum(same) / len(same)


def realised(engine: Engine, prompts: list[Prompt]) -> dict[str, float]:
    """Half the layers, evenly spread, against the full model."""
    half = Unified(engine, speedup=2.0)
    whole_s, half_s = alternating(lambda: Full(engine).generate(prompts), lambda: half.generate(prompts))
    context = int(np.mean([prompt.state.length for prompt in prompts])) + NEW_TOKENS // 2
    costs = measure_latency(engine.model, Conditions(batch=len(prompts), context=context, rounds=10)).costs
    fixed, fraction = costs.overhead / costs.total, len(half.kept) / engine.model.layers
    ideal = fixed + (1 - fixed) * fraction
    return {
        "realised_over_ideal": ideal * whole_s / half_s,
        "unified_speedup": whole_s / half_s,
        "fixed_share": fixed,
    }


@torch.inference_mode()
def prefilled(model: LanguageModel, prompts: list[Prompt]) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
    """The library's own cache after the prompts, its mask, and the first tokens."""
    width = max(prompt.state.length for prompt in prompts)
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - prompt.state.length :], mask[row, width - prompt.state.length :] = prompt.state.tokens, 1
    cache = DynamicCache()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    found = model.network(ids, attention_mask=mask, position_ids=positions, cache=cache, logits_to_keep=1)
    return found.logits[:, -1].argmax(-1), mask, cache


@torch.inference_mode()
def plainly(model: LanguageModel, start: tuple[torch.Tensor, torch.Tensor, DynamicCache]) -> None:
    """Greedy tokens by the untouched model's forward, from where the prompts ended."""
    tokens, mask, cache = start
    for _ in range(NEW_TOKENS - 1):
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], dim=1)
        found = model.network(
            tokens[:, None], attention_mask=mask, position_ids=mask.sum(-1, keepdim=True) - 1, cache=cache
        )
        tokens = found.logits[:, -1].argmax(-1)
    cache.crop(1 - NEW_TOKENS)


def overhead(engine: Engine, prompts: list[Prompt]) -> float:
    """Gates that keep every layer over the plain model."""
    states = [prompt.state for prompt in prompts]
    gate = TableGate([np.ones((1, engine.model.layers), dtype=np.bool_)] * len(prompts), policy="propagate")
    start = prefilled(engine.model, prompts)
    gated_s, plain_s = alternating(lambda: engine.generate_gated(states, gate), lambda: plainly(engine.model, start))
    return gated_s / plain_s


def headroom(run: Run, model: LanguageModel) -> dict[str, Any]:
    """What choosing after the prompt captures, for the setting that captures most."""
    rows = compare_run(run.folder, controllers="ridge,router", model=model, timed=False).rows
    found: dict[str, Any] = {}
    for name, group in rows.dropna(subset="captured").groupby("controller"):
        best = group.loc[group["captured"].idxmax()]
        found[f"{name}_headroom_captured"] = float(best["captured"])
        found[f"{name}_headroom_interval"] = [float(best["captured_low"]), float(best["captured_high"])]
        found[f"{name}_fraction"] = float(best["executed_fraction"])
    return found


def skiplayer() -> dict[str, float]:
    """SkipLayer against the random router, trained from scratch."""

    from oracle.skiplayer import benchmark_study

    found = benchmark_study()
    return {name: found[name] for name in ("skiplayer_density_error", "skiplayer_minus_random")}


def main() -> None:
    """Measures everything and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--run", type=Path, help="a run of the embedded model on the demo's sequences")
    parser.add_argument("--no-skiplayer", action="store_true", help="leave out what trains models from scratch")
    arguments = parser.parse_args()
    model = load_model()
    steady = FixedLengthEngine(model, SearchConfig(max_new_tokens=NEW_TOKENS))
    prompts = [Prompt.of(steady, sequence.prompt) for sequence in load_sequences("instruct", limit=BATCH)]
    figures: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        **realised(steady, prompts),
        "per_token_overhead": overhead(steady, prompts),
        "per_token_overhead_batch_1": overhead(steady, prompts[:1]),
    }
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.run is None:
            demo = replace(SearchConfig(), limit=24)
            run = run_search(demo, Path(scratch) / "run")
        else:
            run = Run.open(arguments.run)
        figures |= {"replay_exact": replay_exact(run, model), **headroom(run, model)}
    if not arguments.no_skiplayer:
        figures |= skiplayer()
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:.4g}" if isinstance(value, float) else f"{name:32} {value}")


if __name__ == "__main__":
    main()
