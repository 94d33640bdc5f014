"""One criterion with one slack, in the search, the analyses, the SQL and the export."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from random_runs import UNITS, complete_run
from tables import judged
from tiny import LAYERS

from analysis import budgets
from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.export import export
from oracle.metrics import SLACK, get_metric, least_quality, qualifies
from oracle.metrics.bounds import Bound
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


@pytest.mark.parametrize(("short", "meets"), [(0.0, True), (SHORT, True), (TOO_SHORT, False)])
@pytest.mark.parametrize("tolerance", [0.0, 0.125])
def test_stored_runs_are_read_by_the_same_criterion(
    short: float, meets: bool, tolerance: float, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    """The table of minimal budgets in SQL and `to_frame`, the query of allocations in SQL, and both kinds of export."""
    full, found, least = tuple(range(UNITS)), 0.75 - tolerance - short, (1, 0)
    # A layer path that labels cannot express: the export falls back on the mask of 3 layers, if that qualifies.
    tried = {"s0": [(full, 0.75), ((0, 1, 2), found)], "s1": [(full, 0.75), (least, 0.8), ((0, 1, 2), found)]}
    run = complete_run(tmp_path / "run", tried, tolerance=tolerance)
    upper = {"s0": 3 if meets else UNITS, "s1": 2}
    assert run.query("FROM minimal_budgets").set_index("sequence")["upper"].to_dict() == upper
    assert run.to_frame().set_index("sequence")["upper"].to_dict() == upper
    _, out, _ = command("query", run.folder, "--allocations", 9, "--json")
    served = {tuple(row["allocation"]): row["sequences"] for row in json.loads(out)["allocations"]}
    assert served == {full: 2, least: 1} | ({(0, 1, 2): 2} if meets else {})
    export(run, "jsonl", tmp_path / "json")
    rows = [json.loads(line) for line in (tmp_path / "json" / "sequences.jsonl").read_text().splitlines()]
    assert {row["sequence"]: row["upper"] for row in rows} == upper
    export(run, "drllm", tmp_path / "labels")
    rows = [json.loads(line) for line in (tmp_path / "labels" / "labels.jsonl").read_text().splitlines()]
    expected = [1, 1, 1, 0, 0] if meets else [1] * UNITS
    assert [row["optimal_layer_config"] for row in rows] == [expected, expected]


class Constant(Bound):
    """The same bound for every output."""

    def __init__(self, value: float) -> None:
        self.value = value

    def upper(self, tokens: object, text: str, remaining: int) -> float:
        return self.value


@pytest.mark.parametrize(("short", "meets"), [(0.0, True), (SHORT, True), (TOO_SHORT, False)])
def test_the_engine_drops_only_outputs_below_the_same_criterion(short: float, meets: bool, tiny_model) -> None:
    engine = Engine(tiny_model, SearchConfig(max_new_tokens=3))
    prompt = engine.open("Question 1?")
    archive = Archive(Space.of(LAYERS), "quality")
    archive.add([outcome(LAYERS, 0.7)])
    [(generation, _)] = engine.generate([(prompt, (0, 1))], [(Constant(0.7 - short), archive.least)])
    assert generation.dropped is not meets


def test_the_slack_is_far_above_rounding_and_far_below_a_step_of_a_metric() -> None:
    """Sums along other ways differ by 1e-15; texts of a thousand words differ by at least 1e-7 in ROUGE-L."""
    values = np.random.default_rng(0).random(1000)
    assert abs(values.sum() / 1000 - np.mean(values[::-1])) < SLACK / 1e3
    words = [f"w{word}" for word in range(1000)]
    whole, one_less = (score_text("rougeL", " ".join(text), (" ".join(words),)) for text in (words, words[:-1]))
    assert whole - one_less > 1e3 * SLACK
    assert get_metric("rougeL").floor == 0.0
