"""One criterion with one slack, in the search, the analyses, the SQL and the export."""

import numpy as np
import pytest
from tables import judged

from analysis import budgets
from oracle.metrics import SLACK, get_metric, least_quality, qualifies
from oracle.metrics.text import score_text
from oracle.search import Archive, Space
from oracle.types import Outcome

SHORT, TOO_SHORT = 0.5 * SLACK, 2 * SLACK


def outcome(layers: int, quality: float) -> Outcome:
    return Outcome(
        allocation=tuple(range(layers)),
        family="random",
        tokens=(1,),
        text="",
        finished=True,
        margin=1.0,
        rerun=False,
        dropped=False,
        quality={"quality": quality},
    )


@pytest.mark.parametrize(("short", "meets"), [(0.0, True), (SHORT, True), (TOO_SHORT, False)])
@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_a_quality_within_the_slack_qualifies_everywhere(short: float, meets: bool, tolerance: float) -> None:
    full, found = 0.7, 0.7 - tolerance - short
    assert qualifies(np.array([found]), np.array([full]), tolerance).tolist() == [meets]
    assert (found >= least_quality(full, tolerance)) is meets
    archive = Archive(Space.of(4), "quality", tolerance)
    archive.add([outcome(4, full), outcome(2, found)])
    assert archive.qualifies(outcome(2, found)) is meets
    # The analysis of a run that holds just these: layers 0 to 4, of which 2 layers reach `found`.
    seen = np.array([[[0.0], [0.0], [found], [0.0], [full]]])
    assert budgets(judged(seen, tolerance=tolerance))["upper"].tolist() == [2 if meets else 4]


def test_the_slack_is_far_above_rounding_and_far_below_a_step_of_a_metric() -> None:
    """Sums along other ways differ by 1e-15; texts of a thousand words differ by at least 1e-7 in ROUGE-L."""
    values = np.random.default_rng(0).random(1000)
    assert abs(values.sum() / 1000 - np.mean(values[::-1])) < SLACK / 1e3
    words = [f"w{word}" for word in range(1000)]
    whole, one_less = (score_text("rougeL", " ".join(text), (" ".join(words),)) for text in (words, words[:-1]))
    assert whole - one_less > 1e3 * SLACK
    assert get_metric("rougeL").floor == 0.0
