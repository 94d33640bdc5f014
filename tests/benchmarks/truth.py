"""The whole truth of a small space: every mask of 12 free layers, decoded once and kept beside the runs.

    python tests/benchmarks/truth.py [--out runs/truth]

Computing it takes a while (49,152 outputs); each sequence is kept as soon as it is done, and what is there is not
computed again. Its key is the model, the sequences, the free layers and the length of the outputs.
"""

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.executors import SearchEvaluator
from oracle.metrics import agreement, score_text
from oracle.models import load_model
from oracle.search import Hints, Space
from oracle.sequences import load_sequences
from oracle.store.files import write_json
from oracle.types import Allocation, Sequence

__all__ = ["FREE", "SEQUENCES", "Truth", "load_truth"]

FREE = (2, 4, 7, 9, 11, 13, 16, 18, 20, 22, 25, 27)
LAYERS = 30
SEQUENCES = 12
NEW_TOKENS = 8
DEFAULT = Path("runs/truth")


@dataclass(frozen=True)
class Truth:
    """Every mask of one sequence.

    Attributes:
        sequence: its id.
        qualities: by allocation, the value of each criterion.
        hints: what the model's hidden states say of it.
        full: the full allocation.
    """

    sequence: str
    qualities: dict[Allocation, dict[str, float]]
    hints: Hints
    full: Allocation = tuple(range(LAYERS))

    def minimum(self, metric: str) -> int:
        """The true minimal number of layers."""
        least = self.qualities[self.full][metric] - 1e-9
        return min(len(mask) for mask, quality in self.qualities.items() if quality[metric] >= least)


def masks() -> list[Allocation]:
    """All masks in lexicographic order: neighbours share most of their layers."""
    fixed = set(range(LAYERS)) - set(FREE)
    return [
        tuple(sorted(fixed | {layer for layer, runs in zip(FREE, bits, strict=True) if runs}))
        for bits in product([False, True], repeat=len(FREE))
    ]


def load_truth(folder: Path = DEFAULT) -> list[Truth]:
    """The truth of every sequence, computed where it is missing."""
    found: list[Truth] = []
    every = masks()
    for sequence in load_sequences("instruct", limit=24):
        path = folder / f"{_key(sequence.prompt)}.parquet"
        if not path.exists():
            engine = load_engine()
            began = time.perf_counter()
            prompt = engine.open(sequence.prompt)
            [(full, _)] = engine.generate([(prompt, tuple(range(LAYERS)))])
            text = engine.model.text
            if score_text("rougeL", text(full.tokens), sequence.references) == 0:
                continue  # where the full model scores nothing any mask will do
            outputs = engine.generate([(prompt, mask) for mask in every])
            rows = [
                {
                    "rougeL": score_text("rougeL", text(output.tokens), sequence.references),
                    "agreement": agreement(output.tokens, full.tokens),
                    "tokens": len(output.tokens),
                }
                for output, _ in outputs
            ]
            folder.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_parquet(path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
            print(f"{sequence.id}: {time.perf_counter() - began:.0f} s", flush=True)
        table = pd.read_parquet(path)
        values = table[["rougeL", "agreement"]].to_dict("records")
        found.append(Truth(sequence.id, dict(zip(every, values, strict=True)), _hints(sequence, path)))
        if len(found) == SEQUENCES:
            break
    return found


@cache
def load_engine() -> Engine:
    """The embedded model."""
    return Engine(load_model(), SearchConfig(max_new_tokens=NEW_TOKENS))


def _hints(sequence: Sequence, truth: Path) -> Hints:
    path = truth.with_suffix(".json")
    if not path.exists():
        evaluator = SearchEvaluator(load_engine(), metrics=(), shuffled={})
        influence, chosen = evaluator.structure(sequence, Space(units=LAYERS, free=FREE, costs=(1.0,) * LAYERS))
        write_json(path, {"influence": list(influence), "masks": [[cost, list(mask)] for cost, mask in chosen.items()]})
    stored = json.loads(path.read_text())
    return Hints(influence=tuple(stored["influence"]), masks={cost: tuple(mask) for cost, mask in stored["masks"]})


def _key(prompt: str) -> str:
    config = json.dumps([prompt, FREE, LAYERS, NEW_TOKENS, SearchConfig().model])
    return hashlib.sha256(config.encode()).hexdigest()[:16]


def main() -> None:
    """Computes what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT, help="folder of the truth")
    for truth in load_truth(parser.parse_args().out):
        print(truth.sequence, {metric: truth.minimum(metric) for metric in ("rougeL", "agreement")})


if __name__ == "__main__":
    main()
