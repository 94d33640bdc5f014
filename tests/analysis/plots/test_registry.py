"""Figures: the files are the same every time, say where they come from, and can be read in grey."""

import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image
from plot_tables import pictured, write, write_comparison, write_drafts, write_measures, write_static

from analysis import InputError, Source, load, summarise
from analysis.formatting import percent
from analysis.plots.files import save
from analysis.plots.layout import balanced
from analysis.plots.registry import COMPARISONS, FIGURES, NAMES, draw_all, drawing_of, picture_count
from analysis.plots.source import labelled
from analysis.plots.style import LOOKS, FigureConfig, look_of
from oracle.costs import Costs
from oracle.store import RunWriter

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def source(experiment, run_writer, tmp_path_factory):
    """A run that has everything."""
    folder = run_writer(tmp_path_factory.mktemp("plots") / "run")
    write_measures(folder, experiment)
    write_comparison(folder)
    write_static(folder, experiment.layers)
    write_drafts(folder, experiment.layers)
    return Source(experiment=experiment, folder=folder, known=summarise(experiment, bootstrap=200, permutations=2))


@pytest.fixture(scope="module")
def small(source, run_maker):
    """A run that is drawn at once."""
    experiment = run_maker(sequences=8, count=24, layers=8)
    folder = source.folder.with_name("small")
    shutil.copytree(source.folder, folder)
    write_measures(folder, experiment)
    write_static(folder, experiment.layers, budgets=(7, 4))
    return Source(experiment=experiment, folder=folder, known=summarise(experiment, bootstrap=0, permutations=2))


CASES = [*NAMES, *(f"{name} of several" for name in COMPARISONS if name in FIGURES)]


@pytest.fixture(scope="module")
def drawn(source):
    """Each figure at the default width."""
    return {name: draw_case(name, source) for name in CASES}


def draw_case(name, source, config=None, labels=None):
    if name in FIGURES:
        return pictured(name, source, config=config)
    few = source.experiment.evaluations[source.experiment.evaluations["number"] < 40]
    other = Source(experiment=replace(source.experiment, evaluations=few), folder=Path("other"))
    return pictured(name.removesuffix(" of several"), source, other, config=config, labels=labels)


@pytest.fixture(scope="module")
def long_named(source):
    """The same with the longest names: of tasks, that differ in one place, and of sequences."""
    sequences = source.experiment.sequences
    tasks = [f"mmlu_pro_professional_{task}_with_chain_of_thought_zero_shot" for task in sequences["task"]]
    folder = source.folder.with_name("long")
    shutil.copytree(source.folder, folder)
    table = pd.read_parquet(folder / "controllers" / "comparison.parquet")
    longer = [f"{setting}, temperature=0.25, layers=3-27, patience=12" for setting in table["setting"]]
    write(folder, "controllers/comparison", table.assign(setting=longer))
    named = replace(source.experiment, sequences=sequences.assign(task=tasks))
    return replace(source, experiment=named, folder=folder)


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


