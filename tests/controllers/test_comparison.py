"""`oracle compare`, end to end on a tiny run."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.knapsack.frontier import oracle_frontier
from analysis.knapsack.items import quality_by_cost
from oracle.allocations import compact, parse, published_unified
from oracle.controllers import compare_run
from oracle.controllers.base import Controller
from oracle.controllers.comparison import SCHEMA
from oracle.controllers.cross_validation import parts
from oracle.controllers.headroom import Frontiers, captured
from oracle.controllers.methods import gate_training as training
from oracle.controllers.methods.static import StaticBest
from oracle.controllers.registry import CONTROLLERS
from oracle.controllers.run_context import RunContext
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.store import Run
from oracle.utils.cores import Cores
from oracle.utils.process_pool import ProcessPool

pytestmark = pytest.mark.slow

SOME = "full,static,oracle,unified,ridge"


@pytest.fixture
def copy(small_run: Run, tmp_path: Path) -> Path:
    return shutil.copytree(small_run.folder, tmp_path / "run")


def test_every_controller_has_its_rows(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Plan", partial(training.Plan, steps=4))
    found = compare_run(copy, timed=False)
    expected = [(name, len(kind.sweep(5))) for name, kind in CONTROLLERS.items()]
    counts = found.rows.groupby("controller", sort=False).size()
    assert list(counts.items()) == expected
    stored = pd.read_parquet(found.path)
    assert found.path == copy / "controllers" / "comparison.parquet"
    assert list(stored.columns) == SCHEMA.names
    pd.testing.assert_frame_equal(stored, found.rows)
    assert {(one["shape"], one["decision"]) for one in found.findings} == {
        (shape, decision) for shape in ("linear", "mlp") for decision in ("sample", "argmax")
    }
    assert all((one["sequences"], one["steps"]) == (6, 4) and one["alphas"] for one in found.findings)
    assert all(one["low"] <= one["difference"] <= one["high"] for one in found.findings)
    rows = found.rows.set_index(["controller", "setting"])
    full = rows.loc[("full", "")]
    assert (full["executed_fraction"], full["quality"], full["flops_fraction"]) == (1.0, 1.0, 1.0)
    summary = Run.open(copy).summary()
    replayed = rows.loc[("oracle", "policy=equal_quality")]
    assert replayed["executed_fraction"] == pytest.approx(summary["equal_quality_fraction"])
    assert replayed["quality"] >= summary["full_quality"] - 1e-9
    assert (rows["static_quality"] <= rows["mixed_quality"] + 1e-9).all()
    assert rows["tokens_per_second_8"].isna().all()


def test_what_is_finished_is_not_done_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare_run(copy, controllers=SOME, timed=False)

    def refuse(*arguments: object) -> None:
        raise AssertionError("it was there")

    monkeypatch.setattr(Controller, "generate", refuse)
    again = compare_run(copy, controllers=SOME, timed=False)
    pd.testing.assert_frame_equal(first.rows, again.rows)
    with pytest.raises(AssertionError, match="it was there"):
        compare_run(copy, controllers=SOME, timed=False, limit=4)
    [stored] = (copy / "controllers").glob("*/full.parquet")
    stored.write_bytes(b"x")
    with pytest.raises(AssertionError, match="it was there"):
        compare_run(copy, controllers=SOME, timed=False)


@pytest.mark.parametrize("name", [name for name, kind in CONTROLLERS.items() if kind.folds_apart])
def test_folds_in_processes_of_their_own_give_the_same_results(
    name: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "Plan", partial(training.Plan, steps=2))
    forked, apart = ProcessPool.run, []

    def counted(self: ProcessPool, waiting, request):
        apart.append(len(waiting))
        return forked(self, waiting, request)

    monkeypatch.setattr(ProcessPool, "run", counted)
    found = []
    for workers in (3, 1):
        monkeypatch.setattr(Cores, "workers", workers)
        found.append(compare_run(copy, controllers=name, timed=False).rows)
        assert (CONTROLLERS[name].folds in apart) == (workers == 3)
        shutil.rmtree(copy / "controllers")
        apart.clear()
    pd.testing.assert_frame_equal(*found)


def test_no_controller_is_scored_on_its_training_sequences(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, set[str]]] = []
    for kind in CONTROLLERS.values():
        if not kind.learns:
            continue

        def spy(self: Controller, training_set, _fit=kind.fit) -> None:
            self.taught = set(training_set.ids)
            _fit(self, training_set)

        monkeypatch.setattr(kind, "fit", spy)
    generate = Controller.generate

    def watched(self: Controller, prompts):
        seen.append((self.name, {prompt.text for prompt in prompts}))
        if hasattr(self, "taught"):
            texts = {sequence.prompt for sequence in sequences if sequence.id in self.taught}
            assert not texts & seen[-1][1]
            assert len(texts) + len(seen[-1][1]) == 6
        return generate(self, prompts)

    from oracle.controllers.run_context import RunContext

    sequences = RunContext.open(copy).sequences
    monkeypatch.setattr(Controller, "generate", watched)
    compare_run(copy, controllers="static,adainfer,ridge,router", timed=False)
    assert {name for name, _ in seen} == {"full", "static", "adainfer", "ridge", "router"}


def test_speeds_are_measured(copy: Path) -> None:
    found = compare_run(copy, controllers="full,unified", limit=4)
    rows = found.rows
    for batch in (1, 8, 32):
        assert (rows[f"tokens_per_second_{batch}"] > 0).all()
        ideal = rows[f"speedup_{batch}"] * rows["executed_fraction"]
        np.testing.assert_allclose(rows[f"of_ideal_{batch}"], ideal)


def test_equal_prompts_are_timed_as_prompts_of_their_own(small_run: Run) -> None:
    context = RunContext.open(small_run.folder, limit=2)
    prompts = [example.prompt for example in context.examples.values()]
    again = [prompt.timing_copy(context.engine) for prompt in [*prompts, *prompts]]
    assert len({id(prompt.state) for prompt in again}) == 4


def test_an_earlier_comparison_is_added_to(copy: Path) -> None:
    compare_run(copy, controllers="full,unified", timed=False)
    found = compare_run(copy, controllers="random", timed=False)
    assert set(found.rows["controller"]) == {"random"}
    assert list(pd.read_parquet(found.path)["controller"].unique()) == ["full", "unified", "random"]


def test_sublayers_leave_out_what_decides_about_layers(search: Callable[..., Run], tmp_path: Path) -> None:
    run = shutil.copytree(search(unit="sublayer", evaluations=8, limit=3).folder, tmp_path / "run")
    found = compare_run(run, timed=False)
    assert found.left_out == [name for name, kind in CONTROLLERS.items() if "sublayer" not in kind.units]
    assert {name for name, kind in CONTROLLERS.items() if kind.kind == "token"} <= set(found.left_out)
    assert set(found.rows["controller"]) == set(CONTROLLERS) - set(found.left_out)
    with pytest.raises(
        InputError, match=r"d3: a run with unit 'layer' is required, .* 'sublayer'; use --controllers full,"
    ):
        compare_run(run, controllers="full,d3", timed=False)


def test_a_criterion_that_needs_the_model(search: Callable[..., Run], tmp_path: Path) -> None:
    run = shutil.copytree(search(criterion="log_likelihood", evaluations=12).folder, tmp_path / "run")
    found = compare_run(run, controllers="full,static,d3,ridge", timed=False)
    full = found.rows.set_index("controller").loc["full", "quality"]
    assert full == pytest.approx(Run.open(run).summary()["full_quality"])
    assert found.rows["quality"].notna().all()


def test_the_layers_of_fixed_and_learned_masks_are_listed(copy: Path, command) -> None:
    found = compare_run(copy, controllers=SOME, timed=False)
    layers = found.rows.set_index(["controller", "setting"])["layers"]
    assert layers.loc[("full", "")] == "0-4"
    assert layers.loc[("unified", "speedup=2.0")] == compact(published_unified(5, 2.0))
    assert layers[["oracle", "ridge"]].isna().all()
    for setting, text in layers["static"].items():
        folds = 0
        for one in text.split("; "):
            mask, count, total = re.fullmatch(r"(\S+) \((\d+) of (\d+) folds\)", one).groups()
            assert mask == "none" or len(parse(mask)) <= int(setting.removeprefix("layers="))
            folds += int(count)
        assert folds == int(total) == StaticBest.folds
    code, text, _ = command("compare", copy, "--controllers", "full,static", "--no-timing", "--quiet")
    assert code == 0 and layers[("static", "layers=3")] in text


def test_the_command_line(copy: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, error = command("compare", copy, "--controllers", "full,random", "--no-timing", "--json", "--quiet")
    assert (code, error) == (0, "")
    answer = json.loads(out)
    assert [row["controller"] for row in answer["controllers"]] == ["full", "random", "random"]
    assert answer["controllers"][0]["tokens_per_second_1"] is None
    code, out, _ = command("compare", copy, "--controllers", "full,random", "--no-timing", "--quiet")
    assert code == 0
    assert "captured" in out and "comparison.parquet" in out
    code, out, _ = command("compare", copy, "--controllers", "full", "--no-timing", "--quiet", "--csv")
    assert out.splitlines()[0] == ",".join(SCHEMA.names)


def test_quality_kept_is_that_of_the_comparison(copy: Path) -> None:
    found = compare_run(copy, controllers=SOME, timed=False).rows.set_index(["controller", "setting"])
    kept = analysis.quality_kept(copy, (1.0,), resamples=0)
    rows = kept.rows[(kept.rows["task"] == "") & ~kept.rows["method"].isin(["full model"])]
    rows = rows[~rows["setting"].str.startswith("budget=1")].set_index(["method", "setting"])
    assert set(rows.index) == {pair for pair in found.index if pair[0] != "full"}
    np.testing.assert_allclose(rows["quality"], found.loc[rows.index, "quality"])
    np.testing.assert_allclose(rows["fraction"], found.loc[rows.index, "executed_fraction"])
    said = rows["held_out"].groupby(level=0).first()
    assert said["ridge"].startswith("yes: cross-validated") and said["unified"] == "nothing fitted"
    assert said["oracle"].startswith("no: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--controllers", "ful"], "nearest: 'full'"),
        (["--limit", "1"], "--limit needs at least 2"),
        (["--json", "--csv"], "--json and --csv exclude each other"),
    ],
)
def test_bad_input(copy: Path, command, options: list[str], message: str) -> None:
    code, _, error = command("compare", copy, *options)
    assert code == 2
    assert message in error and error.count("\n") == 1


def test_parts_are_disjoint_and_of_nearly_equal_size() -> None:
    ids = [f"s{i}" for i in range(11)]
    split = parts(ids, 4, 0)
    assert sorted(one for part in split for one in part) == sorted(ids)
    assert sorted(map(len, split)) == [2, 3, 3, 3]
    assert split == parts(ids, 4, 0) != parts(ids, 4, 1)
    assert parts(ids[:2], 4, 0) in ([["s0"], ["s1"]], [["s1"], ["s0"]])


def test_captured_is_a_share_with_a_paired_interval() -> None:
    rng = np.random.default_rng(0)
    low_N, high_N = rng.random(40), 1 + rng.random(40)
    half_N = (low_N + high_N) / 2
    assert captured(half_N, low_N, high_N, seed=0) == pytest.approx((0.5, 0.5, 0.5)), "paired: no spread is left"
    share, low, high = captured(half_N + rng.normal(0, 0.2, 40), low_N, high_N, seed=0)
    assert share is not None and low is not None and high is not None
    assert low < share < high
    assert captured(half_N, high_N, low_N, seed=0) == (None, None, None)
    assert captured(low_N, low_N, low_N, seed=0) == (None, None, None)
    unsure_N = low_N + np.where(np.arange(40) == 0, 1.0, 0.0)
    assert captured(half_N, low_N, unsure_N, seed=0)[1:] == (None, None), "often nothing is left to capture"


def test_frontiers_at_a_fraction(small_run: Run) -> None:
    experiment = analysis.load(small_run.folder)
    ids = list(experiment.sequences["sequence"])
    items, _ = quality_by_cost(experiment.evaluations, experiment.full_cost, experiment.metric, step=1)
    frontier = oracle_frontier(items)
    nothing, half, full = np.zeros(6), np.array([0.1] * 6), np.ones(6)
    frontiers = Frontiers(experiment, ids, [(1.0, full), (0.0, nothing), (0.5, half)])
    for fraction in (0.0, 0.3, 0.5, 0.8, 1.0):
        baselines = frontiers.at(fraction)
        assert baselines.oracle_N.mean() == pytest.approx(float(frontier.quality_at(np.array([fraction]))[0]))
        assert baselines.mixed == pytest.approx(fraction), "a coin between nothing and everything beats the half mask"
    assert frontiers.at(0.75).static_N == pytest.approx([0.55] * 6)
    assert frontiers.at(1.4).static_N == pytest.approx(full)


def test_the_models_fingerprint_must_be_the_runs(copy: Path, tiny_model: LanguageModel) -> None:
    from tiny import tiny_llama, tiny_tokenizer

    other = LanguageModel(name="other", network=tiny_llama(seed=1), tokenizer=tiny_tokenizer())
    with pytest.raises(ValueError, match="restore the run's model"):
        compare_run(copy, model=other)
