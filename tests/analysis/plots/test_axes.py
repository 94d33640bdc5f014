"""Figures on axes of the caller's: its settings are followed and left as they are."""

import inspect

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex
from plot_tables import write_comparison, write_drafts, write_measures, write_static

import analysis
from analysis import InputError, Source, plots, summarise
from analysis.plots.registry import COMPARISONS, FIGURES, NAMES, drawing_of
from analysis.plots.source import grouped, labelled


@pytest.fixture(scope="module")
def source(experiment, run_writer, tmp_path_factory):
    folder = run_writer(tmp_path_factory.mktemp("axes") / "run")
    write_measures(folder, experiment)
    write_comparison(folder)
    write_static(folder, experiment.layers)
    write_drafts(folder, experiment.layers)
    return Source(experiment=experiment, folder=folder, known=summarise(experiment, bootstrap=50, permutations=1))


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_every_figure_is_a_function_with_a_docstring():
    assert set(NAMES) < set(plots.__all__)
    for name in NAMES:
        function = getattr(plots, name)
        assert inspect.getdoc(function).count("Args:") == 1
        assert list(inspect.signature(function).parameters)[1] == "ax"


@pytest.mark.parametrize("name", NAMES)
def test_the_callers_settings_hold_and_are_left_alone(source, name, axes):
    runs = source if name in FIGURES else [source, source]
    panels = drawing_of(name, grouped(runs)).panels
    own = {"font.size": 5.0, "axes.prop_cycle": mpl.cycler(color=["#123456"]), "lines.linewidth": 7.0}
    for panel in panels:
        axes.clear()
        with mpl.rc_context(own):
            before = dict(mpl.rcParams)
            more = {"panel": panel} if len(panels) > 1 else {}
            assert getattr(plots, name)(runs, axes, **more) is axes
            assert dict(mpl.rcParams) == before
        assert axes.has_data() and (axes.get_xlabel() or axes.get_ylabel())
        assert not axes.get_title(), "the caller's to give"


def test_colours_and_widths_are_the_callers(source, axes):
    with mpl.rc_context({"axes.prop_cycle": mpl.cycler(color=["#123456"]), "lines.linewidth": 3.0}):
        plots.oracle_quality(source, axes)
    [oracle] = [line for line in axes.lines if line.get_label() == "oracle"]
    assert to_hex(oracle.get_color()) == "#123456", "also after the block, when it is saved"
    assert oracle.get_linewidth() == pytest.approx(1.4 * 3)


def test_without_axes_there_are_new_ones(source):
    one, other = plots.rarity(source), plots.rarity(source, panel="log")
    assert one.figure is not other.figure
    assert (one.get_yscale(), other.get_yscale()) == ("linear", "log")
    plt.close("all")


def test_a_run_may_be_a_folder_an_experiment_or_a_source(source, experiment, axes):
    for run in (source.folder, str(source.folder), experiment, source):
        assert plots.minimal_budgets(run, axes) is axes


def test_runs_by_label_share_the_axes(source, axes):
    plots.oracle_quality({"a model": source, "seeds": [source, source]}, axes)
    labels = [line.get_label() for line in axes.lines]
    assert {"a model", "seeds (mean of 2 runs)"} <= set(labels)


def test_groups_keep_labels_and_order(source):
    again = Source(experiment=source.experiment, folder=source.folder)
    assert [group.label for group in labelled([source, again])] == ["run", "run (2)"]
    groups = labelled([source, again, again], ["b", "a", "b"])
    assert [(group.label, len(group.sources)) for group in groups] == [("b", 2), ("a", 1)]
    with pytest.raises(InputError, match="at least one run is required"):
        grouped([])


def test_a_panel_that_is_missing_is_named(source, axes):
    with pytest.raises(InputError, match=r"panel 'tasks' of minimal_budgets .*; available: distribution"):
        plots.minimal_budgets([source, source], axes, panel="tasks")


def test_figures_of_one_run_refuse_several(source):
    name = next(name for name in FIGURES if name not in COMPARISONS)
    with pytest.raises(analysis.plots.MissingError, match="is of one run, give one; figures of several runs: "):
        plots.caption(name, [source, source])


def test_captions_and_files_in_one_call(source, tmp_path):
    assert plots.caption("luck_curve", source).startswith("From 60 to 120 tries the mean minimal budget")
    picture = plots.draw("luck_curve", source, tmp_path, config=plots.FigureConfig(width=3.25, formats=("svg",)))
    assert [path.name for path in picture.files] == [f"luck_curve.{kind}" for kind in ("svg", "csv", "txt", "json")]


def test_a_figure_that_cannot_be_drawn_into_files_says_why(source, experiment, tmp_path):
    with pytest.raises(plots.MissingError, match="two runs or more"):
        plots.draw("strategies", source, tmp_path)
    with pytest.raises(plots.MissingError, match="run `oracle compare RUN` first"):
        plots.draw("controllers", experiment, tmp_path)
    with pytest.raises(plots.MissingError, match="'rarity' is of one run"):
        plots.draw("rarity", [source, source], tmp_path)
    assert not list(tmp_path.iterdir())
