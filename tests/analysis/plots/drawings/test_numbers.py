"""What figures show is what a few lines of pandas over the run give."""

import shutil
from dataclasses import replace
from math import comb, sqrt

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgba
from plot_tables import pictured, write, write_comparison, write_drafts, write_measures, write_static

import analysis
from analysis import Experiment, Source, summarise
from analysis.luck.right_and_wrong import mended_after, right_and_wrong
from analysis.measurements import static_masks
from analysis.plots.drawings.depth_right_wrong import NULL, _curve
from analysis.plots.registry import drawing_of
from analysis.plots.source import labelled

LAYERS = 30

TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture(scope="module")
def source(experiment, run_writer, tmp_path_factory):
    folder = run_writer(tmp_path_factory.mktemp("numbers") / "run")
    write_measures(folder, experiment)
    write_comparison(folder)
    write_static(folder, LAYERS, budgets=(5, 4, 2))
    write_drafts(folder, LAYERS)
    return Source(experiment=experiment, folder=folder, known=summarise(experiment, bootstrap=200, permutations=2))


@pytest.fixture(scope="module")
def by_sequence(experiment):
    return dict(list(experiment.evaluations.sort_values("number").groupby("sequence", sort=False)))


@pytest.fixture(scope="module")
def telling(by_sequence):
    """The sequences where the full model scores: those that tell something."""
    return {name: rows for name, rows in by_sequence.items() if rows["rougeL"].iloc[0] > 0}


def least(rows, tries=None):
    """The cheapest row as good as the first one, the better one of equal cost."""
    rows = rows.head(tries) if tries else rows
    met = rows[rows["rougeL"] >= rows["rougeL"].iloc[0] - 1e-12]
    return met.sort_values(["cost", "rougeL", "number"], ascending=[True, False, True]).iloc[0]


def test_oracle_quality(source, experiment, telling):
    table, figure = pictured("oracle_quality", source)
    series = dict(list(table.groupby("series")))
    full = np.mean([rows["rougeL"].iloc[0] for rows in telling.values()])
    best = np.mean([rows["rougeL"].max() for rows in telling.values()])
    assert series["full model"]["quality"].tolist() == pytest.approx([full, full])
    assert series["oracle"]["quality"].iloc[-1] == pytest.approx(best)
    assert series["oracle"]["fraction"].iloc[-1] == 1.0
    assert series["oracle"]["quality"].is_monotonic_increasing
    [point] = series["equal quality"].itertuples()
    reached = series["oracle"][series["oracle"]["quality"] >= full - 1e-9]
    assert (point.fraction, point.quality) == (pytest.approx(reached["fraction"].iloc[0]), pytest.approx(full))
    assert (point.fraction_low, point.fraction_high) == source.summary.informative.equal_quality_interval
    ten = experiment.evaluations.query("family == 'unified' and cost == 10 and sequence in @telling")["rougeL"]
    unified = series["unified"]
    assert unified.loc[np.isclose(unified["fraction"], 1 / 3), "quality"].tolist() == pytest.approx([ten.mean()])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert np.array_equal(np.transpose(lines["oracle"].get_data()), series["oracle"][["fraction", "quality"]])


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_the_equal_quality_point_lies_where_the_curve_reaches_the_criterion(experiment, tolerance):
    tolerant = replace(experiment, tolerance=tolerance)
    every = summarise(tolerant, bootstrap=0, permutations=0)
    summary = every.informative
    table, _ = pictured("oracle_quality", Source(experiment=tolerant, known=every))
    [point] = table[table["series"] == "equal quality"].itertuples()
    assert point.quality == summary.full_quality - tolerance
    before, there = summary.oracle.frontier.quality_at(np.array([point.fraction - 1e-6, point.fraction]))
    assert before < point.quality <= there + 1e-9


