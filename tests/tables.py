"""Synthetic runs whose qualities are given as a table."""

import numpy as np
import pandas as pd

from analysis import Experiment

__all__ = ["judged"]


def judged(seen_NKR: np.ndarray, **changes: object) -> Experiment:
    """A run of N sequences with K evaluations, of costs 0 to K - 1, whose R references score them as a table says.

    An output's text names its sequence and evaluation, a reference's its sequence and number; the best one counts.
    """
    N, K, R = seen_NKR.shape

    def score(text: str, references: tuple[str, ...]) -> float:
        n, k = map(int, text.split())
        return float(max(seen_NKR[n, k, int(reference.split()[1])] for reference in references))

    names = [f"s{n:04d}" for n in range(N)]
    sequences = pd.DataFrame(
        {
            "sequence": names,
            "task": [("a", "b")[n % 2] for n in range(N)],
            "references": [[f"{n} {r}" for r in range(R)] for n in range(N)],
            "prompt_tokens": 5,
        }
    )
    rows = [
        {
            "sequence": names[n],
            # The full model comes first.
            "number": K - 1 - k,
            "family": "full" if k == K - 1 else "random",
            "allocation": list(range(k)),
            "cost": k,
            "text": f"{n} {k}",
            "quality": float(seen_NKR[n, k].max()),
        }
        for n in range(N)
        for k in reversed(range(K))
    ]
    settings = {"unit": "layer", "metric": "quality", "kind": "text", "tolerance": 0.0, "scope": "decode"}
    given = {**settings, "floor": None, "layers": K - 1, "seed": 0, "score": score, **changes}
    return Experiment(sequences=sequences, evaluations=pd.DataFrame(rows), **given)
