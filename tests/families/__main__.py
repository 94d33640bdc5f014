"""The table of families: each family of transformers with a causal model, tiny and random, against a reference.

    make families        (or: PYTHONPATH=tests python -m families [FAMILY ...])

The reference runs the whole model, or the model cut to the allocation, once per token and without a cache. Exit code 1
if an output differs, a model crashes, or one is refused without its name or a reason.
"""

import argparse
import os
import sys
import warnings
from collections import Counter

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from families.sweep import Row, sweep
from families.tiny_families import FAMILIES

FORMAT = "{:30}  {:9}  {:>7}  {:>4}  {:>9}  {}"


def main() -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="only these (default: all)")
    wanted = parser.parse_args().families or list(FAMILIES)
    warnings.simplefilter("ignore")  # about what random models may or may not do
    print(FORMAT.format("family", "state", "outputs", "ties", "different", "reason"), flush=True)
    rows = []
    for family in wanted:
        rows.append(row := sweep(family))
        print(
            FORMAT.format(
                family, row.state, row.outputs, row.ties, len(row.different), row.why or "; ".join(row.different[:2])
            ),
            flush=True,
        )
    return _counts(rows)


def _counts(rows: list[Row]) -> int:
    states = Counter(row.state for row in rows)
    different = sum(len(row.different) for row in rows)
    counted = ", ".join(f"{count} {state}" for state, count in states.most_common())
    outputs, ties = sum(row.outputs for row in rows), sum(row.ties for row in rows)
    print(f"\n{len(rows)} families: {counted}; {outputs} outputs, {different} differences, {ties} near-ties")
    return 1 if different or states["crashed"] else 0


if __name__ == "__main__":
    sys.exit(main())
