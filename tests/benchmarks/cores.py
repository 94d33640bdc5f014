"""What cores bring: one search on 1, 2, ... workers, against threads, and beside other busy processes.

    python tests/benchmarks/cores.py [--json] [--limit 16] [--evaluations 60] [--busy 0 1 2] [--workers 1 2]

Each figure is of a whole command, started anew; compare only figures of one run, because machines differ and drift.
Evaluations per second are those of the search; `command` adds loading, verification and the summary. Memory per worker
is its proportional set size (PSS) at its peak: pages that processes share count in equal shares. Processors that share
caches and memory do less than n times the work of one: `limit` is what matrix products alone, of the embedded model's
shapes and without any waiting, do in as many processes at a time.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from oracle.store import Run
from oracle.utils.cores import Cores

MIB = 2**20

PRODUCTS = """
import sys, time
import torch
torch.set_num_threads(1)
rows = torch.randn(32, 576)
weights = [torch.randn(1536, 576) for _ in range(120)]  # as many as a model's, so that caches do not hold them
print("ready", flush=True)
sys.stdin.readline()
began, count = time.perf_counter(), 0
while time.perf_counter() - began < 3:
    for weight in weights:
        torch.nn.functional.linear(rows, weight)
    count += len(weights)
print(count / (time.perf_counter() - began))
"""
"""Products per second in one process, once all are ready."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to use the cores.

    Attributes:
        name: as printed.
        options: of the command line.
        environment: of the command.
        margins: whether the same batches are computed, so that the last digits of margins are the same too.
    """

    name: str
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    margins: bool = False


def ways(workers: list[int], threads: int) -> list[Way]:
    """Workers of one thread, then one process of all threads: those that sleep while they wait, and those that spin."""
    found = [Way(name=f"{n} x 1 thread", options=("--workers", str(n)), margins=True) for n in workers]
    many = ("OMP_NUM_THREADS", str(threads))
    passive, active = (many, ("OMP_WAIT_POLICY", "PASSIVE")), (many, ("OMP_WAIT_POLICY", "ACTIVE"))
    found.append(Way(name=f"1 x {threads} threads", environment=passive))
    found.append(Way(name=f"1 x {threads} threads, spinning", environment=active))
    return found


def products(count: int) -> float:
    """Matrix products per second of so many processes of one thread together."""
    others = [
        subprocess.Popen([sys.executable, "-c", PRODUCTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    rate = 0.0
    with ExitStack() as stack:
        processes = [stack.enter_context(other) for other in others]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            rate += float(process.stdout.readline())
    return rate


@contextmanager
def beside(count: int) -> Iterator[None]:
    """So many other processes that are always busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def shares(process: psutil.Process) -> dict[int, float]:
    """Proportional set size of each descendant, in MiB."""
    found = {}
    for one in process.children(recursive=True):
        try:
            found[one.pid] = one.memory_full_info().pss / MIB
        except psutil.Error:
            continue
    return found