def test_minimal_budgets(source, experiment, by_sequence):
    table, figure = pictured("minimal_budgets", source)
    task = experiment.sequences.set_index("sequence")["task"]
    upper = {name: least(rows)["cost"] / LAYERS for name, rows in by_sequence.items()}
    zero = {name: rows["rougeL"].iloc[0] == 0 for name, rows in by_sequence.items()}
    found = table.set_index("sequence")
    assert found["upper"].to_dict() == pytest.approx(upper)
    assert found["zero_quality"].to_dict() == zero
    assert found["task"].to_dict() == task.to_dict()
    assert (found["lower"] <= found["upper"]).all()
    for name, row in found.iterrows():
        scored = [upper[other] for other in upper if task[other] == task[name] and not zero[other]]
        assert row["scored"] == len(scored)
        assert row["mean"] == pytest.approx(np.mean(scored)) if scored else np.isnan(row["mean"])
    x, y = figure.axes[0].lines[0].get_data()
    for fraction in (0.0, 0.31, 0.8, 1.0):
        shown = y[np.searchsorted(x, fraction, side="right") - 1]
        assert shown == pytest.approx(np.mean([value <= fraction for value in upper.values()]))


def test_many_sequences_of_a_task_become_a_band(experiment, source):
    one = experiment.sequences.assign(task=["few"] * 2 + ["many"] * 22)
    copies = [one.assign(sequence=one["sequence"] + f"-{i}") for i in range(4)]
    rows = [experiment.evaluations.assign(sequence=experiment.evaluations["sequence"] + f"-{i}") for i in range(4)]
    many = replace(
        experiment, sequences=pd.concat(copies, ignore_index=True), evaluations=pd.concat(rows, ignore_index=True)
    )
    table, figure = pictured(
        "minimal_budgets", Source(experiment=many, known=summarise(many, bootstrap=0, permutations=0))
    )
    assert table["task"].value_counts().to_dict() == {"many": 88, "few": 8}
    assert 88 in [len(line.get_xdata()) for line in figure.axes[1].lines], "a band with its edge"


def test_layer_use(source, experiment, by_sequence):
    table, figure = pictured("layer_use", source)
    chosen = {name: set(least(rows)["allocation"]) for name, rows in by_sequence.items() if rows["rougeL"].iloc[0] > 0}
    task = experiment.sequences.set_index("sequence")["task"]
    for row in table.itertuples():
        masks = [mask for name, mask in chosen.items() if row.task in (task[name], "all")]
        assert row.n == len(masks)
        if not masks:
            assert np.isnan([row.share, row.low, row.high]).all()
            continue
        share, n, z = np.mean([row.layer in mask for mask in masks]), len(masks), 1.959963984540054
        centre, half = share + z * z / 2 / n, z * sqrt(share * (1 - share) / n + z * z / 4 / n / n)
        ends = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
        assert [row.share, row.low, row.high] == pytest.approx([share, *ends], abs=1e-9)
    assert len(table) == 9 * LAYERS
    assert table["task"].iloc[-1] == "all"
    assert "Left out: 3 of 24 sequences" in drawing_of("layer_use", labelled([source])).note
    # Few sequences a task: one line each.
    blocks = [np.asarray(mesh.get_array()) for mesh in figure.axes[1].collections if isinstance(mesh, QuadMesh)]
    assert [len(block) for block in blocks] == [n for n in table.drop_duplicates("task")["n"].tolist()[:-1] if n]
    assert np.concatenate(blocks).mean(axis=0) == pytest.approx(table["share"].to_numpy()[-LAYERS:])


def test_luck_curve_and_strategies(source, telling):
    table, _ = pictured("luck_curve", source)
    progress, _ = pictured("strategies", source, replace(source, folder=source.folder / "again"))
    hand = {n: np.mean([least(rows, n)["cost"] for rows in telling.values()]) / LAYERS for n in table["allocations"]}
    assert dict(zip(table["allocations"], table["per_sequence"], strict=True)) == pytest.approx(hand)
    progress = progress[progress["run"] == "run"]
    assert dict(zip(progress["evaluations"], progress["fraction"], strict=True)) == pytest.approx(hand)
    assert (progress["low"] <= progress["fraction"]).all() and (progress["fraction"] <= progress["high"]).all()