def words(figure):
    """The texts that are drawn: of the tick labels those within their axis."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = [(axis, tick) for axis in axes for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]]
    unseen = {id(tick.label2) for _, tick in ticks}
    for axis, tick in ticks:
        low, high = sorted(axis.get_view_interval())
        if not low - 1e-9 <= tick.get_loc() <= high + 1e-9 or not axis.get_visible() or not axis.axes.axison:
            unseen.add(id(tick.label1))
    hidden = {id(label) for axis in axes if not axis.axes.axison for label in (axis.label,)}
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in found if id(text) not in unseen | hidden]


LABELS = ["meta-llama/Llama-3.3-70B-Instruct, bfloat16", "HuggingFaceTB/SmolLM2-360M-Instruct, seed 1"]


@pytest.mark.parametrize("width", [3.25, 6.75])
@pytest.mark.parametrize("title", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_words_lie_within_the_figure_and_not_on_one_another(long_named, name, title, width):
    figure = draw_case(name, long_named, FigureConfig(width=width, title=title), LABELS)[1]
    assert figure.get_figwidth() == width
    boxes = [(text.get_text(), text.get_window_extent()) for text in words(figure)]
    assert len(boxes) > 10
    for text, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1, text
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        apart = a.x1 <= b.x0 + 2 or b.x1 <= a.x0 + 2 or a.y1 <= b.y0 + 2 or b.y1 <= a.y0 + 2
        assert apart, f"{one!r} on {two!r}"


@pytest.mark.parametrize("width", [3.25, 6.75])
def test_the_scale_of_shares_fits_beside_few_tasks(long_named, width):
    sequences = long_named.experiment.sequences
    tasks = ["one" if n % 2 else "two" for n in range(len(sequences))]
    experiment = replace(long_named.experiment, sequences=sequences.assign(task=tasks))
    figure = pictured("layer_use", replace(long_named, experiment=experiment), config=FigureConfig(width=width))[1]
    assert len(figure.axes) == 3, "with a scale"
    boxes = {text.get_text(): text.get_window_extent() for text in words(figure)}
    assert boxes["share"].y0 >= -1 and all(box.y0 >= -1 for box in boxes.values())


def test_lines_break_neither_before_a_unit_nor_around_an_equals_sign():
    text = "captured, 95 % interval of the controllers (n = 21), p = 0.54"
    lines = [line for width in range(70, 300, 5) for line in balanced(text, width, FontProperties(size=9)).split("\n")]
    assert len(set(lines)) > 10
    assert not [line for line in lines if line.startswith(("%", "=")) or line.endswith(("95", "=", "n", "p"))]


@pytest.mark.parametrize("name", ["minimal_budgets", "layer_use"])
def test_shortened_names_stay_distinct(long_named, name):
    figure = draw_case(name, long_named, FigureConfig(width=3.25))[1]
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    tasks = long_named.experiment.sequences["task"].unique()
    assert len(set(labels)) == len(labels) == len(tasks)
    # What they have in common is cut first.
    assert all(task.split("_")[3] in label for task, label in zip(tasks, labels, strict=True))


@pytest.mark.parametrize("name", ["oracle_quality", "controllers", "luck_curve"])
@pytest.mark.parametrize(("width", "size"), [(6.75, 12), (3.25, 10), (2.5, 6)])
def test_a_wish_for_other_text_is_granted_without_collisions(long_named, name, width, size):
    figure = draw_case(name, long_named, FigureConfig(width=width, font_size=size))[1]
    assert min(text.get_fontsize() for text in words(figure)) == size
    boxes = [text.get_window_extent() for text in words(figure)]
    assert all(box.x0 >= -1 and box.x1 <= figure.bbox.width + 1 for box in boxes)
    assert not any(a.padded(-2).overlaps(b.padded(-2)) for a, b in itertools.combinations(boxes, 2))


def in_grey(handle):
    """All that tells a series from others where there is no colour."""
    if isinstance(handle, Patch):
        return "patch", handle.get_hatch(), handle.get_alpha() is None
    if isinstance(handle, Line2D):
        width = handle.get_linewidth() >= 1.5
        dashes = (handle._unscaled_dash_pattern, width) if handle.get_linestyle() != "None" else None
        return "line", str(dashes), handle.get_marker(), to_hex(handle.get_markerfacecolor()) == "#ffffff"
    return type(handle).__name__, str(handle.get_linestyle())


@pytest.mark.parametrize("name", CASES)
def test_series_are_told_apart_without_colour(drawn, name):
    legends = drawn[name][1].legends
    assert legends or name == "layer_use", "a heat map of one hue needs none"
    for legend in legends:
        looks = [in_grey(handle) for handle in legend.legend_handles]
        assert len(set(looks)) == len(looks), looks


def test_looks_are_many_and_differ_without_colour():
    looks = [look_of(series) for series in range(7 * len(LOOKS))]
    assert len({(str(look.dashes), look.marker) for look in looks}) == len(looks)
    assert len({look.hatch for look in LOOKS}) == len(LOOKS)


KINDS = ("png", "pdf", "csv", "txt", "json")


def test_files_carry_their_provenance_and_leave_no_trace(small, tmp_path):
    before = dict(mpl.rcParams)
    names = ["layer_use", "skip_against_exit", "throughput", "minimal_budgets"]
    pictures = list(draw_all([small], tmp_path, names=names))
    assert dict(mpl.rcParams) == before
    assert [picture.name for picture in pictures] == names
    for picture in pictures:
        assert [file.name for file in picture.files] == [f"{picture.name}.{kind}" for kind in KINDS]
        png, pdf, csv, caption, beside = picture.files
        origin = json.loads(Image.open(png).text["Description"])
        assert (origin["model"]["fingerprint"], origin["figure"]) == ("f00d", picture.name)
        assert json.loads(beside.read_text()) == origin
        assert len(pd.read_csv(csv)) and caption.read_text().count("\n") == 1
        assert b"f00d" in pdf.read_bytes()
        assert b"CreationDate" not in pdf.read_bytes()
        measured = picture.name in ("skip_against_exit", "throughput")
        assert origin.get("measured") == ({"machine": "a test"} if measured else None)


def test_the_numbers_can_be_read_again(drawn, tmp_path):
    for name, (table, _) in drawn.items():
        path = save(table, Figure((1, 1)), tmp_path / name, {"model": "# \n '\""})[2]
        read = pd.read_csv(path)
        assert list(read.columns) == list(table.columns)
        for column in table:
            pd.testing.assert_series_equal(read[column], table[column], check_dtype=False, rtol=1e-14, obj=name)


def test_what_a_run_lacks_is_named_and_the_rest_drawn(small, stored_run, tmp_path):
    bare = replace(small, folder=stored_run)
    names = ["layer_use", "skip_against_exit", "throughput", "controllers", "static_masks", "drafts"]
    pictures = {picture.name: picture for picture in draw_all([bare], tmp_path, names=names)}
    assert list(pictures) == names
    lacking = {name: picture.skipped for name, picture in pictures.items() if picture.skipped}
    assert lacking == {
        "skip_against_exit": f"run `oracle measure {stored_run}` first",
        "throughput": f"run `oracle measure {stored_run}` first",
        "controllers": f"run `oracle compare {stored_run}` first",
        "static_masks": f"run `oracle static {stored_run}` first",
        "drafts": f"run `oracle draft {stored_run}` first",
    }
    assert all(bool(picture.files) != bool(picture.skipped) for picture in pictures.values())
    assert not list(tmp_path.glob("throughput*"))


def test_rarity_needs_masks_drawn_at_random(small, tmp_path):
    guided = replace(small, experiment=replace(small.experiment, uniform=False))
    [picture] = draw_all([guided], tmp_path, names=["rarity"])
    assert "run `oracle search --strategy spread` (or `random`, without --from)" in picture.skipped
    [picture] = draw_all([small], tmp_path, names=["rarity"])
    assert len(picture.files) == len(KINDS)


def test_rarity_of_dropped_outputs_shows_what_they_allow(small, tmp_path):
    """Dropped under another criterion: no share is drawn, the band allows for both, and the note counts them."""
    evaluations = small.experiment.evaluations
    gone = (evaluations["family"] == "random") & (evaluations["number"] % 3 == 1)
    dropped = evaluations.loc[gone, ["sequence", "number", "family", "allocation"]]
    pruned = replace(small.experiment, evaluations=evaluations[~gone].reset_index(drop=True), dropped=dropped)
    drawing = drawing_of("rarity", labelled([Source(experiment=pruned, known=small.known)]))
    table = drawing.table
    assert table["share"].isna().any() and not table["low"].isna().any()
    assert f"{table['unknown'].sum()} outputs were dropped" in drawing.caption


def test_each_of_several_runs_gets_a_folder(small, tmp_path):
    first, other = replace(small, folder=Path("run")), replace(small, folder=Path("x") / "run-2")
    pictures = list(draw_all([first, replace(first), other], tmp_path, names=["layer_use", "strategies"]))
    assert [picture.name for picture in pictures] == [
        "run/layer_use",
        "run-2/layer_use",
        "run-2-2/layer_use",
        "strategies",
    ]
    runs = json.loads(Image.open(tmp_path / "strategies.png").text["Description"])["runs"]
    assert [(run["label"], run["model"]["id"]) for run in runs] == [
        (label, "synthetic") for label in ("run", "run (2)", "run-2")
    ]
    assert (tmp_path / "run-2-2" / "layer_use.csv").is_file()


def test_runs_that_cannot_be_compared_are_told_so(source, tmp_path):
    elsewhere = source.experiment.sequences.assign(prompt="another")
    for change, why in (({"metric": "chrf"}, "rougeL and chrf"), ({"sequences": elsewhere}, "share none")):
        other = Source(experiment=replace(source.experiment, **change), known=source.known)
        [picture] = draw_all([source, other], tmp_path, names=["strategies"])
        assert why in picture.skipped


def test_figures_of_a_search_that_has_not_ended_say_so(run_writer, tmp_path):
    folder = run_writer(tmp_path / "run", evaluated="ab")
    names = ["minimal_budgets", "oracle_quality"]
    captions = [drawing_of(name, labelled([Source.open(folder)])).caption for name in names]
    assert all("Preliminary, the search has not ended (2 of 3 sequences); 2 sequences" in one for one in captions)
    figure = pictured("oracle_quality", Source.open(folder))[1]
    assert "preliminary, the search has not ended" in texts(figure).replace("\n", " ")
    both = [Source.open(folder), Source.open(run_writer(tmp_path / "other"))]
    assert "run (2 of 3 sequences), other (3 of 3 sequences)" in drawing_of("strategies", labelled(both)).caption
    with RunWriter.reopen(folder) as writer:
        writer.write_summary({})
    assert "reliminary" not in drawing_of("oracle_quality", labelled([Source.open(folder)])).caption


def test_captions_name_model_data_and_criterion_and_no_folder(small):
    known = {"model": {"id": "/home/someone/models/tiny"}, "data": {"source": "/srv/data/questions.jsonl"}}
    one = replace(small, experiment=replace(small.experiment, provenance=known))
    assert drawing_of("layer_use", labelled([one])).caption.endswith(
        "Model: tiny; data: questions.jsonl; criterion: ROUGE-L."
    )
    caption = drawing_of("oracle_quality", labelled([one, small])).caption
    assert "Model: tiny and synthetic; data" in caption and "The oracle sees the references" in caption


def test_numbers_over_all_sequences_are_those_of_the_figure(source):
    summary = source.summary
    assert summary.untold
    for name, number, other in (
        ("oracle_quality", "equal_quality_fraction", "per_sequence_fraction"),
        ("minimal_budgets", "per_sequence_fraction", "equal_quality_fraction"),
    ):
        detail = drawing_of(name, labelled([source])).detail
        untold = f"{summary.untold} of which tell nothing"
        assert f"over all {summary.sequences} sequences, {untold}, {percent(getattr(summary, number))}" in detail
        assert percent(getattr(summary, other)) not in detail


@pytest.mark.parametrize("name", ["depth_right_wrong", "controllers", "luck_curve", "skip_against_exit"])
def test_titles_of_panels_are_level(long_named, name):
    figure = draw_case(name, long_named)[1]
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    tops = [axes._left_title.get_window_extent().y1 for axes in figure.axes]
    assert len(tops) == 2 and tops[0] == pytest.approx(tops[1], abs=1)


def test_long_settings_lose_the_names_of_their_parameters_first(source):
    def labels(width):
        figure = pictured("controllers", source, config=FigureConfig(width=width))[1]
        return [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]

    assert "confidence 0.3" in labels(3.25) and "confidence budget=0.3" in labels(12)


def test_the_mean_of_a_task_is_in_the_legend_with_its_interval(source):
    figure = pictured("minimal_budgets", source)[1]
    [legend] = figure.legends
    entries = dict(zip([text.get_text() for text in legend.get_texts()], legend.legend_handles, strict=True))
    assert [label for label in entries if label.startswith("mean of a task")] == ["mean of a task, bootstrap range"]
    shuffled = percent(source.told.summary.null_per_sequence_fraction)
    assert f"mean, shuffled references: {shuffled}" in entries
    assert legend._ncols == 2


def test_an_unknown_figure_is_named(source, tmp_path):
    with pytest.raises(InputError, match=r"unknown figure 'orcale'.*; available: "):
        draw_all([source], tmp_path, names=["orcale"])


def test_labels_follow_the_cost(experiment):
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
    source = Source(experiment=timed, known=summarise(timed, bootstrap=20, permutations=2))
    for name in ("oracle_quality", "minimal_budgets", "luck_curve", "depth_right_wrong"):
        assert "fraction of ms/token" in texts(pictured(name, source)[1]).replace("\n", " ")
        assert "layers per" not in texts(pictured(name, source)[1]).replace("\n", " ")
    table, _ = pictured("minimal_budgets", source)
    # Where the full model scores nothing no layer runs: what is left is what every token costs.
    assert set(table.loc[table["zero_quality"], "upper"]) == {0.25}


MEASURED = ("skip_against_exit", "throughput", "controllers", "static_masks", "drafts")
"""Figures of what other commands add to a run."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*MEASURED, "rarity", "strategies")])
def test_runs_that_tell_nothing_draw_no_triumph(experiment, tmp_path, name):
    zeros = replace(
        experiment,
        evaluations=experiment.evaluations.query("sequence == 's000'").assign(rougeL=0.0, family="full"),
        sequences=experiment.sequences.iloc[:1],
    )
    [picture] = draw_all([Source(experiment=zeros, known=summarise(zeros, bootstrap=0))], tmp_path, names=[name])
    if name == "depth_right_wrong":  # right and wrong are counted by the metric alone
        assert len(picture.files) == len(KINDS)
    else:
        assert picture.skipped == (
            "no sequence of 'run' can tell something: on 1 the full model scores zero, so that every allocation "
            "qualifies"
        )
    some = zeros.evaluations["number"].to_numpy() % 2 / 2 + 0.25
    one = replace(zeros, evaluations=zeros.evaluations.assign(rougeL=some))
    [picture] = draw_all([Source(experiment=one, known=summarise(one, bootstrap=0))], tmp_path, names=[name])
    assert len(picture.files) == len(KINDS)


