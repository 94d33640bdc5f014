"""`python -m faults`: tries every fault and prints a table. Exit code 1 if anything was lost."""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from faults import commands, damage, disks, fuzz, hostile, kills, memory, overhead, rays, sizes
from faults.ground import Fault, Ground

__all__ = ["FAULTS"]

TOGETHER = {kind.__name__: kind.FAULTS for kind in (kills, commands, damage, disks, fuzz, hostile, memory)}
"""Kinds of faults that do not disturb each other, by module: each has a process and a ground of its own."""

ALONE = {kind.__name__: kind.FAULTS for kind in (rays, overhead, sizes)}
"""Kinds that measure time or take all cores."""

FAULTS = [fault for faults in (*TOGETHER.values(), *ALONE.values()) for fault in faults]

JOBS = 2


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one fault: its name, how often it was tried, what was lost, seconds, and a note."""

    name: str
    tried: int
    lost: list[str]
    seconds: float
    note: str


def main() -> int:
    """Tries the faults that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--only", metavar="NAME", default="", help="faults whose name holds this")
    parser.add_argument("--quick", action="store_true", help="few times each, and not those that take long")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument("--kind", default="", help="only this module, and print JSON")
    parser.add_argument("--jobs", type=int, default=JOBS, help="kinds of faults that are tried at a time")
    arguments = parser.parse_args()
    console, began, all_lost = Console(), time.monotonic(), 0
    if not console.is_terminal:
        console = Console(width=120)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("fault", no_wrap=True)
    for heading in ("tried", "survived", "lost", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    if arguments.kind:
        rows = attempt_all(arguments.kind, arguments.only, arguments.quick, arguments.seed)
        print(json.dumps([asdict(row) for row in rows]))
        return 0
    asked = ["--only", arguments.only, "--seed", str(arguments.seed), *["--quick"] * arguments.quick]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for rows in pool.map(partial(in_process, asked=asked), TOGETHER):
            all_lost += show(rows, table, console)
    for kind in ALONE:
        all_lost += show(in_process(kind, asked), table, console)
    console.print(table)
    console.print(f"{time.monotonic() - began:.0f} s; lost: {all_lost}")
    return 1 if all_lost else 0


def in_process(kind: str, asked: list[str]) -> list[Row]:
    """Tries the faults of one kind in a process of its own."""
    command = [sys.executable, "-m", "faults", "--kind", kind, *asked]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        return [Row(**values) for values in json.loads(done.stdout.splitlines()[-1])]
    except (IndexError, ValueError):
        return [Row(name=kind, tried=1, lost=[f"it ends with {done.returncode}"], seconds=0, note="")]


def attempt_all(kind: str, only: str, quick: bool, seed: int) -> list[Row]:
    """Tries the faults of one kind that are asked for, on a ground of its own."""
    chosen = [
        (fault, fault.quick if quick else fault.times) for fault in (TOGETHER | ALONE)[kind] if only in fault.name
    ]
    if not any(times for _, times in chosen):
        return []
    with tempfile.TemporaryDirectory(prefix="layer-oracle-faults-") as folder:
        ground = Ground(folder=Path(folder), random=random.Random(f"{seed} {kind}"))
        return [attempt(fault, times, ground) for fault, times in chosen if times]


def attempt(fault: Fault, times: int, ground: Ground) -> Row:
    """Tries one fault, and says on standard error how it went."""
    began, tried, lost = time.monotonic(), 0, list[str]()
    for what in fault.tries(ground, times):
        tried += 1
        if what is not None:
            lost.append(what)
    print(f"{fault.name}: {tried} tried, {len(lost)} lost", file=sys.stderr, flush=True)
    note = ground.notes.get(fault.name, "") if tried else "not possible on this machine"
    return Row(name=fault.name, tried=tried, lost=lost, seconds=time.monotonic() - began, note=note)


def show(rows: list[Row], table: Table, console: Console) -> int:
    """Adds lines to the table, and prints what was lost; how often that was."""
    for row in rows:
        for what in row.lost:
            console.print(Text(f"{row.name}: {what}", style="red"))
        counts = (str(count) for count in (row.tried, row.tried - len(row.lost), len(row.lost)))
        table.add_row(Text(row.name), *counts, f"{row.seconds:.0f}", Text(row.note))
    return sum(len(row.lost) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
