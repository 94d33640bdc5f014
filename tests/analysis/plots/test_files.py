"""Files of a figure: their formats, sizes, styles and metadata."""

import json
import re
import shutil
import struct
import subprocess
from dataclasses import replace

import matplotlib as mpl
import pytest
from PIL import Image

from analysis import InputError, Source, load
from analysis.plots.files import without_paths
from analysis.plots.registry import draw_all
from analysis.plots.style import FORMATS, FigureConfig
from analysis.plots.tex import tex_text


@pytest.fixture(scope="module")
def source(stored_run):
    experiment = load(stored_run)
    local = {"config": {"model": "/home/someone/models/tiny", "data": "~/data/own.jsonl"}, "host": "desk-7"}
    return Source(experiment=replace(experiment, provenance={**experiment.provenance, **local}), folder=stored_run)


def draw(source, folder, **config):
    [picture] = draw_all([source], folder, names=["minimal_budgets"], config=FigureConfig(**config))
    return {path.suffix[1:]: path for path in picture.files}


@pytest.mark.parametrize("width", [3.25, 6.75])
def test_every_format_has_the_width_asked_for(source, tmp_path, width):
    files = draw(source, tmp_path, width=width, formats=("png", "pdf", "svg"))
    assert list(files) == ["png", "pdf", "svg", "csv", "txt", "json"]
    assert Image.open(files["png"]).width == int(150 * width)
    box = re.search(rb"/MediaBox \[ *0 0 ([\d.]+) ([\d.]+) *\]", files["pdf"].read_bytes())
    assert float(box[1]) == pytest.approx(72 * width)
    assert f'width="{72 * width:g}pt"' in files["svg"].read_text()


def test_without_a_title_the_caption_has_it(source, tmp_path):
    with_title = draw(source, tmp_path / "with", formats=("svg",))
    without = draw(source, tmp_path / "without", formats=("svg",), title=False)
    assert with_title["txt"].read_text() == without["txt"].read_text()
    assert without["txt"].read_text().startswith("A sequence needs at most")

    def height(file):
        return float(re.search(r'height="([\d.]+)pt"', file.read_text())[1])

    assert height(without["svg"]) < height(with_title["svg"]) - 20


def test_equal_figures_give_equal_bytes_and_name_no_place(source, tmp_path):
    first = draw(source, tmp_path / "first", formats=("png", "pdf", "svg"))
    again = draw(source, tmp_path / "again", formats=("png", "pdf", "svg"))
    for kind, path in first.items():
        assert path.read_bytes() == again[kind].read_bytes(), kind
        for private in (b"/home", b"someone", b"desk-7", str(tmp_path).encode()):
            assert private not in path.read_bytes(), kind
    about = json.loads(first["json"].read_text())
    assert about["config"] == {"model": "tiny", "data": "own.jsonl"} and "host" not in about
    assert json.loads(Image.open(first["png"]).text["Description"]) == about
    assert "f00d" in first["svg"].read_text() and b"f00d" in first["pdf"].read_bytes()


def test_paths_are_cut_and_addresses_are_not():
    kept = ["HuggingFaceTB/SmolLM2-135M", "https://example.org/a/b", "openai/gsm8k:main:test", "1/2", "a / b", 3, None]
    assert without_paths(kept) == kept
    cut = {
        "/home/me/costs.json:flops": "costs.json:flops",
        "~/model/": "model",
        "read file:///srv/data/x.csv now": "read x.csv now",
        "json:/data/me/x": "json:x",
        "../up/x": "x",
        "C:\\Users\\me\\x.csv": "x.csv",
        "\\\\server\\share\\x": "x",
        "/a name/with blanks/x y": "x y",
    }
    assert {text: without_paths(text) for text in cut} == cut
    assert without_paths({"user": "me", "deep": [{"cwd": "/x", "n": 1}]}) == {"deep": [{"n": 1}]}