def test_a_model_that_is_always_right_draws_too(experiment, tmp_path):
    right = replace(experiment, evaluations=experiment.evaluations.assign(rougeL=1.0))
    source = Source(experiment=right, known=summarise(right, bootstrap=20, permutations=1))
    [picture] = draw_all([source], tmp_path, names=["depth_right_wrong"])
    assert set(pd.read_csv(picture.files[2])["samples"]) == {"right"}


@pytest.mark.parametrize("change", [{"metric": "agreement", "kind": "tokens"}, {"metric": "x", "kind": "likelihood"}])
def test_metrics_without_right_and_wrong_are_named(source, tmp_path, change):
    other = replace(source, experiment=replace(source.experiment, **change))
    [picture] = draw_all([other], tmp_path, names=["depth_right_wrong"])
    assert f"not {change['metric']}" in picture.skipped


def test_a_task_may_be_called_anything(experiment, source, tmp_path):
    names = ["$\\foo_{$ \x1b[31m", 'a # b, "c"', "all"]
    hostile = experiment.sequences.assign(task=[names[i % 3] for i in range(len(experiment.sequences))])
    named = replace(source, experiment=replace(experiment, sequences=hostile))
    for picture in draw_all([named], tmp_path, names=["layer_use", "minimal_budgets"]):
        shown = {name.replace("\x1b", r"\x1b") for name in names}  # CSV controls no terminal
        assert shown <= set(pd.read_csv(picture.files[2])["task"])