def test_runs_are_compared_on_the_sequences_and_evaluations_that_they_share(source, experiment, telling):
    half = experiment.sequences["sequence"][:12]
    few = experiment.evaluations.query("number < 50 and sequence in @half")
    other = replace(experiment, sequences=experiment.sequences[:12], evaluations=few.reset_index(drop=True))
    table, figure = pictured("strategies", source, Source(experiment=other, folder=source.folder / "other"))
    told = [name for name in half if name in telling]
    assert set(table["sequences"]) == {len(told)} and len(told) < 12
    for run, most in (("run", 120), ("other", 50)):
        last = table[table["run"] == run].iloc[-1]
        hand = np.mean([least(telling[name], most)["cost"] for name in told]) / LAYERS
        assert (last["evaluations"], last["fraction"]) == (most, pytest.approx(hand))
    assert "After 50 evaluations no strategy is clearly ahead" in figure.texts[0].get_text()


def test_depth_of_right_and_wrong(source, by_sequence):
    table, _ = pictured("depth_right_wrong", source)
    groups = {"right": [], "wrong": []}
    for rows in by_sequence.values():
        right = rows["rougeL"] >= 0.5 - 1e-12
        depths = rows.loc[right & ((rows["cost"] < LAYERS) | (rows["number"] == 0)), "cost"] / LAYERS
        groups["right" if right.iloc[0] else "wrong"].append(
            (depths.min(), int((right & (rows["cost"] < LAYERS)).sum()))
        )
    assert all(len(group) > 3 for group in groups.values())
    depth = table[table["panel"] == "depth"]
    for name, group in groups.items():
        shown = depth[depth["samples"] == name]
        assert set(shown["n"]) == {len(group)}
        hand = [np.mean([value <= x + 1e-9 for value, _ in group]) for x in shown["x"]]
        assert shown["share"].tolist() == pytest.approx(hand)
    tries = table[(table["panel"] == "tries") & (table["samples"] == "wrong")]
    m = len(next(iter(by_sequence.values()))) - 1
    hand = [
        np.mean([1 - comb(m - hits, n) / comb(m, n) for _, hits in groups["wrong"]]) for n in tries["x"].astype(int)
    ]
    assert tries["share"].tolist() == pytest.approx(hand)


