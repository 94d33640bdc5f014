"""Figures: what they show is what was computed, and the files are the same every time."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from analysis import InputError, draw_all, summarise
from analysis.plot_budgets import minimal_budgets_histogram
from analysis.plot_curve import luck_curve_panels
from analysis.plot_layers import layer_use_map
from analysis.plot_quality import oracle_quality
from analysis.plots import FIGURES
from analysis.style import save_figure
from oracle.costs import Costs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def summary(experiment):
    return summarise(experiment, bootstrap=200, permutations=2)


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def test_the_oracle_figure_shows_the_frontier_and_the_headline(experiment, summary):
    figure = oracle_quality(experiment, summary)
    [axes] = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    fraction, quality = lines["oracle"].get_data()
    assert quality[-1] == pytest.approx(summary.oracle.frontier.quality[-1])
    assert fraction[-1] == 1.0
    assert set(lines["full model, all layers"].get_ydata()) == {summary.full_quality}
    assert lines["equal quality, shuffled references"].get_xdata() == [summary.null_equal_quality_fraction]
    assert {"unified skipping", "random skipping", "early exit"} <= set(lines)
    low, high = summary.equal_quality_interval
    assert f"{100 * summary.equal_quality_fraction:.1f} % of the layers" in texts(figure)
    assert f"{100 * low:.1f}–{100 * high:.1f} %" in texts(figure)  # noqa: RUF001


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_the_equal_quality_point_lies_where_the_curve_reaches_the_criterion(experiment, tolerance):
    tolerant = replace(experiment, tolerance=tolerance)
    summary = summarise(tolerant, bootstrap=0, permutations=0)
    [axes] = oracle_quality(tolerant, summary).axes
    [x], [y] = axes.containers[0].lines[0].get_data()
    assert (x, y) == (summary.equal_quality_fraction, summary.full_quality - tolerance)
    before, there = summary.oracle.frontier.quality_at(np.array([x - 1e-6, x]))
    assert before < y <= there + 1e-9


def test_curves_differ_by_dash_and_marker_too(experiment, summary):
    [axes] = oracle_quality(experiment, summary).axes
    policies = [
        line for line in axes.lines if line.get_label() in ("unified skipping", "random skipping", "early exit")
    ]
    assert len({line.get_marker() for line in policies}) == 3
    assert len({to_hex(line.get_color()) for line in policies}) == 3


def test_the_histogram_counts_every_sequence_once(experiment, summary):
    [axes] = minimal_budgets_histogram(experiment, summary).axes
    scored, zero = (sum(bar.get_height() for bar in container) for container in axes.containers)
    assert (scored, zero) == (21, 3)
    assert {bar.get_hatch() for bar in axes.containers[1]} == {"//////"}
    means = sorted(line.get_xdata()[0] for line in axes.lines)
    assert means == pytest.approx(
        sorted(
            [
                summary.per_sequence_fraction,
                summary.per_sequence_fraction_nonzero,
                summary.null_per_sequence_fraction,
            ]
        )
    )


def test_the_bars_of_a_deep_model_hold_several_layers(experiment, summary):
    deep = replace(experiment, layers=100)
    [axes] = minimal_budgets_histogram(deep, summary).axes
    assert len(axes.containers[0]) <= 32
    assert sum(bar.get_height() for bar in axes.containers[0]) == 21


def test_the_heat_map_leaves_zero_quality_out_and_says_so(experiment, summary):
    figure = layer_use_map(experiment, summary)
    image = figure.axes[0].images[0].get_array()
    assert image.shape == (9, 30)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[-1] == "all  (n = 21)"
    assert "recall  (n = 0)" in labels
    kept = summary.minimal[~summary.minimal["zero_quality"]]
    assert image[-1].sum() == pytest.approx(kept["upper"].mean())
    assert np.ma.getmaskarray(image)[labels.index("recall  (n = 0)")].all()
    assert "Left out: 3 of 24 sequences" in texts(figure)


def test_labels_and_bars_follow_the_cost(experiment):
    costs = Costs(
        units=(2.0,) * 30,
        states=(0.0,) * 30,
        overhead=20.0,
        unit_of_measure="ms/token",
        unit="layer",
        context=64,
        batch=1,
        dtype="float32",
        device="cpu",
        model="synthetic",
        fingerprint="f00d",
    )
    cost = costs.of_each(experiment.evaluations["allocation"])
    timed = replace(experiment, costs=costs, evaluations=experiment.evaluations.assign(cost=cost))
    timed_summary = summarise(timed, bootstrap=20, permutations=2)
    for draw in (oracle_quality, minimal_budgets_histogram, luck_curve_panels):
        assert "fraction of ms/token" in texts(draw(timed, timed_summary))
        assert "layers per" not in texts(draw(timed, timed_summary))
    assert f"{100 * timed_summary.equal_quality_fraction:.1f} % of the ms/token" in texts(
        oracle_quality(timed, timed_summary)
    )
    [axes] = minimal_budgets_histogram(timed, timed_summary).axes
    scored, zero = axes.containers
    assert sum(bar.get_height() for bar in scored) == 21
    # Where the full model scores nothing no layer runs: what is left is what every token costs.
    [bar] = [bar for bar in zero if bar.get_height()]
    assert (bar.get_height(), bar.get_x() + bar.get_width() / 2) == (3, pytest.approx(0.25))


@pytest.mark.parametrize("draw", FIGURES.values())
def test_degenerate_runs_draw_too(experiment, tmp_path, draw):
    zeros = replace(
        experiment,
        evaluations=experiment.evaluations.query("sequence == 's000'").assign(rougeL=0.0, family="full"),
        sequences=experiment.sequences.iloc[:1],
    )
    figure = draw(zeros, summarise(zeros, bootstrap=0))
    assert isinstance(figure, Figure)
    save_figure(figure, tmp_path / "figure", {})


def test_files_are_the_same_every_time_and_carry_their_provenance(experiment, summary, tmp_path):
    before = dict(mpl.rcParams)
    first = draw_all(experiment, tmp_path / "a", summary=summary)
    second = draw_all(experiment, tmp_path / "b", summary=summary)
    assert dict(mpl.rcParams) == before
    assert [path.name for path in first] == [f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        if one.suffix == ".png":
            assert json.loads(Image.open(one).text["Description"])["model"]["fingerprint"] == "f00d"
        else:
            assert b"f00d" in one.read_bytes()
            assert b"CreationDate" not in one.read_bytes()


def run_script(name, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / "figures" / f"{name}.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )


def test_scripts_draw_a_stored_run(stored_run, tmp_path):
    for name, count in (("make_all", 2 * len(FIGURES)), *((name, 2) for name in FIGURES)):
        done = run_script(name, stored_run, "--out", tmp_path / name, "--criterion", "rouge1")
        assert done.returncode == 0, done.stderr
        files = [Path(line) for line in done.stdout.splitlines()]
        assert len(files) == count
        assert all(path.stat().st_size > 5000 for path in files)
        assert name == "make_all" or {path.stem for path in files} == {name}


def test_scripts_refuse_what_is_no_run_in_one_line(tmp_path):
    done = run_script("oracle_quality", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_task_may_be_called_anything(experiment, tmp_path):
    hostile = experiment.sequences.assign(task="$\\foo_{$ \x1b[31m")
    assert draw_all(replace(experiment, sequences=hostile), tmp_path, names=["layer_use"])


def test_an_unwritable_folder_is_one_line(experiment, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write figures") as caught:
        draw_all(experiment, tmp_path / "file" / "out", names=["layer_use"])
    assert "\n" not in str(caught.value)
