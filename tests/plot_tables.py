"""Small tables of what is measured on a run after its search, for the figures that draw them."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.plots.layout import compose
from analysis.plots.registry import drawing_of
from analysis.plots.source import labelled
from oracle.store.files import write_table

__all__ = ["pictured", "write_comparison", "write_drafts", "write_measures", "write_static"]


def pictured(name, *sources, labels=None, config=None):
    """Numbers and figure of runs."""
    drawing = drawing_of(name, labelled(sources, labels))
    return drawing.table, compose(drawing, config)


def write(folder, name, table, **about):
    path = folder / f"{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    origin = {b"provenance": json.dumps({"machine": "a test", **about}).encode()}
    write_table(path, pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(origin))


def write_measures(folder, experiment):
    """Similarity and throughput; skipping is the closer one, and no batch gains what it would ideally."""
    rng, layers = np.random.default_rng(0), experiment.layers
    rows = []
    for sequence in experiment.sequences["sequence"]:
        for kind, power in (("skip", 0.5), ("exit", 2.0)):
            for budget in range(0, layers + 1, 3):
                for token in range(1, int(rng.integers(3, 6))):
                    cosine = min(1.0, (budget / layers) ** power + rng.normal(0, 0.02))
                    rows.append((sequence, kind, budget, token, cosine, 1 - cosine, bool(rng.random() < cosine)))
    columns = ["sequence", "kind", "budget", "token", "cosine", "relative_error", "same_token"]
    write(folder, "measures/similarity", pd.DataFrame(rows, columns=columns))
    rows = [
        (policy, speed, batch, layers / speed, 1 / speed, rate * speed**0.7, worth * 0.5 / speed, 9)
        for policy, worth, speeds in (("full", 1, (1,)), ("early-exit", 0.8, (2, 3, 5)), ("unified", 1, (2, 3, 5)))
        for speed in speeds
        for batch, rate in ((1, 12.5), (8, 90.0), (32, 1250.0))
    ]
    columns = ["policy", "speedup", "batch", "cost", "fraction", "tokens_per_second", "quality", "sequences"]
    write(folder, "measures/throughput", pd.DataFrame(rows, columns=columns))


def write_comparison(folder):
    """Nine controllers: the oracle itself, some below any static allocation, one where there is no headroom."""
    rows = []
    for i, name in enumerate(
        ["oracle", "router", "glavas", "confidence", "d3", "flexidepth", "static", "exit", "unified"]
    ):
        for setting in ("budget=0.3", "budget=0.6"):
            fraction = float(setting[-3:]) + 0.01 * i
            static, oracle, captured = 0.4 * fraction, 0.3 + 0.4 * fraction, 1 - 0.15 * i
            if i == 6:
                captured = np.nan
            low, high = captured - 0.1, captured + 0.1
            quality = static + np.nan_to_num(captured) * (oracle - static)
            rows.append((name, setting, "sequence", fraction, quality, static, oracle, captured, low, high))
    columns = ["controller", "setting", "kind", "executed_fraction", "quality", "static_quality", "oracle_quality"]
    table = pd.DataFrame(rows, columns=[*columns, "captured", "captured_low", "captured_high"])
    write(folder, "controllers/comparison", table)


def write_static(folder, layers, *, name="curve-0", budgets=(3, 2, 1), judge="kl", lost=0.0):
    """Static masks of three methods: the last one is chosen, and has the first layers of the model."""
    rows = []
    for budget in budgets:
        for place, method in enumerate(("unified", "greedy", "surrogate")):
            mask = sorted({layer * layers // budget for layer in range(budget)}) if place < 2 else list(range(budget))
            quality, kl = 0.8 * budget / layers + 0.01 * place - lost, 6 - budget / 2 - place
            numbers = {"quality": quality, "kl": kl, "ahead": 2.0 - place}
            ends = {f"{key}{end}": at for key, value in numbers.items() for end, at in spread(value)}
            rate = {"tokens_per_second": 30.0 - budget if place == 2 else np.nan, "full_tokens_per_second": 15.0}
            about = {"method": method, "budget": float(budget), "cost": float(budget), "fraction": budget / layers}
            rows.append({**about, "allocation": mask, "chosen": place == 2, "full_quality": 0.8, **ends, **rate})
    split = {"training": ["a", "b", "c"], "held_out": ["d", "e"], "metric": "rougeL", "plan": {"judge": judge}}
    model = json.loads((folder / "manifest.json").read_text())["model"]
    write(folder, f"static/{name}", pd.DataFrame(rows), model=model, **split)


def write_drafts(folder, layers, *, measured=True):
    """Drafts of two sequences by the best masks and by two methods, and bounds of budgets 0 and 1."""
    rows = []
    for place, choice in enumerate(("best per sequence", "best per task", "best overall", "swift", "clasp")):
        for name, tokens in (("s0000", 10), ("s0001", 20)):
            rounds, accepted = tokens // 2 + place, tokens - tokens // 2 - place
            drafted = accepted + 4
            about = {"sequence": name, "task": "a", "choice": choice, "draft_length": 3, "tokens": tokens}
            about |= {"allocation": None if choice == "clasp" else [0, 1], "draft_ms": 4.0 + place, "token_ms": 10.0}
            about |= {"prefixes": tokens, "accepts": [accepted, 2, 1], "possible": [tokens, tokens - 1, tokens - 2]}
            verify = 12.0 * rounds
            about |= {"rounds": rounds, "drafted": drafted, "accepted": accepted, "verify_ms": verify, "near": 0}
            about |= {"expected_ms": verify + drafted * (4.0 + place), "decision_executions": None}
            times = {"measured_ms": 20.0 * tokens, "plain_ms": 10.0 * tokens, "measured_accepted": accepted}
            times |= {"measured_drafted": drafted, "equal": True, "settled": 1}
            rows.append(about | (times if measured else dict.fromkeys(times)))
    plan = {"length": 3, "prove": 100}
    write(folder, "drafts/drafts", pd.DataFrame(rows), plan=plan, layers=layers)
    limits = []
    for budget in (0, 1):
        for name, tokens in (("s0000", 10), ("s0001", 20)):
            limit = {"sequence": name, "task": "a", "budget": budget, "masks": 1 + budget * layers, "prefixes": tokens}
            limit |= {"draft_ms": 2.0 + budget, "first": 0.2 * budget, "first_any": 0.4 * budget, "near": 0}
            limit |= {"rounds": tokens - 2 * budget, "tokens": tokens, "ended": True, "best": [0]}
            limits.append(limit | {"speedup": 1 + 0.1 * budget, "speedup_beyond": 2.0})
    write(folder, "drafts/bounds", pd.DataFrame(limits), plan=plan, layers=layers)


def spread(value):
    return (("", value), ("_low", value - 0.1), ("_high", value + 0.1))