def test_blind_tries_cannot_outnumber_those_made():
    samples = pd.DataFrame({"tries": [4, 4, 4, 0], "hits": [0, 1, 4, 0]})
    chance = mended_after(samples, np.array([1, 3, 4, 9]))
    assert chance == pytest.approx(np.array([[0, 0, 0, 0], [0.25, 0.75, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]))


def chooser(rows, answers, tasks):
    """Sequences of three choices; rows: which one each allocation of 3, 2 and 1 layers chooses."""
    names = [f"s{i}" for i in range(len(rows))]
    sequences = pd.DataFrame({"sequence": names, "task": tasks, "prompt": names, "answer": answers, "prompt_tokens": 5})
    sequences["choices"] = [["a", "b", "c"]] * len(rows)
    sequences["references"] = [[]] * len(rows)
    evaluations = [
        {
            "sequence": names[i],
            "number": number,
            "family": "full" if number == 0 else "random",
            "allocation": list(range(3 - number)),
            "cost": 3 - number,
            "choice": float(choice),
            "choice_accuracy": float(choice == answers[i]),
        }
        for i, row in enumerate(rows)
        for number, choice in enumerate(row)
    ]
    about = {"layers": 3, "unit": "layer", "metric": "choice_accuracy", "kind": "choice", "tolerance": 0.0}
    more = {"scope": "decode", "floor": 0.0, "seed": 0}
    return Experiment(sequences=sequences, evaluations=pd.DataFrame(evaluations), **about, **more)


def test_the_null_mends_by_other_samples_answers_within_the_task():
    # Each has one partner. s0 is mended by its own answer and by its partner's; s1 by neither; s2 agrees with s3.
    rows = [(2, 0, 1), (2, 2, 2), (0, 1, 1), (0, 0, 0)]
    depth = right_and_wrong(chooser(rows, [0, 1, 1, 1], ["t", "t", "u", "u"]), permutations=3)
    assert depth.samples["right"].tolist() == [False] * 4
    assert depth.samples["least"].tolist() == pytest.approx([2 / 3, np.nan, 1 / 3, np.nan], nan_ok=True)
    assert depth.samples["hits"].tolist() == [1, 0, 2, 0]
    null = depth.null
    assert sorted(zip(null["permutation"], null["sequence"], strict=True)) == [
        (p, s) for p in range(3) for s in ("s0", "s1")
    ]
    assert null.loc[null["sequence"] == "s0", "least"].tolist() == pytest.approx([1 / 3] * 3)
    assert null.loc[null["sequence"] == "s1", "least"].isna().all()


def test_each_sequence_counts_once_in_the_null_however_many_permutations_tell_something():
    rows = pd.DataFrame({"sequence": ["a", "a", "a", "b"], "least": [0.5, 0.5, np.nan, np.nan]})
    spent_NX = rows["least"].fillna(np.inf).to_numpy()[:, None] <= np.array([[0.0, 1.0]])
    found = _curve("depth", NULL, rows, np.array([0.0, 1.0]), spent_NX, 0)
    assert found["n"].tolist() == [2, 2]
    assert found["share"].tolist() == pytest.approx([0.0, (2 / 3 + 0) / 2])


def test_samples_alone_in_their_task_change_places_with_one_another():
    depth = right_and_wrong(chooser([(2, 1, 1), (2, 0, 2)], [0, 1], ["t", "u"]), permutations=2)
    assert depth.null.groupby("sequence")["least"].first().to_dict() == pytest.approx({"s0": 1 / 3, "s1": 2 / 3})


def test_skip_against_exit(source, experiment):
    table, figure = pictured("skip_against_exit", source)
    measured = pd.read_parquet(source.folder / "measures" / "similarity.parquet")
    cosine = table[table["panel"] == "cosine"].set_index(["series", "budget"])["value"]
    hand = measured.groupby(["kind", "budget", "sequence"])["cosine"].mean().groupby(["kind", "budget"]).mean()
    assert cosine.to_dict() == pytest.approx(hand.to_dict())
    quality = table[(table["panel"] == "quality") & (table["series"] == "exit")].set_index("budget")["value"]
    tried = experiment.evaluations.query("family == 'early-exit' or family == 'full'").groupby("cost")["rougeL"].mean()
    assert quality.to_dict() == pytest.approx(tried.to_dict())
    assert "skipping is ahead by cosine" in figure.texts[0].get_text().replace("\n", " ")


def test_without_both_policies_the_next_token_stands_for_quality(source, experiment):
    auto = replace(experiment, evaluations=experiment.evaluations.assign(family="auto"))
    table, _ = pictured("skip_against_exit", replace(source, experiment=auto))
    assert set(table["panel"]) == {"cosine", "same_token"}
    measured = pd.read_parquet(source.folder / "measures" / "similarity.parquet").query(
        "kind == 'skip' and budget == 9"
    )
    row = table.query("panel == 'same_token' and series == 'skip' and budget == 9")
    assert row["value"].tolist() == pytest.approx([measured.groupby("sequence")["same_token"].mean().mean()])


def test_throughput(source):
    table, figure = pictured("throughput", source)
    rows = {(row.speedup, row.batch): row for row in table.itertuples() if row.policy == "unified"}
    assert rows[2, 8].gain == pytest.approx(2**0.7)
    assert rows[5, 32].ideal_gain == pytest.approx(5)
    heights = sorted(bar.get_height() for bar in figure.axes[0].patches)
    assert heights == pytest.approx(sorted([2**0.7, 3**0.7, 5**0.7] * 3))
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[1].lines}
    # Early exit has its own quality, and is not among the bars.
    assert list(lines["early exit, quality"]) == pytest.approx([0.2, 0.4 / 3, 0.08])
    assert list(lines["unified skipping, quality"]) == pytest.approx([0.25, 0.5 / 3, 0.1])
    assert list(lines["full model"]) == [0.5, 0.5]


def test_the_title_of_throughput_praises_no_speed_without_its_quality(source, tmp_path):
    assert drawing_of("throughput", labelled([source])).finding == (
        f"Unified skipping does not keep the quality: at 2{TIMES} decoding is 1.6 times as fast, ROUGE-L 0.250 of 0.500"
    )
    shutil.copytree(source.folder, tmp_path / "run")
    path = tmp_path / "run" / "measures" / "throughput.parquet"
    table = pd.read_parquet(path)
    table.loc[table["speedup"] <= 3, "quality"] = 0.49
    write(tmp_path / "run", "measures/throughput", table)
    kept = drawing_of("throughput", labelled([replace(source, folder=tmp_path / "run")])).finding
    assert (
        kept
        == f"Unified skipping keeps the quality, and at 3{TIMES} decoding is 2.2 times as fast: ROUGE-L 0.490 of 0.490"
    )