def test_an_unwritable_folder_is_one_line(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write figures") as caught:
        list(draw_all([source], tmp_path / "file" / "out", names=["layer_use"]))
    assert "\n" not in str(caught.value)


def run_script(name, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / "figures" / f"{name}.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )


@pytest.mark.slow
def test_scripts_draw_the_same_bytes_as_another_process(run_writer, tmp_path):
    folder = run_writer(tmp_path / "run")
    write_measures(folder, load(folder))
    write_comparison(folder)
    write_static(folder, load(folder).layers)
    write_drafts(folder, load(folder).layers)
    done = run_script("make_all", folder, "--out", tmp_path / "script", "--criterion", "rouge1")
    assert (done.returncode, done.stderr) == (0, "")
    files = [Path(line) for line in done.stdout.splitlines()]
    here = draw_all([Source.open(folder, criterion="rouge1")], tmp_path / "here")
    assert [file.name for file in files] == [file.name for picture in here for file in picture.files]
    assert len(files) == len(KINDS) * len(FIGURES)
    for file in files:
        assert file.read_bytes() == (tmp_path / "here" / file.name).read_bytes()


def test_every_figure_has_its_script():
    scripts = {path.stem: path.read_text() for path in (ROOT / "figures").glob("*.py")}
    assert set(scripts) == {*NAMES, "make_all", "script"}
    assert all(f'main("{name}")' in scripts[name] and scripts[name].count("\n") <= 10 for name in NAMES)


@pytest.mark.slow
def test_scripts_refuse_in_one_line(stored_run, tmp_path):
    for name, run, said in (
        ("oracle_quality", tmp_path, "error: a run folder is required"),
        ("throughput", stored_run, "throughput: run `oracle measure"),
    ):
        done = run_script(name, run, "--out", tmp_path / "out")
        assert done.returncode == 2
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_every_figure_draws_what_its_table_says(drawn):
    """Labelled axes with marks on them, and a table of numbers that vary."""
    for name, (table, figure) in drawn.items():
        axes = [one for one in figure.axes if one.has_data()]
        assert axes, name
        assert all(one.get_xlabel() or one.get_ylabel() for one in axes), name
        numbers = table.select_dtypes("number")
        # Standard deviations are of several runs of one label only; the interval of a mean over tasks of none.
        numbers = numbers[[column for column in numbers if "deviation" not in column]]
        assert (numbers.nunique() > 1).any(), name
        assert np.isfinite(numbers.to_numpy(np.float64)).any(axis=0).all(), name


def test_pictures_are_counted_before_they_are_drawn(small, tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.plots.registry.save", lambda *_, **__: [])
    pictures = {}
    for runs, names in ((1, None), (2, ["layer_use", "luck_curve"]), (2, None)):
        pictures[runs] = [one.name for one in draw_all([small] * runs, tmp_path, names=names)]
        assert len(pictures[runs]) == picture_count(runs, names)
    assert "strategies" not in pictures[1] and "strategies" in pictures[2], "of one run only if asked for"


def test_several_runs_of_a_figure_are_one_picture(small, tmp_path):
    pictures = list(draw_all([small, small], tmp_path, names=["oracle_quality"], labels=["a", "b"]))
    assert [picture.name for picture in pictures] == ["oracle_quality"]
    assert set(pd.read_csv(tmp_path / "oracle_quality.csv")["run"]) == {"a", "b"}
    with pytest.raises(InputError, match="one label per run is required, got 1 for 2 runs"):
        list(draw_all([small, small], tmp_path, labels=["a"]))


def test_strategies_of_one_run_are_refused(small, tmp_path):
    [picture] = draw_all([small], tmp_path, names=["strategies"])
    assert "two runs or more" in picture.skipped
