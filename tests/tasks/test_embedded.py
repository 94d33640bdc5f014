"""The project's own items in the form of GSM8K, MMLU and ARC, end to end on the embedded model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from oracle.store import Run

pytest.importorskip("lm_eval.api", reason="the extra lm-eval is not installed")

ROOT = Path(__file__).resolve().parents[2]

SETS = [
    ("gsm_own", 4, ("--num-fewshot", "1"), "lm-eval:exact_match,strict-match"),
    ("mmlu_own", 24, ("--scope", "decode-last"), "lm-eval:acc"),
    ("arc_own", 24, ("--criterion", "lm-eval:acc_norm"), "lm-eval:acc_norm"),
]


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize(("task", "count", "extra", "criterion"), SETS)
def test_own_items_are_searched_and_evaluated(
    command: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    count: int,
    extra: tuple[str, ...],
    criterion: str,
) -> None:
    monkeypatch.chdir(ROOT)
    given = ("--include-path", "data/tasks", "--quiet", "--device", "cpu")
    out = tmp_path / "run"
    settings = ("--limit", count, "--evaluations", 6, "--no-figures", "--out", out, "--json")
    code, text, error = command("search", "--data", f"lm-eval:{task}", *given, *settings, *extra)
    assert (code, error) == (0, "")
    summary = json.loads(text)
    assert summary["sequences"] == count and summary["verified"] == summary["verified_of"]
    run = Run.open(out)
    assert run.manifest["config"]["criterion"] == criterion
    evaluations = run.evaluations()
    full = evaluations[evaluations["number"] == 0][criterion].mean()
    shots = extra if task == "gsm_own" else ()
    code, text, error = command("eval", out, "--tasks", task, *given, *shots, "--limit", count, "--json")
    assert (code, error) == (0, "")
    metric, _, filter_name = criterion.partition(":")[2].partition(",")
    [value] = [
        row["value"]
        for row in json.loads(text)["scores"]
        if (row["metric"], row["filter"]) == (metric, filter_name or "none")
    ]
    assert value == pytest.approx(full)