def test_controllers(source):
    table, figure = pictured("controllers", source)
    stored = pd.read_parquet(source.folder / "controllers" / "comparison.parquet")
    keys = ["controller", "setting"]
    pd.testing.assert_frame_equal(
        table.sort_values(keys, ignore_index=True), stored.sort_values(keys, ignore_index=True)
    )
    assert "10 of 14 settings clearly beat" in figure.texts[0].get_text()
    marks = {line.get_marker() for line in figure.axes[0].lines if line.get_marker() != "None"}
    assert len(marks) == 7


def test_static_masks(source):
    table, figure = pictured("static_masks", source)
    assert table["budget"].tolist() == [5.0] * 3 + [4.0] * 3 + [2.0] * 3
    chosen = table[table["chosen"]]
    assert set(chosen["method"]) == {"surrogate"}
    assert chosen["allocation"].iloc[-1] == "0 1"
    layers = source.experiment.layers
    marked = [line for line in figure.axes[0].lines if str(line.get_label()).startswith("chosen")]
    assert marked[0].get_ydata().tolist() == pytest.approx([6 - budget / 2 - 2 for budget in (2, 4, 5)])
    shades = [patch.get_facecolor() for patch in figure.axes[2].patches]
    assert len(shades) == 3 * layers
    assert shades.count(shades[0]) == 5 + 4 + 2
    labels = [label.get_text() for label in figure.axes[2].get_yticklabels()]
    assert labels == [f"{budget} layers, {(30 - budget) / 15:.2f}\N{MULTIPLICATION SIGN}" for budget in (5, 4, 2)]


def test_static_masks_of_several_tables_are_read_together(run_writer, tmp_path):
    folder = run_writer(tmp_path / "run")
    layers = analysis.load(folder).layers
    assert static_masks(folder) is None
    write_static(folder, layers, name="budgets-1", budgets=(4, 2), judge="quality", lost=0.1)
    write_static(folder, layers)
    found = static_masks(folder)
    chosen = found[found["chosen"]].set_index("budget")
    assert chosen["judge"].to_dict() == {3.0: "kl", 2.0: "kl", 1.0: "kl", 4.0: "quality"}
    assert (chosen["training_sequences"] == 3).all() and (chosen["held_out_sequences"] == 2).all()
    drawn, _ = pictured("static_masks", Source.open(folder))
    assert set(drawn["budget"]) == {3.0, 2.0, 1.0}, "a figure shows one table"
    (folder / "static" / "curve-0.parquet").write_bytes(b"no table")
    with pytest.raises(analysis.InputError, match="is damaged; delete it, and repeat 'oracle static"):
        static_masks(folder)


def test_drafts(source):
    table, figure = pictured("drafts", source)
    rows = table.set_index("name")
    swift = rows.loc["swift"]
    # Ten and twenty tokens: rounds 5 + 3 and 10 + 3, and so 2 and 7 accepted tokens, 4 more drafted each.
    assert swift["accepted"] == pytest.approx((2 + 7) / (8 + 13))
    assert swift["draft_cost"] == pytest.approx(7 / 10)
    assert swift["expected_speedup"] == pytest.approx(10 * 30 / (12 * 21 + 7 * (2 + 7 + 8)))
    assert swift["measured_speedup"] == pytest.approx(0.5)
    assert rows.loc["at most 1 layers", "accepted"] == pytest.approx((30 - 26 + 2) / 26)
    assert rows.loc["at most 1 layers", "draft_cost"] == pytest.approx(0.3)
    grey = next(line for line in figure.axes[0].lines if line.get_label() == "all accepted")
    # Rounds of four tokens each: 3 and 5; both outputs may end without the token that verification adds.
    assert grey.get_ydata()[-1] == pytest.approx((30 - 8 + 2) / 8)
    points = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    filled = [line.get_label() for line in points if to_rgba(line.get_markerfacecolor())[3]]
    assert filled == ["best per sequence", "best per task", "best overall"]


