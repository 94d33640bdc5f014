"""How far every strategy is from the minimal budget after 50, 200 and 1000 evaluations of 4096 masks.

    PYTHONPATH=tests python tests/search/measure.py [--seeds 20] [--batch 32] [--strategies auto,local] [--units 12]

One line a landscape and strategy: mean gap in units at each point, the largest gaps, and seconds per thousand
evaluations. Above 20 units the minimal budget is not known, and the mean cost is shown instead.
"""

import argparse
import time

import numpy as np

from oracle.search import STRATEGIES
from oracle.testing.landscapes import LANDSCAPES, gaps, run

POINTS = (50, 200, 1000)
GUIDED = ("influence", "dp")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--units", type=int, default=12)
    parser.add_argument("--strategies", default=",".join(name for name in STRATEGIES if name not in GUIDED))
    arguments = parser.parse_args()
    for name, landscape in LANDSCAPES.items():
        for strategy in arguments.strategies.split(","):
            began, found, evaluations = time.perf_counter(), [], 0
            for seed in range(arguments.seeds):
                one = landscape(seed, arguments.units)
                problem = one.problem(seed)
                search = STRATEGIES[strategy](problem)
                if arguments.units > 20:
                    costs = run(one, search, POINTS[-1], arguments.batch)
                    found.append([costs[min(point, len(costs)) - 1] for point in POINTS])
                else:
                    found.append(gaps(one, search, POINTS, arguments.batch))
                evaluations += len(problem.archive)
            seconds = 1000 * (time.perf_counter() - began) / evaluations
            means, worst = np.mean(found, axis=0), np.max(found, axis=0)
            print(f"{name:10} {strategy:12} {means.round(2)!s:20} {worst!s:14} {seconds:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
