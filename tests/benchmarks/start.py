"""How long a search takes until its first batch, beside what it cannot do without: the libraries and the weights.

    python tests/benchmarks/start.py [--json] [--repeats 3] [--model smollm2-135m-instruct]

All are whole processes, started anew and in turn: one imports torch and transformers and reads the weights and the
tokenizer; the others are the search that the README begins with, timed by its log until all checks are done and workers
begin: as ever, and as for the first time on a machine, where rounding is measured in full. Compare only figures of one
run, because machines differ and drift.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from oracle.config import EMBEDDED
from oracle.models.embedded import embedded_folder
from oracle.utils.paths import cache_folder

LIBRARIES = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
AutoTokenizer.from_pretrained(sys.argv[1])
"""


def libraries(model: str) -> float:
    """Seconds of a process that imports the libraries and reads a model."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", LIBRARIES, model], check=True, capture_output=True)
    return time.monotonic() - began


def start(model: str, *, first: bool = False) -> float:
    """Seconds from the start of a search's process to its first batch; `first` with nothing kept but the weights."""
    with TemporaryDirectory() as folder:
        out, cache = Path(folder, "run"), cache_folder()
        if first:
            cache = Path(folder, "cache")
            cache.mkdir()
            (cache / "models").symlink_to(cache_folder() / "models")
        words = ["search", "--model", model, "--limit", "2", "--evaluations", "1", "--no-figures", "--no-cache"]
        began = time.time()
        command = [sys.executable, "-m", "oracle", *words, "--quiet", "--out", str(out)]
        environment = os.environ | {"LAYER_ORACLE_CACHE": str(cache)}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        entries = map(json.loads, (out / "log.jsonl").read_text(encoding="utf-8").splitlines())
        [begun] = [entry["time"] for entry in entries if entry["event"] == "began"]
        return datetime.fromisoformat(begun).timestamp() - began


def main() -> None:
    """Times all in turn and prints the medians with their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each kind")
    parser.add_argument("--model", default=EMBEDDED, help="the embedded model, or a folder")
    arguments = parser.parse_args()
    folder = str(embedded_folder()) if arguments.model == EMBEDDED else arguments.model
    start(arguments.model)  # reads from disk, and keeps what later ones need
    kinds = {
        "libraries": lambda: libraries(folder),
        "start": lambda: start(arguments.model),
        "first start": lambda: start(arguments.model, first=True),
    }
    found = [{name: time_one() for name, time_one in kinds.items()} for _ in range(arguments.repeats)]
    figures = {
        name: {
            "seconds": median(times[name] for times in found),
            "ratio": median(times[name] / times["libraries"] for times in found),
        }
        for name in kinds
    }
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:12} {figure['seconds']:6.2f} s  {figure['ratio']:5.2f} x")


if __name__ == "__main__":
    main()