def test_drafts_without_bounds_or_measured_speed_are_drawn(run_writer, tmp_path):
    folder = run_writer(tmp_path / "run")
    write_drafts(folder, analysis.load(folder).layers, measured=False)
    (folder / "drafts" / "bounds.parquet").unlink()
    table, figure = pictured("drafts", Source.open(folder))
    assert set(table["series"]) == {"mask"} and table["measured_speedup"].isna().all()
    assert "no proven bound" in figure.texts[1].get_text()


def test_the_title_of_layer_use_ranks_no_ties(run_maker):
    few = run_maker(sequences=4, count=30, layers=8)
    full = few.evaluations.assign(rougeL=np.where(few.evaluations["number"] == 0, 0.5, 0.1))
    same = replace(few, evaluations=full)
    source = Source(experiment=same, known=summarise(same, bootstrap=0, permutations=0))
    drawing = drawing_of("layer_use", labelled([source]))
    assert drawing.finding == "Minimal allocations use every layer equally often (4 of 4)"
    # Two of four allocations lack layer 3: intervals of so few overlap.
    lacking = [0, 1, 2, 4, 5, 6, 7]
    masks = [
        lacking if s in ("s000", "s001") and n == 1 else a
        for s, n, a in full[["sequence", "number", "allocation"]].to_numpy()
    ]
    good = [
        0.6 if s in ("s000", "s001") and n == 1 else q for s, n, q in full[["sequence", "number", "rougeL"]].to_numpy()
    ]
    cost = [len(mask) for mask in masks]
    some = replace(few, evaluations=full.assign(allocation=masks, rougeL=good, cost=cost))
    source = Source(experiment=some, known=summarise(some, bootstrap=0, permutations=0))
    found = drawing_of("layer_use", labelled([source])).finding
    assert found == "No layer is clearly used more often than another (2 of 4 to 4 of 4)"


def test_ties_of_many_sequences_are_named_together(source, experiment):
    keep = [0, 1, 2, 9]
    masks = [keep if n == 1 else a for n, a in experiment.evaluations[["number", "allocation"]].to_numpy()]
    good = np.where(experiment.evaluations["number"] < 2, 0.5, 0.1)
    cost = [len(mask) for mask in masks]
    tied = replace(experiment, evaluations=experiment.evaluations.assign(allocation=masks, rougeL=good, cost=cost))
    known = Source(experiment=tied, known=summarise(tied, bootstrap=0, permutations=0))
    finding = drawing_of("layer_use", labelled([known])).finding
    assert finding == (
        "Minimal allocations use layers 0\N{EN DASH}2 and 9 most (100.0 %), "
        "layers 3\N{EN DASH}8 and 10\N{EN DASH}29 least (0.0 %)"
    )


