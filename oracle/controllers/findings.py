"""Quality against executed fraction of a controller's sweep, and two sweeps compared at equal fraction.

Shapes: N sequences.
"""

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import mean_interval
from oracle.controllers.glavas import SHAPES, GlavasFixed, GlavasHidden
from oracle.controllers.ledger import Ledger
from oracle.controllers.subject import Subject
from oracle.controllers.trial import Result

__all__ = ["Curves"]

RESAMPLES = 2000


class Curves:
    """The sweeps of a comparison.

    Args:
        subject: the run.
        ledger: knows the full model and the empty mask, where every curve ends.
        results: of all controllers and settings.
    """

    def __init__(self, subject: Subject, ledger: Ledger, results: Seq[Result]) -> None:
        self._results = results
        full = tuple(range(subject.units))
        ends_N2 = ledger.qualities(subject.ids, [(), full])
        self._ends = [(0.0, ends_N2[:, 0]), (1.0, ends_N2[:, 1])]

    def points(self, controller: str, **settings: Any) -> list[tuple[float, NDArray[np.float64]]]:
        """Mean fractions and qualities of each sequence, over the settings that agree with these, and both ends."""
        return [*self._ends, *(_point(one) for one in self._matching(controller, settings))]

    def _matching(self, controller: str, settings: dict[str, Any]) -> list[Result]:
        return [
            one for one in self._results if (one.controller == controller and settings.items() <= one.settings.items())
        ]

    def findings(self, seed: int) -> list[dict[str, Any]]:
        """What a gate gains from seeing the hidden state: for each shape the mean difference in quality.

        A gate with a fixed input is one learned mask; Glavas et al. 2024 (arXiv 2410.20022) found it about as good. At
        the fraction of each gate that sees hidden states, the quality of the fixed ones is read off their curve, linear
        between neighbours; the differences are averaged over the sweep and then over sequences.

        Args:
            seed: of the bootstrap over sequences.

        Returns:
            For each shape that both kinds were tried with: `shape`, `difference` (hidden minus fixed, in units of the
            metric), `low` and `high` (95 % interval; None for a single sequence), `settings` (how many), `fraction`
            (the mean over them).
        """
        found = []
        for shape in SHAPES:
            hidden = self._matching(GlavasHidden.name, {"shape": shape})
            if not hidden or not self._matching(GlavasFixed.name, {"shape": shape}):
                continue
            fixed = sorted(self.points(GlavasFixed.name, shape=shape), key=lambda point: point[0])
            at, qualities = [fraction for fraction, _ in fixed], np.stack([quality_N for _, quality_N in fixed])
            differences = []
            for fraction, quality_N in map(_point, hidden):
                differences.append(quality_N - [np.interp(fraction, at, column) for column in qualities.T])
            mean_N = np.mean(differences, axis=0)
            low, high = mean_interval(mean_N, resamples=RESAMPLES, seed=seed) or (None, None)
            found.append(
                {
                    "shape": shape,
                    "difference": float(mean_N.mean()),
                    "low": low,
                    "high": high,
                    "settings": len(hidden),
                    "fraction": float(np.mean([_point(one)[0] for one in hidden])),
                }
            )
        return found


def _point(result: Result) -> tuple[float, NDArray[np.float64]]:
    return float(result.rows["fraction"].mean()), result.rows["quality"].to_numpy(np.float64)
