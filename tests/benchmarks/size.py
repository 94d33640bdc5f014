"""Commands on a run of 62,500 sequences and a million evaluations, and a search that starts on 100,000 sequences.

    PYTHONPATH=tests python tests/benchmarks/size.py [--sequences 62500] [--run FOLDER]

The run is made up, but written with the project's own writer. Prints, per command, wall time, CPU time, peak memory and
what is required; exit code 1 if that is exceeded.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import analysis
from oracle.store import RunWriter
from oracle.types import Outcome, Sequence

LAYERS = 30
TRIES = 16
TASKS = 8
ROWS_PER_PART = 2048
GIB = 2**30

SCALE = 1 if sys.platform == "darwin" else 1024
"""Bytes per unit of `ru_maxrss`."""

WORDS = [f"{start}{end}" for start in ("ba", "ko", "li", "mu", "ne", "ro", "sta", "tri") for end in "aeioukn"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One command.

    Attributes:
        name: what was run.
        seconds: wall time.
        cpu: CPU time, in seconds; the same as the wall time on a machine that does nothing else.
        gib: peak resident memory of the process.
        most_seconds, most_gib: limits; that of seconds holds for the CPU time.
        fine: whether it ended as expected.
    """

    name: str
    seconds: float
    cpu: float
    gib: float
    most_seconds: float
    most_gib: float
    fine: bool

    @property
    def kept(self) -> bool:
        """Whether it ended as expected, within its limits."""
        return self.fine and self.cpu < self.most_seconds and self.gib < self.most_gib


def write_large(folder: Path, sequences: int) -> Path:
    """A finished run of made-up sequences, each with the full model and 15 masks."""
    rng = np.random.default_rng(0)
    config = {"criterion": "rougeL", "tolerance": 0.0, "scope": "decode", "strategy": "spread", "evaluations": TRIES}
    model = {"id": "made up", "layers": LAYERS, "fingerprint": "f00d"}
    manifest = {"config": config, "model": model, "data": {"source": "made up"}, "seed": 0}
    known = [
        Sequence(id=f"s{n:06d}", prompt=text(rng, 12), references=(text(rng, 8),), task=f"task {n % TASKS}")
        for n in range(sequences)
    ]
    with RunWriter(folder, manifest) as writer:
        writer.write_sequences(known, [12] * sequences)
        rows: list[tuple[str, int, Outcome]] = []
        for sequence in known:
            rows += outcomes(sequence, rng)
            if len(rows) >= ROWS_PER_PART:
                writer.append(rows, ["rougeL", "agreement"])
                rows = []
        writer.append(rows, ["rougeL", "agreement"])
        writer.certify([{"sequence": s.id, "evaluations": TRIES, "exhausted": 0, "executions": 1} for s in known])
        experiment = analysis.load(folder)
        writer.write_result("minimal_budgets", analysis.budgets(experiment))
        writer.write_result("verification", pd.DataFrame({"sequence": [], "number": [], "agrees": []}))
        writer.write_summary({"sequences": sequences})
    return folder


def text(rng: np.random.Generator, words: int) -> str:
    """Random words."""
    return " ".join(WORDS[place] for place in rng.integers(0, len(WORDS), words).tolist())


def outcomes(sequence: Sequence, rng: np.random.Generator) -> Iterator[tuple[str, int, Outcome]]:
    """Outputs whose quality grows with the number of layers."""
    for number in range(TRIES):
        count = LAYERS if number == 0 else int(rng.integers(0, LAYERS))
        layers = np.sort(rng.permutation(LAYERS)[:count]).tolist()
        quality = round(float(np.clip(rng.normal(count / LAYERS, 0.3), 0, 1)), 2)
        yield (
            sequence.id,
            number,
            Outcome(
                allocation=tuple(layers),
                family="full" if number == 0 else "random",
                tokens=tuple(rng.integers(0, 5000, 16).tolist()),
                text=text(rng, 10),
                finished=True,
                margin=0.5,
                quality={"rougeL": quality, "agreement": float(number == 0)},
            ),
        )


def measured(name: str, words: list[str], most_seconds: float, most_gib: float) -> Measured:
    """Runs one command of the command line."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "oracle", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    return Measured(
        name=name,
        seconds=time.perf_counter() - began,
        cpu=usage.ru_utime + usage.ru_stime,
        gib=usage.ru_maxrss * SCALE / GIB,
        most_seconds=most_seconds,
        most_gib=most_gib,
        fine=os.waitstatus_to_exitcode(status) == 0,
    )


def started(place: Path, sequences: int) -> Measured:
    """A search of many sequences on a tiny model, until its first batch may begin; then it is killed."""
    from tiny import tiny_llama, tiny_tokenizer

    tiny_llama().save_pretrained(place / "tiny")
    tiny_tokenizer().save_pretrained(place / "tiny")
    rng = np.random.default_rng(0)
    rows = ({"id": f"s{n}", "prompt": text(rng, 12), "references": [text(rng, 8)]} for n in range(sequences))
    (place / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    search = ["search", "--model", str(place / "tiny"), "--data", str(place / "many.jsonl"), "--evaluations", "2"]
    began, log = time.perf_counter(), place / "many" / "log.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "oracle", *search, "--quiet", "--out", str(place / "many")])
    while process.poll() is None and not (log.exists() and '"began"' in log.read_text()):
        time.sleep(0.05)
    seconds, fine = time.perf_counter() - began, process.poll() is None
    process.kill()
    _, _, usage = os.wait4(process.pid, 0)
    gib = usage.ru_maxrss * SCALE / GIB
    return Measured(
        name=f"search starts on {sequences:,} sequences",
        seconds=seconds,
        cpu=usage.ru_utime + usage.ru_stime,
        gib=gib,
        most_seconds=30,
        most_gib=4,
        fine=fine,
    )


def measure_all(place: Path, run: Path, sequences: int) -> Iterator[Measured]:
    """Every command whose size is limited."""
    yield measured("query --by-task", ["query", str(run), "--by-task"], 10, 4)
    yield measured("query --sql", ["query", str(run), "--sql", "SELECT count(*) FROM frontiers"], 30, 4)
    yield measured("report", ["report", str(run), "--out", str(place / "report.html"), "--quiet"], 60, 4)
    yield measured("figures", ["figures", str(run), "--out", str(place / "figures"), "--quiet"], 60, 4)
    yield started(place, sequences)


def main() -> int:
    """Prints one line per command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=62_500)
    parser.add_argument("--started", type=int, default=100_000, help="sequences of the search that starts")
    parser.add_argument("--run", type=Path, help="where the run is, or is written (default: a temporary folder)")
    arguments = parser.parse_args()
    kept = True
    with tempfile.TemporaryDirectory() as scratch:
        run = arguments.run or Path(scratch) / "run"
        if not (run / "summary.json").exists():
            began = time.perf_counter()
            write_large(run, arguments.sequences)
            print(f"{'written':44}{time.perf_counter() - began:7.1f} s", flush=True)
        print(f"{'':44}{'s':>8}{'CPU s':>8}{'GiB':>8}   required", flush=True)
        for each in measure_all(Path(scratch), run, arguments.started):
            kept = kept and each.kept
            required = f"{each.most_seconds:.0f} s, {each.most_gib:.0f} GiB"
            values = f"{each.seconds:8.1f}{each.cpu:8.1f}{each.gib:8.2f}   under {required:12}"
            verdict = "kept" if each.kept else "EXCEEDED" if each.fine else "FAILED"
            print(f"{each.name:44}{values}  {verdict}", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