def test_few_sequences_are_points_without_shares(run_maker, run_writer, tmp_path):
    few = run_maker(sequences=8, count=40)
    folder = run_writer(tmp_path / "run")
    write_measures(folder, few)
    source = Source(experiment=few, folder=folder, known=summarise(few, bootstrap=100, permutations=2))
    table, figure = pictured("minimal_budgets", source)
    points = [line for line in figure.axes[0].lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    assert sorted(x for line in points for x in line.get_xdata()) == pytest.approx(sorted(table["upper"]))
    assert len(figure.axes[0].get_yticklabels()) == 8
    table, figure = pictured("layer_use", source)
    whole = table[table["task"] == "all"]
    [dots] = figure.axes[0].lines
    assert dots.get_ydata() == pytest.approx((whole["share"] * whole["n"]).to_numpy())
    assert not figure.axes[0].patches and " of " in figure.axes[0].get_ylabel()
    drawing = drawing_of("depth_right_wrong", labelled([source]))
    assert "%" not in drawing.finding + drawing.detail
    _, figure = pictured("depth_right_wrong", source)
    assert sum(len(line.get_xdata()) for line in figure.axes[0].lines) == 8
    table, figure = pictured("skip_against_exit", source)
    assert not figure.axes[0].collections, "no band of so few"


def test_few_sequences_compare_no_controllers_clearly(run_writer, experiment, tmp_path):
    folder = run_writer(tmp_path / "run")
    write_comparison(folder)
    table = pd.read_parquet(folder / "controllers" / "comparison.parquet")
    for sequences, label in ((4, "captured, bootstrap range of 4 sequences"), (24, "captured, 95 % interval")):
        write(folder, "controllers/comparison", table, sequences=sequences)
        source = Source(experiment=experiment, folder=folder)
        drawing = drawing_of("controllers", labelled([source]))
        assert drawing.detail.startswith(f"{sequences} sequences; 7 controllers, 14 settings")
        assert drawing.finding.startswith("Too few sequences (4) to tell") == (sequences == 4)
        _, figure = pictured("controllers", source)
        assert " ".join(figure.axes[1].get_xlabel().split()) == label


def test_reference_controllers_are_no_rows_and_no_count(run_writer, experiment, tmp_path):
    folder = run_writer(tmp_path / "run")
    write_comparison(folder)
    source = Source(experiment=experiment, folder=folder)
    drawing = drawing_of("controllers", labelled([source]))
    assert drawing.detail.startswith("7 controllers, 14 settings; most captured by")
    _, figure = pictured("controllers", source)
    names = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert len(names) == 14 and not any(name.startswith(("oracle", "static", "full")) for name in names)
    path = folder / "controllers" / "comparison.parquet"
    table = pd.read_parquet(path)
    table = table[table["controller"].isin(["oracle", "static"])]
    write(folder, "controllers/comparison", table)
    drawing = drawing_of("controllers", labelled([source]))
    assert drawing.finding == "Only the full model, static allocations and the oracle were compared"
    assert list(drawing.panels) == ["quality"], "no panel without rows"


def test_runs_of_one_label_are_a_mean_with_its_deviation(source, run_maker):
    other = run_maker(seed=1)
    other = replace(other, sequences=source.experiment.sequences)
    runs = [source, Source(experiment=other, folder=source.folder.with_name("second"))]
    told = [
        summarise(one.experiment, bootstrap=0, permutations=0).minimal.query("informative")["sequence"] for one in runs
    ]
    both = set(told[0]) & set(told[1])
    sums = [summarise(one.experiment.only(both), bootstrap=0, permutations=0) for one in runs]
    table, _ = pictured("oracle_quality", *runs, labels=["seeds", "seeds"])
    oracle = table[table["series"] == "oracle"]
    at = oracle["fraction"].to_numpy()
    curves = np.array([one.oracle.frontier.quality_at(at) for one in sums])
    assert oracle["quality"].to_numpy() == pytest.approx(curves.mean(axis=0))
    assert oracle["quality_deviation"].to_numpy() == pytest.approx(curves.std(axis=0, ddof=1))
    points = [one.equal_quality_fraction for one in sums]
    assert table.query("series == 'equal quality'")["fraction"].tolist() == pytest.approx([np.mean(points)])
    apart, _ = pictured("oracle_quality", *runs, labels=["a", "b"])
    assert apart.query("series == 'equal quality'")["fraction"].tolist() == pytest.approx(points)
    assert apart["quality_deviation"].isna().all()
    shares, _ = pictured("minimal_budgets", *runs, labels=["seeds", "seeds"])
    means = [one.per_sequence_fraction for one in sums]
    assert shares["mean"].iloc[0] == pytest.approx(np.mean(means))
    found = [np.sort(one.minimal["upper"].to_numpy()) / LAYERS for one in sums]
    x = shares["fraction"].to_numpy()
    hand = np.array([[np.mean(values <= one + 1e-12) for one in x] for values in found])
    assert shares["share"].to_numpy() == pytest.approx(hand.mean(axis=0))
    assert shares["deviation"].to_numpy() == pytest.approx(hand.std(axis=0, ddof=1))


def test_different_criteria_share_an_axis_over_the_full_models_quality(source, experiment):
    halved = replace(
        experiment, metric="half", evaluations=experiment.evaluations.assign(half=experiment.evaluations["rougeL"] / 2)
    )
    other = Source(experiment=halved, folder=source.folder.with_name("half"))
    table, figure = pictured("oracle_quality", source, other, labels=["ROUGE-L", "half"])
    first, second = (
        rows.drop(columns=["run", "fraction_low", "fraction_high"]).reset_index(drop=True)
        for _, rows in table.groupby("run", sort=False)
    )
    pd.testing.assert_frame_equal(first, second)
    assert table.query("series == 'full model'")["quality"].tolist() == pytest.approx([1.0] * 4)
    assert "over the full model's" in figure.axes[0].get_ylabel().replace("\n", " ")
