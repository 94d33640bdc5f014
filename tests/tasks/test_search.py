"""Searches over tasks: what the full model scores is what the harness's own model scores, document by document."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analysis
from oracle.config import SearchConfig
from oracle.pipeline.run import run_search
from oracle.store import Run
from oracle.tasks import TaskOptions

pytest.importorskip("lm_eval.api", reason="the extra lm-eval is not installed")


@pytest.fixture(scope="module")
def searched(roomy: Path, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Searches six documents of a task."""

    def run(name: str, *, options: dict[str, Any] | None = None, **changes: Any) -> Run:
        wanted = TaskOptions(include_path=(str(tasks),), **(options or {}))
        settings = {"criterion": "lm-eval", "limit": 6, "evaluations": 12, "strategy": "spread", **changes}
        config = SearchConfig(model=str(roomy), data=f"lm-eval:{name}", task_options=wanted, device="cpu", **settings)
        return run_search(config, tmp_path_factory.mktemp("runs") / name)

    return run


def full_model(run: Run) -> Any:
    evaluations = run.evaluations()
    return evaluations[evaluations["number"] == 0].set_index("sequence").sort_index()


SEARCHES = [
    ("gsm_like", {"max_new_tokens": 12, "task_options_own": ("stop",)}, "exact_match", "strict-match"),
    ("arc_like", {}, "acc", "none"),
    ("arc_like", {"criterion": "lm-eval:acc_norm", "scope": "decode-last"}, "acc_norm", "none"),
    ("lambada_like", {}, "acc", "none"),
]


@pytest.mark.parametrize(("name", "changes", "metric", "filter_name"), SEARCHES, ids=lambda one: str(one)[:30])
def test_the_full_model_scores_what_the_harness_scores(
    searched: Callable[..., Run],
    by_hf: Callable[..., Any],
    name: str,
    changes: dict[str, Any],
    metric: str,
    filter_name: str,
) -> None:
    own = changes.pop("task_options_own", None)
    run = searched(name, options={"own": own} if own is not None else None, **changes)
    changes |= {"task_options_own": own} if own is not None else {}
    how = {"gen_kwargs": {"max_gen_toks": 12}} if name == "gsm_like" else {}
    samples = by_hf(name, **how)["samples"][name]
    expected = [one[metric] for one in samples if one["filter"] == filter_name]
    found = full_model(run)
    criterion = run.manifest["config"]["criterion"]
    assert criterion == (f"lm-eval:{metric},{filter_name}" if name == "gsm_like" else f"lm-eval:{metric}")
    assert found[criterion].tolist() == pytest.approx(expected)
    assert list(found.index) == [f"{name}-{one:05d}" for one in range(6)]
    if name == "gsm_like":
        assert 0 < sum(expected) < 6, "both right and wrong answers occur"
        texts = [one["resps"][0][0] for one in samples if one["filter"] == filter_name]
        assert found["text"].tolist() == texts
    null = run.evaluations()[f"null_{criterion}"]
    assert null.notna().all() and set(null) <= {0.0, 1.0}
    assert analysis.summarise(analysis.load(run.folder)).sequences == 6


def test_prompts_are_the_harness_s(searched: Callable[..., Run], by_hf: Callable[..., Any]) -> None:
    run = searched(
        "gsm_like", options={"num_fewshot": 1, "fewshot_seed": 7, "own": ("stop",)}, max_new_tokens=4, evaluations=2
    )
    samples = by_hf("gsm_like", num_fewshot=1, fewshot_random_seed=7, gen_kwargs={"max_gen_toks": 4})
    prompts = [one["arguments"][0][0] for one in samples["samples"]["gsm_like"] if one["filter"] == "strict-match"]
    assert run.sequences()["prompt"].tolist() == prompts
    assert prompts[0].count("Question:") == 2
    config = run.manifest["config"]
    assert config["stop"] == ["Question:", "</s>", "<|im_end|>"] and config["task_options"]["own"] == []


def test_the_value_by_luck_of_a_question_asks_for_another_place(searched: Callable[..., Run]) -> None:
    run = searched("arc_like", evaluations=6)
    found, sequences = run.evaluations(), run.sequences().set_index("sequence")
    ours = found["lm-eval:acc"].to_numpy()
    # As `Setup.partners` pairs them: where the partner's right answer has the same place, both are one value.
    answers = sequences["answer"].astype(int)
    order = np.random.default_rng(0).permutation(len(sequences))
    partner = dict(zip(order, np.roll(order, -1), strict=True))
    ids = list(sequences.index)
    same = [answers.iloc[one] == answers.iloc[partner[one]] for one in range(len(ids))]
    rows = found["sequence"].map(dict(zip(ids, same, strict=True))).to_numpy(bool)
    null = found["null_lm-eval:acc"].to_numpy()
    assert (null[rows] == ours[rows]).all()
    # At most one place is the likeliest.
    assert (null[~rows] + ours[~rows] <= 1).all() and len(null[~rows])


def test_rolling_tasks_are_searched_by_log_likelihood(searched: Callable[..., Run], by_hf: Callable[..., Any]) -> None:
    run = searched("wikitext_like")
    assert run.manifest["config"]["criterion"] == "log_likelihood"
    samples = by_hf("wikitext_like")["samples"]["wikitext_like"]
    found = full_model(run)
    lengths = run.sequences().set_index("sequence").sort_index()["reference_tokens"]
    totals = [one["word_perplexity"][0] for one in samples]
    assert (found["log_likelihood"] * lengths).tolist() == pytest.approx(totals, rel=1e-4)


def test_a_search_resumes_and_is_checked_with_its_tasks(
    searched: Callable[..., Run], command: Callable[..., tuple[int, str, str]]
) -> None:
    run = searched("arc_like", evaluations=4)
    code, _, error = command("search", "--resume", run.folder, "--no-figures", "--quiet")
    assert (
        code == 0 and error == f"oracle: note: the search of '{run.folder}' had already ended: nothing was left to do\n"
    )
    code, out, _ = command("check", run.folder, "--recompute", "2", "--quiet")
    assert code == 0 and "2 of 2 recomputed outcomes are equal" in out
    code, out, error = command("compare", run.folder, "--controllers", "unified,d3", "--no-timing", "--quiet", "--json")
    assert (code, error) == (0, "") and '"lm-eval:acc"' in out


def test_a_stored_run_is_read_without_the_harness(
    searched: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = searched("arc_like", evaluations=4)
    monkeypatch.setattr("oracle.tasks.harness.load_tasks", lambda *_: pytest.fail("nothing is loaded to read a run"))
    assert analysis.summarise(analysis.load(run.folder)).sequences == 6
