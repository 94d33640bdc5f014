"""The table of machines: threads, instruction sets and hostile arithmetic, each against plain generation.

    make machines        (or: PYTHONPATH=tests python -m machines [--short])

Exit code 1 if a model is refused, an output differs, or a reported allocation does not verify. What the processor
lacks is skipped by name.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
THREADS = (1, 2, 4, 8)
CAPABILITIES = ("default", "avx2", "avx512")
ISAS = ("AVX2", "AVX512_CORE", "ALL")
FAMILIES = ("llama", "mixtral", "gemma2", "gpt2", "bloom", "falcon", "opt, norm before", "qwen2-moe")
HEAD = ("threads", "ATen", "oneDNN", "dtype", "ulp", "accepted", "outputs", "mismatches", "verified")
FORMAT = "{:>7}  {:8}  {:12}  {:8}  {:>3}  {:>8}  {:>7}  {:>10}  {:>8}"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One kind of machine, as far as environment variables make it."""

    threads: int
    capability: str
    isa: str

    def rows(self, *options: str) -> tuple[str, list[dict[str, Any]]]:
        """What torch made of the asked capability, and a row for each arithmetic.

        Raises:
            RuntimeError: if the process failed; with what it wrote.
        """
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "ATEN_CPU_CAPABILITY": self.capability,
            "ONEDNN_MAX_CPU_ISA": self.isa,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))),
            # More threads than cores must not spin while others compute.
            "OMP_WAIT_POLICY": "passive",
        }
        command = [sys.executable, "-m", "machines.cell", "--threads", str(self.threads), *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{self} ended with {done.returncode}:\n{done.stderr}")
        first, *rows = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
        return first["capability"], rows


def lacking(capability: str, isa: str, best: str) -> str | None:
    """What a processor whose best capability torch reports as `best` lacks of these; None if nothing."""
    if capability == "avx512" and best != "AVX512":
        return "avx512"
    if capability == "avx2" and best not in ("AVX2", "AVX512"):
        return "avx2"
    if isa == "AVX512_CORE" and best != "AVX512":
        return "oneDNN's AVX512_CORE"
    return None


def passes(row: dict[str, Any]) -> bool:
    """Whether nothing was refused, nothing differs, and all that was reported verified."""
    return row["accepted"] == row["models"] and not row["mismatches"] and row["verified"] == row["reported"] > 0


def main() -> int:
    """Prints the table; the number of rows that failed, at most 1."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="1 and 2 threads, two families, no embedded model")
    arguments = parser.parse_args()
    best, began, failed = torch.backends.cpu.get_cpu_capability(), time.monotonic(), 0
    threads = THREADS[:2] if arguments.short else THREADS
    print(FORMAT.format(*HEAD), flush=True)
    for machine in (
        Machine(threads=count, capability=capability, isa=isa)
        for count, capability, isa in product(threads, CAPABILITIES, ISAS)
    ):
        if what := lacking(machine.capability, machine.isa, best):
            print(
                f"{machine.threads:>7}  {machine.capability:8}  {machine.isa:12}  skipped: no {what} here", flush=True
            )
            continue
        options = ["--families", *(FAMILIES[:2] if arguments.short else FAMILIES)]
        # Hostile arithmetic and the embedded model, which take long, with all of oneDNN's instructions only.
        every = machine.isa == ISAS[-1]
        options += ["--ulp", *(["0", "2", "16"] if every else ["0"])]
        options += ["--embedded"] if every and not arguments.short else []
        _, rows = machine.rows(*options)
        for row in rows:
            failed += not passes(row)
            cells = (
                machine.threads,
                machine.capability,
                machine.isa,
                row["dtype"],
                row["ulp"],
                f"{row['accepted']}/{row['models']}",
                row["outputs"],
                row["mismatches"],
                f"{row['verified']}/{row['reported']}",
            )
            print(FORMAT.format(*cells), *([] if passes(row) else ["FAILED", *row["refused"]]), flush=True)
    print(f"\n{failed} rows failed; {time.monotonic() - began:.0f} s on a processor with {best}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
