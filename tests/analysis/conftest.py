"""Two runs: a synthetic one, and a tiny one in a real run folder.

The synthetic one: outputs that keep more of the reference the more of the useful layers run.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import Experiment
from oracle.metrics import agreement, score_texts
from oracle.store import RunWriter
from oracle.types import Outcome, Sequence

LAYERS, SEQUENCES, TASKS = 30, 24, 8
TASK_NAMES = ("arithmetic", "explain", "extract", "list", "paraphrase", "recall", "rewrite", "translate")


def overlap(text: str, references: tuple[str, ...]) -> float:
    """F1 of the words in common, best over references."""
    words = Counter(text.split())
    best = 0.0
    for reference in references:
        other = Counter(reference.split())
        common = sum((words & other).values())
        best = max(best, 2 * common / max(1, words.total() + other.total()))
    return best


def allocations(layers: int, count: int, rng: np.random.Generator) -> list[tuple[tuple[int, ...], str]]:
    """Full model, then a unified, an early-exit and several random masks at each budget, all distinct."""
    found = {tuple(range(layers)): "full"}
    for k in range(layers):
        found.setdefault(tuple(np.unique(np.linspace(0, layers - 1, k).astype(int)).tolist()), "unified")
        found.setdefault(tuple(range(k)), "early-exit")
    while len(found) < count:
        k = int(rng.integers(1, layers))
        found.setdefault(tuple(np.sort(rng.choice(layers, k, replace=False)).tolist()), "random")
    return list(found.items())


def make_run(seed: int = 0, sequences: int = SEQUENCES, count: int = 120, layers: int = LAYERS) -> Experiment:
    rng = np.random.default_rng(seed)
    weight_L = 1 + 2 * np.exp(-np.arange(layers)) + np.exp(-np.arange(layers)[::-1] / 2)
    plan = allocations(layers, count, rng)
    rows, table = [], []
    for n in range(sequences):
        reference = rng.integers(0, 40, 14)
        hard, best = rng.uniform(0.1, 0.75), rng.uniform(0.25, 0.8)
        own_L = weight_L * rng.gamma(1.5, 1.0, layers)
        offset = 100 if n % 8 == 5 else 0  # the full model is wrong here, and so is everything else
        table.append(
            {
                "sequence": f"s{n:03d}",
                "task": TASK_NAMES[n % TASKS],
                "prompt": f"prompt {n}",
                "references": [" ".join(f"w{word}" for word in reference)],
                "choices": ["a", "b", "c", "d"],
                "answer": int(rng.integers(4)),
                "prompt_tokens": int(rng.integers(20, 60)),
            }
        )
        for number, (allocation, family) in enumerate(plan):
            share = own_L[list(allocation)].sum() / own_L.sum() if allocation else 0.0
            keep = rng.random(14) < best / (1 + np.exp(-(share - hard) / 0.07))
            words = np.where(keep, reference, rng.integers(0, 90, 14)) + offset
            length = int(rng.integers(9, 15))
            rows.append(
                {
                    "sequence": f"s{n:03d}",
                    "number": number,
                    "family": family,
                    "allocation": list(allocation),
                    "cost": len(allocation),
                    "tokens": words[:length].tolist(),
                    "text": " ".join(f"w{word}" for word in words[:length]),
                    "choice": float(rng.integers(4)),
                    "log_likelihood": float(-1 - 3 * (1 - share)),
                    "null_log_likelihood": float(-3 - rng.random()),
                }
            )
    frame, sequence_table = pd.DataFrame(rows), pd.DataFrame(table)
    references = sequence_table.set_index("sequence")["references"]
    frame["rougeL"] = [
        overlap(text, references[sequence]) for sequence, text in zip(frame["sequence"], frame["text"], strict=True)
    ]
    return Experiment(
        sequences=sequence_table,
        evaluations=frame,
        layers=layers,
        unit="layer",
        metric="rougeL",
        kind="text",
        tolerance=0.0,
        scope="decode",
        floor=0.0,
        seed=seed,
        provenance={"model": {"id": "synthetic", "fingerprint": "f00d"}, "seed": seed},
        score=overlap,
        uniform=True,
    )


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    return make_run()


@pytest.fixture(scope="session")
def run_maker():
    return make_run


REFERENCES = {"a": ("the red cat sat",), "b": ("a blue dog ran off", "one blue dog"), "c": ("green birds sing",)}
TEXTS = {
    "a": ["the red cat", "the cat", "red", ""],
    "b": ["one blue bird", "blue dog", "cat", ""],
    "c": ["yellow fish", "green fish", "birds", ""],
}
ALLOCATIONS = [(0, 1, 2), (0, 2), (1,), ()]
FAMILIES = ["full", "unified", "random", "random"]


def outcome(sequence, number):
    text, full = TEXTS[sequence][number], TEXTS[sequence][0]
    quality = {
        **score_texts(text, REFERENCES[sequence]),
        "agreement": agreement([*map(len, text.split())], [*map(len, full.split())]),
        "log_likelihood": -1.0 - number,
        "null_log_likelihood": -4.0 + number / 10,
    }
    return Outcome(
        allocation=ALLOCATIONS[number],
        family=FAMILIES[number],
        tokens=tuple(map(len, text.split())),
        text=text,
        finished=True,
        margin=0.5,
        quality=quality,
    )


def write_run(folder: Path, evaluated="abc"):
    config = {"criterion": "rougeL", "tolerance": 0.05, "scope": "decode", "model": "tiny", "strategy": "spread"}
    manifest = {"config": config, "model": {"id": "tiny", "layers": 3, "fingerprint": "f00d"}, "seed": 7}
    writer = RunWriter(folder, manifest)
    sequences = [Sequence(id=name, prompt=name, references=REFERENCES[name], task="t") for name in "abc"]
    writer.write_sequences(sequences, [4, 5, 6])
    rows = [(name, number, outcome(name, number)) for name in evaluated for number in range(4)]
    if rows:
        columns = list(rows[0][2].quality)
        writer.append(rows[:5], columns)
        writer.append(rows[5:], columns)
    return folder


@pytest.fixture(scope="session")
def run_writer():
    return write_run


@pytest.fixture(scope="session")
def stored_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run")
