"""The public interface as a user's script sees it: one convention for runs, lists, and types."""

import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import analysis
import oracle
from analysis.plots.registry import NAMES
from oracle.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(search: Callable[..., oracle.Run]) -> oracle.Run:
    return search()


OF_RUN: dict[str, Callable[[Any], Any]] = {
    "summarise": lambda one: analysis.summarise(one, bootstrap=10, permutations=1).per_sequence_interval,
    "budgets": analysis.budgets,
    "by_sequence": analysis.by_sequence,
    "savings": lambda one: analysis.savings(one, resamples=10),
    "savings_by_criterion": lambda one: analysis.savings_by_criterion(one, ["rougeL"], resamples=10),
    "oracle_curve": analysis.oracle_curve,
    "oracle_allocations": analysis.oracle_allocations,
    "progress_curve": analysis.progress_curve,
    "metric_transfer": lambda one: analysis.metric_transfer(one, bootstrap=0),
    "luck_curve": lambda one: analysis.luck_curve(one, bootstrap=10, permutations=1),
    "load": lambda one: analysis.load(one).evaluations,
    "compare": lambda one: analysis.compare({"a": one, "b": one}, informative=False, resamples=10),
    "minimal_budgets": analysis.minimal_budgets,
    "layer_use": analysis.layer_use,
    "co_occurrence": lambda one: analysis.co_occurrence(one).lift,
    "first_and_last": analysis.first_and_last,
    "policy_curves": analysis.policy_curves,
    "lost_answers": analysis.lost_answers,
    "serving_allocations": analysis.serving_allocations,
    "null_oracle": lambda one: analysis.null_oracle(one, permutations=1).per_sequence,  # type: ignore[union-attr]
    "luck_adjusted": lambda one: analysis.luck_adjusted(one, bootstrap=0),
    "rarity": lambda one: analysis.rarity(one, permutations=1, bootstrap=0).pooled,
    "quality_kept": lambda one: analysis.quality_kept(one, [0.5], resamples=0, permutations=1).rows,
    "reference_transfer": lambda one: analysis.reference_transfer(one, bootstrap=0),
    "end_to_end_fraction": lambda one: analysis.end_to_end_fraction(one, analysis.oracle_allocations(one)),
    "informative": lambda one: analysis.informative(one).sequences,
    "similarity_by_budget": lambda one: analysis.similarity_by_budget(one, bootstrap=0),
    "similarity_by_sequence": analysis.similarity_by_sequence,
    "similarity_by_token": analysis.similarity_by_token,
    "what_makes_cheap": lambda one: analysis.what_makes_cheap(one, bootstrap=0).correlations,
    "write_report": lambda one: analysis.write_report(one).read_bytes(),
    "draw_all": lambda one: [each.name for each in analysis.draw_all(one, "drawn", names=["minimal_budgets"])],
    "Run.open": lambda one: oracle.Run.open(one).evaluations(),
}

DIFFERENT = {"Run.open"}
"""Of `OF_RUN`, those that are no functions of `analysis`."""


def forms(run: oracle.Run) -> list[Any]:
    """Everything that stands for a run."""
    return [run, run.folder, str(run.folder), analysis.load(run), analysis.Source.open(run)]


def outcome(call: Callable[[Any], Any], one: Any) -> Any:
    """The result, or the line in which a small random run is refused."""
    try:
        return call(one)
    except InputError as error:
        return f"refused: {error}"


