"""`python -m faults`: tries every fault and prints a table. Exit code 1 if anything was lost."""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from faults import damage, disks, fuzz, hostile, kills, memory, overhead, rays
from faults.ground import Fault, Ground

__all__ = ["FAULTS"]

FAULTS = [fault for kind in (kills, damage, disks, memory, rays, fuzz, hostile, overhead) for fault in kind.FAULTS]


def main() -> int:
    """Tries the faults that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--only", metavar="NAME", default="", help="faults whose name holds this")
    parser.add_argument("--quick", action="store_true", help="few times each, and not those that take long")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    arguments = parser.parse_args()
    console, began, all_lost = Console(), time.monotonic(), 0
    if not console.is_terminal:
        console = Console(width=120)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("fault", no_wrap=True)
    for heading in ("tried", "survived", "lost", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    with tempfile.TemporaryDirectory(prefix="layer-oracle-faults-") as folder:
        ground = Ground(folder=Path(folder), random=random.Random(arguments.seed))
        for fault in FAULTS:
            times = fault.quick if arguments.quick else fault.times
            if times and arguments.only in fault.name:
                all_lost += attempt(fault, times, ground, table, console)
    console.print(table)
    console.print(f"{time.monotonic() - began:.0f} s; lost: {all_lost}")
    return 1 if all_lost else 0


def attempt(fault: Fault, times: int, ground: Ground, table: Table, console: Console) -> int:
    """Tries one fault, shows how it goes, and adds a line to the table; how often something was lost."""
    began, tried, lost = time.monotonic(), 0, 0
    with console.status(fault.name) as status:
        for what in fault.tries(ground, times):
            tried, lost = tried + 1, lost + (what is not None)
            if what is not None:
                console.print(Text(f"{fault.name}: {what}", style="red"))
            status.update(Text(f"{fault.name}: {tried} of {times}"))
    note = ground.notes.get(fault.name, "") if tried else "not possible on this machine"
    counts = (str(count) for count in (tried, tried - lost, lost))
    table.add_row(Text(fault.name), *counts, f"{time.monotonic() - began:.0f}", Text(note))
    if not console.is_terminal:
        print(f"{fault.name}: {tried} tried, {lost} lost", file=sys.stderr, flush=True)
    return lost


if __name__ == "__main__":
    sys.exit(main())
