"""Whether hidden states help a per-token gate (Glavas et al. 2024), on the bundled sequences and several seeds.

    python tests/benchmarks/gates.py [--seconds S] [--out runs/gates] [--sequences 224] [--seeds 5] [--json]

Per seed, weight alpha and input (hidden state, or a vector of ones) a linear gate is trained on each half of the
sequences and evaluated on the other one, sampled and arg-max. A finished training is kept, so that the command may be
stopped, by --seconds or by hand, and continued; what is reported rests on the seeds and alphas at which both inputs are
done, and says which. Quality is ROUGE-L; the fixed input's is interpolated per sequence at the hidden one's executed
fraction, between its alphas, no layer and the full model. The interval resamples seeds and sequences, both at once.
The findings so far are written to OUT/findings.json, from which claims.py takes its rows on gates.

In shapes, X is the seeds, Y the points of the fixed input's curve.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from oracle.allocations import full
from oracle.config import SearchConfig
from oracle.controllers.cross_validation import parts
from oracle.controllers.methods.gate_training import Plan
from oracle.controllers.methods.gates import DECISIONS, GlavasFixed, GlavasHidden
from oracle.controllers.prompts import Example, Prompt
from oracle.controllers.quality_table import QualityTable
from oracle.controllers.training_set import TrainingSet
from oracle.engine import Engine
from oracle.metrics import score_text
from oracle.models import load_model
from oracle.sequences import load_sequences
from oracle.store.files import write_json
from oracle.store.provenance import git_commit, versions

ALPHAS = (3.0, 1.5, 8.0)
"""In the order in which they are trained."""

INPUTS = {"hidden": GlavasHidden, "fixed": GlavasFixed}
RESAMPLES = 2000

Work = tuple[int, float, str]
"""Seed, alpha, input."""

FINDINGS = "findings.json"


@dataclass(frozen=True)
class Study:
    """The sequences with the full model's outputs, and the folder of what is done.

    Args:
        folder: where it is kept.
        sequences: number of sequences.
        seeds: number of seeds.
    """

    folder: Path
    sequences: int
    seeds: int

    def works(self) -> Iterator[tuple[Work, Path]]:
        """All trainings in order, both inputs of an alpha next to each other, with their files."""
        for seed, alpha, kind in product(range(self.seeds), ALPHAS, INPUTS):
            yield (seed, alpha, kind), self.folder / f"n{self.sequences}-seed{seed}-alpha{alpha:g}-{kind}.json"

    def run(self, seconds: float) -> None:
        """Trains and evaluates what is missing, for at most about so long."""
        began, missing = time.monotonic(), [one for one in self.works() if not one[1].exists()]
        if not missing or seconds <= 0:
            return
        engine = Engine(load_model(device="cpu"), SearchConfig())
        sequences = {one.id: one for one in load_sequences("instruct", limit=self.sequences)}
        examples = {}
        for one in sequences.values():
            prompt = Prompt.of(engine, one.prompt)
            examples[one.id] = Example(id=one.id, prompt=prompt, tokens=())
        outputs = engine.generate([(one.prompt.state, full(engine.units.count)) for one in examples.values()])
        nothing = engine.generate([(one.prompt.state, ()) for one in examples.values()])
        self.folder.mkdir(parents=True, exist_ok=True)
        ends: dict[str, list[float]] = {"full": [], "empty": []}
        for name, found in (("full", outputs), ("empty", nothing)):
            for one, (output, _) in zip(sequences.values(), found, strict=True):
                ends[name].append(score_text("rougeL", engine.model.text(output.tokens), one.references))
        write_json(self.folder / f"n{self.sequences}-ends.json", ends)
        for name, (output, _) in zip(examples, outputs, strict=True):
            examples[name] = Example(id=name, prompt=examples[name].prompt, tokens=output.tokens)
        for (seed, alpha, kind), path in missing:
            if time.monotonic() - began > seconds:
                return
            rows: dict[str, dict[str, Any]] = {}
            for held in parts(list(examples), 2, seed):
                taught = [one for name, one in examples.items() if name not in held]
                controller = INPUTS[kind](engine, alpha=alpha)
                # Gates need no quality of masks.
                controller.fit(TrainingSet(examples=taught, quality_table=cast(QualityTable, None), seed=seed))
                for decision in DECISIONS:
                    judged = INPUTS[kind](engine, alpha=alpha, decision=decision, seed=seed)
                    judged.restore(controller.state())
                    for name, output in zip(held, judged.generate([examples[one].prompt for one in held]), strict=True):
                        quality = score_text("rougeL", output.text, sequences[name].references)
                        rows.setdefault(decision, {})[name] = [output.fraction, quality]
            ordered = {decision: [found[name] for name in examples] for decision, found in rows.items()}
            write_json(path, ordered)
            self.write()
            print(f"seed {seed}, alpha {alpha:g}, {kind}: {time.monotonic() - began:.0f} s", flush=True)

    def write(self) -> list[dict[str, Any]]:
        """Writes the findings so far, with where they come from, and returns them."""
        found = self.findings()
        if found:
            about = {"model": SearchConfig().model, "commit": git_commit(), "versions": versions()}
            write_json(self.folder / FINDINGS, {**about, "findings": found})
        return found

    def findings(self) -> list[dict[str, Any]]:
        """What hidden states add, per decision, over the seeds and alphas at which both inputs are done."""
        done = {work: json.loads(path.read_text()) for work, path in self.works() if path.exists()}
        both = [(seed, alpha) for seed, alpha in product(range(self.seeds), ALPHAS) if pair(done, seed, alpha)]
        seeds = sorted({seed for seed, _ in both})
        if not seeds:
            return []
        ends = json.loads((self.folder / f"n{self.sequences}-ends.json").read_text())
        found = []
        for decision in DECISIONS:
            gained_XN, fractions = [], []
            for seed in seeds:
                alphas = [alpha for one, alpha in both if one == seed]
                curves = {kind: [np.array(done[seed, a, kind][decision]) for a in alphas] for kind in INPUTS}
                at = [0.0, 1.0, *(curve[:, 0].mean() for curve in curves["fixed"])]
                fixed_YN = np.array([ends["empty"], ends["full"], *(curve[:, 1] for curve in curves["fixed"])])
                order = np.argsort(at)
                gains = [
                    curve[:, 1]
                    - [np.interp(curve[:, 0].mean(), np.array(at)[order], column) for column in fixed_YN[order].T]
                    for curve in curves["hidden"]
                ]
                gained_XN.append(np.mean(gains, axis=0))
                fractions += [float(curve[:, 0].mean()) for curve in curves["hidden"]]
            mean, low, high = crossed(np.array(gained_XN))
            found.append(
                {
                    "decision": decision,
                    "difference": mean,
                    "low": low,
                    "high": high,
                    "sequences": self.sequences,
                    "seeds": len(seeds),
                    "planned_seeds": self.seeds,
                    "full_quality": float(np.mean(ends["full"])),
                    "alphas": {seed: [alpha for one, alpha in both if one == seed] for seed in seeds},
                    "steps": Plan().steps,
                    "fractions": [min(fractions), max(fractions)],
                }
            )
        return found


def pair(done: dict[Work, Any], seed: int, alpha: float) -> bool:
    """Whether both inputs are done."""
    return all((seed, alpha, kind) in done for kind in INPUTS)


def crossed(gained_XN: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, and a 95 % percentile interval that resamples seeds and sequences independently."""
    rng = np.random.default_rng(0)
    seeds, sequences = gained_XN.shape
    means = [
        gained_XN[np.ix_(rng.integers(seeds, size=seeds), rng.integers(sequences, size=sequences))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(gained_XN.mean()), float(low), float(high)


def main() -> None:
    """Trains for the time given, and prints what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no training after this time")
    parser.add_argument("--out", type=Path, default=Path("runs/gates"), help="folder of what is done")
    parser.add_argument("--sequences", type=int, default=224, help="number of bundled sequences")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    arguments = parser.parse_args()
    study = Study(arguments.out, arguments.sequences, arguments.seeds)
    study.run(arguments.seconds)
    found = study.write()
    if arguments.json:
        print(json.dumps(found))
        return
    for one in found:
        print(
            f"{one['decision']}: hidden states add {one['difference']:+.4f} ROUGE-L to a fixed input (95 % over seeds "
            f"and sequences {one['low']:+.4f} to {one['high']:+.4f}); {one['sequences']} sequences, {one['seeds']} "
            f"of {one['planned_seeds']} seeds, alphas {one['alphas']}, {one['steps']} steps, "
            f"{100 * one['fractions'][0]:.0f} to {100 * one['fractions'][1]:.0f} % of the layers"
        )


if __name__ == "__main__":
    main()
