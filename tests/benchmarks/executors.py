"""What a second worker brings: the same search on one and on two Ray workers of one thread each.

python tests/benchmarks/executors.py [--json] [--limit 96] [--evaluations 30] [--repeats 1]
"""

import argparse
import json
import os
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest import mock

from oracle.config import SearchConfig
from oracle.executors import Workers
from oracle.pipeline.run import run_search
from oracle.store import Run


def search(config: SearchConfig, folder: Path, count: int) -> Run:
    """One search; its own seconds begin when all workers have their model."""
    return run_search(config, folder, workers=Workers(kind="ray", count=count, threads=1))


def main() -> None:
    """Searches in turn with one and two workers and prints the seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--limit", type=int, default=96, help="sequences: the first waves are too small for many")
    parser.add_argument("--evaluations", type=int, default=30, help="per sequence")
    parser.add_argument("--repeats", type=int, default=1, help="searches of each kind, in turn")
    arguments = parser.parse_args()
    config = SearchConfig(limit=arguments.limit, evaluations=arguments.evaluations)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    rows = []
    for repeat in range(arguments.repeats):
        for count, found in seconds.items():
            with (
                TemporaryDirectory() as folder,
                mock.patch.dict(os.environ, LAYER_ORACLE_HIDDEN=str(Path(folder) / "hidden")),
            ):
                run = search(config, Path(folder) / f"{repeat}-{count}", count)
                found.append(run.summary()["search_seconds"])
                rows.append(run.evaluations().drop(columns="margin").map(repr).to_dict("records"))
    figures = {
        "one_worker_seconds": seconds[1],
        "two_workers_seconds": seconds[2],
        "speedup_of_two_workers": median(seconds[1]) / median(seconds[2]),
        "same_evaluations": all(row == rows[0] for row in rows),
    }
    print(json.dumps(figures, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