def command(way: Way, folder: Path, limit: int, evaluations: int) -> dict[str, Any]:
    """One search, watched from outside: seconds, and the peak share of memory of each worker."""
    out = folder / "run"
    size = ["--limit", str(limit), "--evaluations", str(evaluations), "--device", "cpu"]
    words = ["search", *size, *way.options, "--no-figures", "--no-cache", "--quiet", "--json", "--out", str(out)]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    }
    began, peak = time.monotonic(), dict[int, float]()
    process = psutil.Popen(
        [sys.executable, "-m", "oracle", *words],
        env=environment | dict(way.environment),
        stdout=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None:
            for child, share in shares(process).items():
                peak[child] = max(share, peak.get(child, 0.0))
            time.sleep(0.25)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise SystemExit(f"{way.name}: exit code {process.returncode}")
    run = Run.open(out)
    workers = run.manifest["machine"]["workers"]
    columns = run.evaluations()
    return {
        "command": time.monotonic() - began,
        "search": run.summary()["search_seconds"],
        "evaluations": len(columns),
        "verified": (run.summary()["verified"], run.summary()["verified_of"]),
        # Others live shortly, while the model is loaded, or only fork.
        "worker_mib": sorted(peak.values())[-workers:] if workers > 1 else [],
        "rows": columns.map(repr).to_dict("records"),
    }


def without(rows: list[dict[str, str]], column: str) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def compared(found: dict[tuple[str, int], list[dict[str, Any]]], every: list[Way]) -> dict[str, Any]:
    """The figures per way and number of busy processes, as ratios to the first way on a quiet machine."""
    names = {way.name: way for way in every}
    (first, quiet), reference = next(iter(found.items()))
    base = {what: median(one[what] for one in reference) for what in ("search", "command")}
    figures, same = [], True
    for (name, busy), runs in found.items():
        for one in runs:
            mine, theirs = one["rows"], reference[0]["rows"]
            if not names[name].margins:
                mine, theirs = without(mine, "margin"), without(theirs, "margin")
            same &= mine == theirs and one["verified"][0] == one["verified"][1]
        seconds = {what: median(one[what] for one in runs) for what in ("search", "command")}
        workers = [share for one in runs for share in one["worker_mib"]]
        figures.append(
            {
                "way": name,
                "busy": busy,
                "evaluations_per_second": runs[0]["evaluations"] / seconds["search"],
                "search_seconds": seconds["search"],
                "command_seconds": seconds["command"],
                "search_speedup": base["search"] / seconds["search"],
                "command_speedup": base["command"] / seconds["command"],
                "over_quiet": seconds["command"] / median(one["command"] for one in found.get((name, quiet), runs)),
                "worker_mib": max(workers, default=0.0),
            }
        )
    return {"reference": f"{first}, {quiet} busy", "cores": Cores.now().available, "same": same, "figures": figures}


def main() -> None:
    """Searches in every way beside every number of busy processes, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = Cores.now().available
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--limit", type=int, default=16, help="sequences")
    parser.add_argument("--evaluations", type=int, default=60, help="per sequence")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="other busy processes")
    parser.add_argument("--workers", type=int, nargs="+", default=list(range(1, cores + 1)), help="numbers of workers")
    parser.add_argument("--repeats", type=int, default=1, help="searches of each kind, in turn")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no busy process is left
    every = ways(arguments.workers, cores)
    found: dict[tuple[str, int], list[dict[str, Any]]] = {
        (way.name, busy): [] for busy in arguments.busy for way in every
    }
    for _ in range(arguments.repeats):
        for busy in arguments.busy:
            for way in every:
                with TemporaryDirectory() as folder, beside(busy):
                    one = command(way, Path(folder), arguments.limit, arguments.evaluations)
                found[way.name, busy].append(one)
                print(f"{way.name}, {busy} busy: {one['search']:.1f} s, {one['command']:.1f} s", file=sys.stderr)
    alone = products(1)
    figures = compared(found, every) | {"limit": {n: products(n) / alone for n in arguments.workers}}
    if arguments.json:
        print(json.dumps(figures))
        return
    titles = ("busy", "eval/s", "speed-up", "command s", "speed-up", "x quiet", "MiB/worker")
    print(f"{'':24}" + "".join(f"{title:>11}" for title in titles))
    for row in figures["figures"]:
        values = (
            row["busy"],
            row["evaluations_per_second"],
            row["search_speedup"],
            row["command_seconds"],
            row["command_speedup"],
            row["over_quiet"],
            row["worker_mib"],
        )
        print(f"{row['way']:24}" + "".join(f"{value:11.3g}" for value in values))
    limits = ", ".join(f"{n}: {limit:.2f}" for n, limit in figures["limit"].items())
    print(f"limit by products alone, per number of processes: {limits}")
    same = "the same" if figures["same"] else "DIFFERENT"
    print(f"speed-ups over {figures['reference']}; {figures['cores']} cores; results {same}, all verified")


if __name__ == "__main__":
    main()