@pytest.mark.parametrize("name", OF_RUN)
def test_whatever_stands_for_a_run_is_taken(
    name: str, run: oracle.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, *others = (outcome(OF_RUN[name], one) for one in forms(run))
    for other in others:
        if isinstance(first, pd.DataFrame):
            pd.testing.assert_frame_equal(first, other)
        else:
            assert repr(first) == repr(other)


def test_every_function_of_the_analysis_takes_a_run() -> None:
    functions = {name for name in analysis.__all__ if inspect.isfunction(getattr(analysis, name))}
    assert functions == set(OF_RUN) - DIFFERENT


@pytest.mark.parametrize("figure", NAMES)
def test_every_figure_takes_whatever_stands_for_a_run(figure: str, run: oracle.Run) -> None:
    first, *others = (outcome(lambda one: analysis.plots.caption(figure, one), one) for one in forms(run))
    assert others == [first] * len(others)
    for one in forms(run):
        drawn = outcome(getattr(analysis.plots, figure), one)
        assert drawn == first if first.startswith("refused") else isinstance(drawn, Axes)
    plt.close("all")


@pytest.mark.parametrize("name", OF_RUN)
@pytest.mark.parametrize("wrong", [3, None, ["runs/demo", "runs/demo"], pd.DataFrame({"a": [1]})], ids=str)
def test_what_is_no_run_is_refused_in_one_line(name: str, wrong: Any) -> None:
    if isinstance(wrong, list) and name == "draw_all":
        pytest.skip("it takes several runs")
    if isinstance(wrong, pd.DataFrame) and name.startswith("similarity"):
        pytest.skip("it takes tables")
    with pytest.raises(InputError, match=r"^a single run is required") as caught:
        OF_RUN[name](wrong)
    assert "\n" not in str(caught.value)


def test_runs_are_compared_one_after_the_other_or_in_a_list(run: oracle.Run) -> None:
    wanted = {"informative": False, "resamples": 10}
    first = analysis.compare([run, run.folder], **wanted)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(analysis.compare(run, run.folder, **wanted), first)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not in both ways"):
        analysis.compare([run, run], run)


def test_all_figures_of_runs_by_label_are_drawn_at_once(run: oracle.Run, tmp_path: Path) -> None:
    drawn = analysis.draw_all({"a": run, "b": str(run.folder)}, tmp_path, names=["minimal_budgets"])
    assert (tmp_path / "minimal_budgets.png").is_file() == (drawn[0].skipped is None)
    with pytest.raises(InputError, match="have their labels already"):
        analysis.draw_all({"a": run}, tmp_path, labels=["b"])


def test_an_experiment_keeps_what_was_measured_of_its_run(run: oracle.Run) -> None:
    experiment = analysis.load(run)
    assert outcome(analysis.plots.throughput, experiment) == outcome(analysis.plots.throughput, run.folder)
    assert str(run.folder) in outcome(analysis.plots.throughput, experiment)


def test_a_search_starts_from_a_run(run: oracle.Run, search: Callable[..., oracle.Run]) -> None:
    found = [search(prior=one).manifest["continues"]["run"] for one in (run, str(run.folder))]
    assert found == [str(run.folder)] * 2
    assert oracle.resume_search(run).folder == run.folder


def test_an_experiment_of_no_run_names_the_need(run: oracle.Run) -> None:
    with pytest.raises(InputError, match="a stored run is required"):
        analysis.load(replace(analysis.load(run), folder=None))


SINGLE: dict[str, Callable[[Any], Any]] = {
    "tasks": lambda run: oracle.SearchConfig(tasks="facts"),  # type: ignore[arg-type]
    "metrics": lambda run: oracle.SearchConfig(metrics="contains"),  # type: ignore[arg-type]
    "stop": lambda run: oracle.SearchConfig(stop="x"),  # type: ignore[arg-type]
    "references": lambda run: oracle.Columns(references="a"),  # type: ignore[arg-type]
    "load_sequences": lambda run: oracle.load_sequences("instruct", tasks="facts"),  # type: ignore[arg-type]
    "reference_files": lambda run: oracle.load_sequences("a.txt", reference_files="b"),  # type: ignore[arg-type]
    "by": lambda run: analysis.savings(run, by="task"),
    "criteria": lambda run: analysis.savings_by_criterion(run, "rougeL"),
    "names": lambda run: analysis.draw_all([], "x", names="rarity"),
    "only": lambda run: analysis.load(run).only("s0"),
    "labels": lambda run: analysis.draw_all([run, run], "x", labels="a"),
    "formats": lambda run: analysis.plots.FigureConfig(formats="pdf"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_text_where_a_list_is_wanted_is_an_error(name: str, run: oracle.Run) -> None:
    with pytest.raises(InputError, match=r"must be a (list|tuple) of \w+, not the (single )?text .*: write"):
        SINGLE[name](run)


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "quality_kept": lambda run: analysis.quality_kept(run, 0.5),  # type: ignore[arg-type]
    "oracle_curve": lambda run: analysis.oracle_curve(run, 0.5),  # type: ignore[arg-type]
    "serving_allocations": lambda run: analysis.serving_allocations(run, shares=0.5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_single_number_where_a_list_is_wanted_is_an_error(name: str, run: oracle.Run) -> None:
    with pytest.raises(InputError, match=r"must be a list, not the single 0\.5: write \[0\.5\]$"):
        NUMBERS[name](run)


def test_fractions_of_the_budget_may_be_an_array(run: oracle.Run) -> None:
    kept = analysis.quality_kept(run, np.array([0.5, 1.0]), resamples=0)  # type: ignore[arg-type]
    assert "budget=1" in set(kept.rows["setting"])
    with pytest.raises(InputError, match="from 0 to 1, not \\['half'\\]"):
        analysis.quality_kept(run, ["half"])  # type: ignore[list-item]


def test_an_unknown_sequence_or_column_names_the_nearest(run: oracle.Run) -> None:
    with pytest.raises(InputError, match=r"^no sequence of the run is called 's44'; nearest: 's4'$"):
        analysis.load(run).only(["s0", "s44"])
    with pytest.raises(InputError, match=r"got \['tsk'\]; nearest: 'task'$"):
        analysis.savings(run, by=["tsk"])


NAMELESS = {
    "analysis.summarize": "module 'analysis' has no attribute 'summarize'; nearest: 'summarise'",
    "oracle.load": "module 'oracle' has no attribute 'load'; it is in analysis: analysis.load",
    "analysis.Run": "module 'analysis' has no attribute 'Run'; it is in oracle: oracle.Run",
    "analysis.caption": "module 'analysis' has no attribute 'caption'; it is in analysis.plots: analysis.plots.caption",
    "oracle.compare_run": (
        "module 'oracle' has no attribute 'compare_run'; it is in oracle.controllers: oracle.controllers.compare_run"
    ),
    "oracle.SearchConfg": "module 'oracle' has no attribute 'SearchConfg'; nearest: 'SearchConfig'",
    "oracle.qqqq": "module 'oracle' has no attribute 'qqqq'; dir(oracle) lists its names",
    "oracle.__wrapped__": "module 'oracle' has no attribute '__wrapped__'",
}


@pytest.mark.parametrize("name", NAMELESS)
def test_an_unknown_name_leads_to_the_known_one(name: str) -> None:
    package, _, attribute = name.partition(".")
    module = {"oracle": oracle, "analysis": analysis}[package]
    with pytest.raises(AttributeError) as caught:
        getattr(module, attribute)
    assert str(caught.value) == NAMELESS[name]


UNKNOWN: dict[str, tuple[Callable[[], Any], str]] = {
    "evaluation": (
        lambda: oracle.SearchConfig(evaluation=20),  # type: ignore[call-arg]
        "SearchConfig has no setting 'evaluation'; nearest: 'evaluations'; settings: model, data,",
    ),
    "replaced": (
        lambda: replace(oracle.SearchConfig(), limits=3),  # type: ignore[call-arg]
        "SearchConfig has no setting 'limits'; nearest: 'limit'; ",
    ),
    "preset": (
        lambda: oracle.preset_config("gsm8k", limits=3),
        "SearchConfig has no setting 'limits'; nearest: 'limit'",
    ),
    "unnamed": (
        lambda: oracle.SearchConfig("gsm8k"),  # type: ignore[misc]
        "SearchConfig takes settings by name, as in SearchConfig(model=...), not 'gsm8k' without one",
    ),
    "columns": (lambda: oracle.Columns(promt="q"), "Columns has no setting 'promt'; nearest: 'prompt'"),  # type: ignore[call-arg]
    "layout": (lambda: oracle.Layout(fromat="csv"), "Layout has no setting 'fromat'; nearest: 'format'"),  # type: ignore[call-arg]
    "figures": (
        lambda: analysis.plots.FigureConfig(fontsize=8),  # type: ignore[call-arg]
        "FigureConfig has no setting 'fontsize'; nearest: 'font_size'",
    ),
    "figure's width": (
        lambda: analysis.plots.FigureConfig(width="3.25"),  # type: ignore[arg-type]
        "the setting width must be of type float, not '3.25'",
    ),
    "run": (lambda: oracle.Run("runs/demo"), "a stored run is opened with Run.open('runs/demo'), not with Run(...)"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_settings_are_an_error_of_one_line(name: str) -> None:
    call, expected = UNKNOWN[name]
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_settings_keep_their_signature() -> None:
    assert "evaluations" in inspect.signature(oracle.SearchConfig).parameters


def test_an_experiment_shows_itself_in_one_line_and_in_a_notebook(run: oracle.Run) -> None:
    experiment = analysis.load(run)
    counts = f"{len(experiment.sequences)} sequences, {len(experiment.evaluations)} evaluations"
    assert repr(experiment).startswith(f"Experiment({counts}, {run.units} layers; rougeL of the full model")
    assert str(run.folder) in repr(experiment) and len(repr(analysis.Source.open(run)).splitlines()) == 1
    assert "\n" not in repr(experiment)
    shown = experiment._repr_html_()
    assert "<table>" in shown and str(run.manifest["model"]["id"]) in shown and run.folder.name in shown


RESULTS: dict[str, Callable[[Any], Any]] = {
    "CoOccurrence": analysis.co_occurrence,
    "EqualQuality": lambda run: analysis.summarise(run, bootstrap=0, permutations=0).oracle,
    "Frontier": lambda run: analysis.summarise(run, bootstrap=0, permutations=0).oracle.frontier,
    "Kept": lambda run: analysis.quality_kept(run, [0.5], resamples=0, permutations=1),
    "LuckAdjusted": lambda run: analysis.luck_adjusted(run, bootstrap=0),
    "NullOracle": lambda run: analysis.null_oracle(run, permutations=1),
    "Rarity": lambda run: analysis.rarity(run, permutations=1, bootstrap=0),
    "Summary": lambda run: analysis.summarise(run, bootstrap=0, permutations=0),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_show_themselves_in_one_line(name: str, run: oracle.Run) -> None:
    result = RESULTS[name](run)
    assert type(result).__name__ == name
    assert repr(result).startswith(f"{name}(") and "\n" not in repr(result) and len(repr(result)) < 1000


def test_tables_of_a_result_are_tables_in_a_notebook(run: oracle.Run) -> None:
    kept = RESULTS["Kept"](run)
    assert f"rows=<table of {len(kept.rows)} rows: method, setting, over, task, ...>" in repr(kept)
    shown = kept._repr_html_()
    assert "full model" in shown and "rows=" not in shown and "metric" in shown


def test_a_missing_table_names_the_tables_there_are(run: oracle.Run) -> None:
    assert run.complete
    with pytest.raises(InputError) as caught:
        run.table("budgets")
    assert "has no budgets; nearest: 'minimal_budgets'; its tables: assignment, minimal_budgets" in str(caught.value)
    assert "did not end" not in str(caught.value)
    with pytest.raises(InputError, match=r"has no measures/throughput: 'oracle measure .*' writes it$"):
        run.table("measures/throughput")
    assert {"assignment", "minimal_budgets", "sequences", "verification"} <= set(run.table_names())
    for name in run.table_names():
        assert len(run.table(name))


def test_one_run_where_several_are_wanted_is_an_error(run: oracle.Run) -> None:
    for one in forms(run):
        with pytest.raises(InputError, match="runs must be a list of runs, not a single one"):
            analysis.compare(one)


SCRIPT = """
from pathlib import Path

import analysis
import oracle

config: oracle.SearchConfig = oracle.preset_config("gsm8k", limit=3)
run: oracle.Run = oracle.run_search(config, "runs/x")
read: analysis.Experiment = analysis.load(run)
for one in (run, read, "runs/x", Path("runs/x")):
    summary: analysis.Summary = analysis.summarise(one)
    print(summary.per_sequence_interval, analysis.savings(one, by=["task"]))
texts: list[str] = [sequence.prompt for sequence in oracle.load_sequences("instruct")]
reveal_type(oracle.__version__)
print(texts, run.summary()["equal_quality_fraction"])
config.limit = 3
analysis.load(3)
oracle.no_such_name
"""


def test_a_user_s_script_is_checked_by_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    packages = tmp_path / "site"
    packages.mkdir()
    for name in ("oracle", "analysis", "layer_oracle.py"):
        (packages / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "--cache-dir", "cache", "script.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("script.py")]
    assert len(found) == 4, done.stdout + done.stderr
    assert found[0].startswith("note: Revealed type is") and "str" in found[0]
    assert "read-only" in found[1] and "incompatible type" in found[2] and "no attribute" in found[3]