def test_a_style_sheet_is_read_after_the_packages_own(source, tmp_path):
    sheet = tmp_path / "own.mplstyle"
    sheet.write_text("axes.prop_cycle: cycler(color=['12ab34'])\nsavefig.dpi: 50\nfont.size: 7\n")
    before = dict(mpl.rcParams)
    files = draw(source, tmp_path / "own", formats=("svg", "png"), style=sheet, width=4.0)
    assert dict(mpl.rcParams) == before
    assert "#12ab34" in files["svg"].read_text()
    assert Image.open(files["png"]).width == 200
    plain = draw(source, tmp_path / "plain", formats=("svg",), width=4.0)
    assert "#12ab34" not in plain["svg"].read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"width": 0.5}, "width must be 2 to 30 inches, not 0.5"),
        ({"width": float("nan")}, "width must be"),
        ({"font_size": 1}, "font size must be 4 to 30 points, not 1"),
        ({"formats": ()}, "at least one format is required"),
        ({"formats": ("png", "sgv")}, "not 'sgv'; nearest: 'svg'"),
        ({"style": "missing.mplstyle"}, "cannot read the style sheet"),
        ({"style": "axes.linewidth: thick"}, "is no matplotlib style sheet"),
        ({"style": "no.such.setting: 3"}, "is no matplotlib style sheet"),
    ],
)
def test_what_cannot_be_is_one_line(given, said, tmp_path):
    if "style" in given:
        path = tmp_path / "own.mplstyle"
        if ":" in given["style"]:
            path.write_text(given["style"])
        given = {"style": path}
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        FigureConfig(**given)
    assert "\n" not in str(caught.value)


def test_pgf_without_tex_is_refused_before_anything_is_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"needs TeX to measure text, and 'pdflatex' is not installed") as caught:
        draw(source, tmp_path / "out", formats=FORMATS)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def lacking_tex():
    """Why no PGF can be made and set here; None if it can."""
    programs = [name for name in ("pdflatex", "kpsewhich") if shutil.which(name) is None]
    if programs:
        return f"needs TeX: {programs[0]} is not installed"
    styles = ("pgf.sty", "underscore.sty")
    lacking = [name for name in styles if subprocess.run(["kpsewhich", name], stdout=subprocess.DEVNULL).returncode]
    return f"needs TeX with {lacking[0]}" if lacking else None


needs_tex = pytest.mark.skipif(lacking_tex() is not None, reason=str(lacking_tex()))


def with_tasks(source, name):
    """The run with two tasks of that name and a number."""
    sequences = source.experiment.sequences
    tasks = [f"{name} {n % 2}" for n in range(len(sequences))]
    return Source(experiment=replace(source.experiment, sequences=sequences.assign(task=tasks)), folder=source.folder)


@needs_tex
def test_pgf_names_its_origin_first_and_no_folder(source, tmp_path):
    sheet = tmp_path / "own.mplstyle"
    sheet.write_text("pgf.rcfonts: True\n")
    for style in (None, sheet):
        file = draw(source, tmp_path, formats=("pgf",), style=style)["pgf"]
        origin, rest = file.read_text().split("\n", 1)
        assert json.loads(origin.removeprefix("% "))["figure"] == "minimal_budgets"
        assert "pgfpicture" in rest and "Path=" not in rest


@needs_tex
def test_a_document_includes_pgf_with_names_that_look_like_tex(source, tmp_path):
    name = r"\undefined {a_b} 50% & #1 ^~ $x$ <y>"
    named = with_tasks(source, name)
    files = [
        file
        for picture in draw_all(
            [named], tmp_path, names=["minimal_budgets", "layer_use"], config=FigureConfig(formats=("pgf", "svg"))
        )
        for file in picture.files
    ]
    assert all(r"\textbackslash{}" not in file.read_text() for file in files if file.suffix == ".svg")
    pictures = "".join(rf"\input{{{file.name}}}\par" for file in files if file.suffix == ".pgf")
    assert all(r"\#1" in file.read_text() for file in files if file.suffix == ".pgf")
    document = rf"\documentclass{{article}}\usepackage{{pgf}}\begin{{document}}{pictures}\end{{document}}"
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert made.returncode == 0, made.stdout[-2000:]
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")


@needs_tex
def test_what_tex_cannot_set_is_one_line(source, tmp_path):
    named = with_tasks(source, "\N{CYRILLIC CAPITAL LETTER ZHE}")
    with pytest.raises(InputError, match=r"pdflatex cannot set the figure \(.*: use format pdf, or load") as caught:
        draw(named, tmp_path, formats=("pgf",))
    assert "\n" not in str(caught.value)


def test_texts_of_pgf_are_no_commands():
    assert tex_text(r"\input{x}") == r"\textbackslash{}input\{x\}"
    assert tex_text(r"5 % & a_b #1 \$x^2") == r"5 \% \& a\_b \#1 \textdollar{}x\textasciicircum{}2"


def test_png_resolution_is_150_dots_per_inch(source, tmp_path):
    content = draw(source, tmp_path, formats=("png",))["png"].read_bytes()
    at = content.index(b"pHYs") + 4
    assert struct.unpack(">IIB", content[at : at + 9]) == (5906, 5906, 1)
