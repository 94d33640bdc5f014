"""Tables in every form: what is printed is what pandas, a parser of Markdown and a reader of LaTeX find in it."""

import io
import json
import re
import shutil
from argparse import _SubParsersAction
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from random_runs import complete_run, random_outcomes
from tiny import LAYERS

import analysis
from analysis import formatting
from oracle.allocations import compact
from oracle.cli import parsers
from oracle.cli.formats import csv_text, latex_text, markdown_text
from oracle.cli.parsing import FORMS
from oracle.cli.run_tables import budgets_table
from oracle.cli.tables import Column, Table, of_records, show_table, words
from oracle.store import Run

Command = Callable[..., tuple[int, str, str]]

HOSTILE = ["a_b & 50% #1 {x} ~^\\", "[red]|<b>`*", "$1 - 2$", "-0.5", "x\x1b[31mred\n2", "", "日本", "\"q\", 's'", "!!"]

PLAIN = {"figures", "report", "export", "completion"}
"""Commands that print lists of files or a script, and no table."""


@pytest.fixture(scope="module")
def run(search: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sequences; their minimal budgets differ."""
    out = tmp_path_factory.mktemp("runs") / "one"
    return search(out=out, criterion="agreement", tolerance=0.5, evaluations=20).folder


def hostile_table() -> Table:
    rows = [{"name": text, "value": n / 7 - 0.5, "section": f"part {n // 5}"} for n, text in enumerate(HOSTILE)]
    value = Column(heading="a\nvalue", text=lambda row: formatting.signed(row["value"]))
    return Table(name="hostile", rows=rows, columns=[words("na_me|", "name"), value], section="section")


def test_all_commands_that_print_tables_have_all_forms() -> None:
    found = {}
    for name, parser in parsers().items():
        nested = [action for action in parser._actions if isinstance(action, _SubParsersAction)]
        each = {f"{name} {one}": inner for one, inner in nested[0].choices.items()} if nested else {name: parser}
        for words_of, one in each.items():
            options = {option for action in one._actions for option in action.option_strings}
            found[words_of] = {f"--{form}" for form in FORMS} | {"--save"} <= options
    assert {name for name, has in found.items() if not has} == PLAIN
    assert {"query", "search", "cache prune", "check", "runs", "draft"} <= {name for name, has in found.items() if has}


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ((), "sequences"),
        (("--at-most", "0.99"), "sequences"),
        (("--by-task",), "tasks"),
        (("--budget", "0.9"), "assignment"),
        (("--sequence", "s3"), "frontier"),
        (("--against", "."), "sequences"),
        (("--allocations", "4"), "allocations"),
    ],
)
def test_csv_is_read_by_pandas_as_it_is(command: Command, run: Path, options: tuple[str, ...], key: str) -> None:
    options = tuple(str(run) if option == "." else option for option in options)
    code, out, _ = command("query", run, *options, "--csv")
    assert code == 0
    read = pd.read_csv(io.StringIO(out), keep_default_na=False, na_values=[""])
    rows = json.loads(command("query", run, *options, "--json")[1])[key]
    assert rows
    assert list(read.columns) == list(rows[0])
    assert len(read) == len(rows)
    for name in rows[0]:
        values = pd.Series([row[name] for row in rows])
        if values.dtype in (np.float64, np.int64, np.bool_):
            pd.testing.assert_series_equal(read[name], values, check_names=False)
        elif isinstance(rows[0][name], list):
            assert [json.loads(text) for text in read[name]] == values.tolist()


def cells_of_markdown(text: str) -> list[list[str]]:
    """The cells of a table as GitHub's Markdown shows them, by another program's parser."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows: list[list[str]] = []
    for token in tokens:
        assert token.type != "paragraph_open", "text outside of the table"
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            children = token.children or []
            assert {child.type for child in children} <= {"text", "text_special"}, "markup in a cell"
            rows[-1].append("".join(child.content for child in children))
    return rows


def test_markdown_shows_the_texts_and_nothing_else() -> None:
    table = hostile_table()
    head, *rows = cells_of_markdown(markdown_text(table))
    assert head == ["na_me|", "a value"]
    indented = [[re.sub(r"^\u2003+", lambda found: "  " * len(found[0]), cell) for cell in row] for row in rows]
    shown = [[cell.replace("\n", " / ").replace("\x1b", " ").rstrip() for cell in line] for line in table.cells()]
    assert [[cell.rstrip() for cell in row] for row in indented] == shown
    assert len(rows) == len(HOSTILE) + 2, "two sections"


BACK = [
    (r"\textbackslash{}", "\\"),
    (r"\textasciitilde{}", "~"),
    (r"\textasciicircum{}", "^"),
    (r"\textless{}", "<"),
    (r"\textgreater{}", ">"),
    (r"\textbar{}", "|"),
    (r"\quad ", "  "),
    (r"\,", " "),
    ("$-$", "-"),
    *((f"\\{char}", char) for char in "&%$#_{}"),
]


def read_latex(text: str) -> list[list[str]]:
    """The cells of a `tabular`; fails on what would not compile or would print something else."""
    comment, *lines = text.split("\n")
    begin, top, *body, bottom, end, last = [line for line in lines if not line.startswith("% ")]
    assert comment.startswith("% needs \\usepackage{booktabs}") and last == ""
    assert (top, bottom, end) == (r"\toprule", r"\bottomrule", r"\end{tabular}")
    found = re.fullmatch(r"\\begin\{tabular\}\{((?:[lr]|p\{0\.4\\linewidth\})+)\}", begin)
    assert found
    columns = len(re.findall(r"[lr](?!inewidth)|p\{", found[1]))
    assert body.pop(1) == r"\midrule"
    rows = []
    for line in body:
        assert line.endswith(r" \\")
        assert not line.lstrip().startswith(("[", "*")), "an option of the line's end before it"
        bare = re.sub(r"\\(?:text\w+\{\}|quad |[&%$#_{},])|\$-\$|\{(?=[\[*])|\}(?= (?:&|\\\\))", "", line[:-3] + " &")
        assert not re.search(r"[%$#_{}~^\\<>|]", bare), f"a character that LaTeX reads otherwise: {bare}"
        cells = re.split(r"(?<!\\) & ", line[:-3])
        assert len(cells) == columns
        rows.append([_back(cell) for cell in cells])
    return rows


def _back(cell: str) -> str:
    cell = re.sub(r"^\{([\[*].*)\}$", r"\1", cell)
    pattern = "|".join(re.escape(one) for one, _ in BACK)
    return re.sub(pattern, lambda found: dict(BACK)[found[0]], cell)


def test_latex_shows_the_texts_and_nothing_else() -> None:
    table = hostile_table()
    head, *rows = read_latex(latex_text(table))
    assert head == ["na_me|", "a value"]
    shown = [[cell.replace("\n", " / ").replace("\x1b", " ").rstrip() for cell in line] for line in table.cells()]
    assert [[cell.rstrip() for cell in row] for row in rows] == shown
    assert "XeLaTeX" in latex_text(table) and "XeLaTeX" not in latex_text(of_records("x", [{"a": "é"}]))


@pytest.mark.parametrize("text", [text for text in HOSTILE if not set(text) & set("<>|\x1b\n[\"'~^\\日")])
def test_latex_escapes_as_pandas_does(text: str) -> None:
    by_pandas = pd.DataFrame({"x": [text]}).style.format(escape="latex").hide(axis="index").to_latex()
    [line] = [line for line in by_pandas.splitlines() if line.endswith(r"\\") and line != r"x \\"] or [r" \\"]
    assert latex_text(of_records("x", [{"x": text}])).splitlines()[5] == line


def test_numbers_in_latex_have_minus_signs_and_dashes() -> None:
    rows = [{"a": "-0.5 (-0.7 - -0.1)", "b": "12.3 % - 45.6 %", "c": "2020-01-02"}]
    columns = [Column(heading=name, text=lambda row, name=name: row[name]) for name in "abc"]
    line = latex_text(Table(name="t", rows=rows, columns=columns)).splitlines()[5]
    assert line == r"$-$0.5 ($-$0.7--$-$0.1) & 12.3\,\%--45.6\,\% & 2020-01-02 \\"


def test_people_read_what_the_run_says(command: Command, run: Path) -> None:
    minimal = analysis.budgets(analysis.load(run))
    head, *rows = cells_of_markdown(command("query", run, "--markdown")[1])
    assert head[:4] == ["Sequence", "budget", "at least", "fraction"]
    expected = [
        [name, str(upper), str(lower), f"{100 * upper / LAYERS:.1f} %", f"{quality:.3f}"]
        for name, upper, lower, quality in minimal[["sequence", "upper", "lower", "quality"]].itertuples(index=False)
    ]
    assert [row[:5] for row in rows] == expected
    tables = command("query", run, "--summary", "--latex")[1].split("\n\n")
    assert len(tables) == 2
    summary = json.loads(command("query", run, "--summary", "--json")[1])
    told = summary["informative"] or summary
    line = next(row for row in read_latex(tables[0] + "\n") if "minimal budget" in row[0])
    assert line[1] == f"{100 * told['per_sequence_fraction']:.1f} %"


def test_saved_tables_have_their_origin_beside_them_and_no_folder(command: Command, run: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(run, tmp_path / "own"))
    file = tmp_path / "tables" / "summary.csv"
    code, out, err = command("query", own, "--summary", "--save", file)
    origin = tmp_path / "tables" / "summary.csv.provenance.json"
    assert (code, err) == (0, "") and out.count("Saved: ") == 1
    assert sorted(file.parent.iterdir()) == sorted([file, file.with_name("summary-tasks.csv"), origin])
    assert pd.read_csv(file)["name"][0] == "per_sequence"
    tasks = pd.read_csv(file.with_name("summary-tasks.csv"), keep_default_na=False, na_values=["None"])
    assert tasks["sequences"].sum() == 6
    about = json.loads(origin.read_text())
    assert about["command"] == "query" and about["options"] == {"folder": "own", "summary": True, "seconds": 60,
                                                               "memory": 2048}  # fmt: skip
    assert about["run"]["model"]["id"] == "tiny" and "layer-oracle" in about["versions"]
    assert str(tmp_path) not in origin.read_text()
    assert command("query", own, "--summary", "--save", file)[0] == 0, "its own file is written again"
    for ending in ("md", "tex", "json"):
        path = file.with_suffix(f".{ending}")
        assert command("query", own, "--by-task", "--save", path, "--csv")[0] == 0
        assert path.read_text() and path.with_name(f"{path.name}.provenance.json").exists()
    read_latex(file.with_suffix(".tex").read_text())
    assert json.loads(file.with_suffix(".json").read_text())["tasks"]


def test_other_peoples_files_and_endings_are_refused(command: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "paper.tex").write_text("mine")
    code, out, err = command("query", run, "--save", tmp_path / "paper.tex")
    assert (code, out) == (2, "") and "already exists, and --save did not write it" in err
    assert (tmp_path / "paper.tex").read_text() == "mine"
    (tmp_path / "new-tasks.csv").write_text("mine")
    code, _, err = command("query", run, "--summary", "--save", tmp_path / "new.csv")
    assert code == 2 and "new-tasks.csv' already exists, and --save did not write it" in err
    assert (tmp_path / "new-tasks.csv").read_text() == "mine" and not (tmp_path / "new.csv").exists()
    code, _, err = command("query", run, "--save", tmp_path / "table.docx")
    assert code == 2 and "--save needs a file that ends in .csv, .md, .tex, .json, not " in err
    code, _, err = command("query", run, "--latex", "--csv", "--json")
    assert code == 2 and "--json and --csv and --latex exclude each other; omit others" in err
    code, _, err = command("query", run, "--by-task", "--save", tmp_path / "paper.tex" / "x.csv")
    assert code == 2 and "cannot write" in err and err.count("\n") == 1


def test_csv_of_several_tables_says_what_it_leaves_out(command: Command, run: Path) -> None:
    _, out, err = command("query", run, "--summary", "--csv")
    assert err == "oracle: note: CSV holds one table, headline; --save also writes tasks\n"
    assert "note" not in out


def test_sql_has_all_forms(command: Command, run: Path, tmp_path: Path) -> None:
    sql = "SELECT sequence, upper FROM minimal_budgets ORDER BY sequence"
    expected = analysis.budgets(analysis.load(run)).sort_values("sequence")
    pairs = [[name, str(upper)] for name, upper in expected[["sequence", "upper"]].itertuples(index=False)]
    assert cells_of_markdown(command("query", run, "--sql", sql, "--markdown")[1])[1:] == pairs
    assert read_latex(command("query", run, "--sql", sql, "--latex")[1])[1:] == pairs
    code, _, _ = command("query", run, "--sql", sql, "--save", tmp_path / "x.csv")
    assert code == 0 and pd.read_csv(tmp_path / "x.csv")["upper"].tolist() == expected["upper"].tolist()


def test_runs_and_checks_and_data_have_all_forms(command: Command, run: Path, tmp_path: Path) -> None:
    head, row = cells_of_markdown(command("runs", run.parent, "--markdown")[1])
    assert dict(zip(head, row, strict=True)) | {"criterion": "agreement", "sequences": "6"} == dict(
        zip(head, row, strict=True)
    )
    code, out, _ = command("check", run, "--csv")
    assert code == 0 and list(pd.read_csv(io.StringIO(out)).columns) == ["kind", "finding"]
    damaged = Path(shutil.copytree(run, tmp_path / "damaged"))
    (damaged / "summary.json").write_text("{}")
    code, out, _ = command("check", damaged, "--csv")
    assert code == 1 and (pd.read_csv(io.StringIO(out))["kind"] == "problem").any()
    code, out, _ = command("check", damaged)
    assert code == 1 and re.search(r": (1 problem|[2-9] problems) \(", out)


def test_one_sequence_is_not_called_sequences(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    complete_run(tmp_path / "one", {"s0": random_outcomes(rng, 5)})
    for options in ((), ("--at-most", "1"), ("--by-task",)):
        out = command("query", tmp_path / "one", *options)[1]
        assert not re.search(r"\b1 \w+s\b(?! of)", out), out
    assert "1 of 1 sequence needs at most 100.0 %." in command("query", tmp_path / "one", "--at-most", 1)[1]


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (formatting.average, 100, "100"),
        (formatting.average, 100.0, "100"),
        (formatting.average, 100.83, "100.8"),
        (formatting.average, 1234.56, "1,234.6"),
        (formatting.average, None, ""),
        (formatting.number, 12345.678, "12346"),
        (formatting.number, 0.000123456, "0.0001235"),
        (formatting.number, 3.0, "3"),
        (formatting.number, float("inf"), "inf"),
        (formatting.number, float("nan"), ""),
        (formatting.percent, 0.2331, "23.3 %"),
        (formatting.percent, float("nan"), ""),
        (formatting.signed, -0.0123, "-0.012"),
        (formatting.signed, -0.0001, "+0.000"),
        (formatting.percent, -1e-9, "0.0 %"),
        (formatting.quality, 0.41849, "0.418"),
        (formatting.counted, 1, "1 sequence"),
        (formatting.counted, 0, "0 sequences"),
        (formatting.counted, 24000, "24,000 sequences"),
    ],
)
def test_numbers_are_written_as_people_do(form: Callable[..., str], value: float | None, expected: str) -> None:
    assert form(value) == expected


def test_means_of_counts_have_one_decimal() -> None:
    assert formatting.counted(100.83, "allocation") == "100.8 allocations"
    assert formatting.counted(1.0, "allocation") == "1 allocation"
    assert formatting.between(0.1, None) == "" and formatting.between(0.1, 0.25) == "0.100 - 0.250"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_table_wider_than_the_terminal_loses_nothing(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(width)}.items():
        monkeypatch.setenv(name, value)
    rows = [
        {"who": f"name-{n}", **{f"value number {k}": 1000 * n + k + 0.5 for k in range(14)}, "text": "word " * 50}
        for n in range(3)
    ]
    show_table(of_records("wide", rows))
    out = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert max(map(len, out.splitlines())) <= width
    for row in rows:
        for k in range(14):
            assert f" {formatting.number(row[f'value number {k}'])}" in out, "whole, on one line"
    assert "Texts of 'text' are cut at 120 characters" in " ".join(out.split())
    assert out.count("who") > 1, "the first column stands in every part"


@pytest.mark.parametrize("width", [40, 55, 72, 80, 92, 93, 94, 96, 100, 120])
def test_ids_patterns_and_numbers_are_never_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(width)}.items():
        monkeypatch.setenv(name, value)
    rng = np.random.default_rng(0)
    rows = [
        {
            "sequence": f"multiple_choice-{n:03}",
            **{"upper": 12, "lower": 3, "fraction": 1.0, "quality": 0.418, "full_quality": 0.0, "zero_quality": True},
            **{"informative": False, "vacuous": ""},
            "allocation": sorted(rng.choice(30, 12, replace=False).tolist()),
        }
        for n in range(4)
    ]
    show_table(budgets_table(rows, 30, "layers"))
    out = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    lines, whole = out.splitlines(), set(out.replace(",", "").split())
    assert max(map(len, lines)) <= width
    parts = sum("Sequence" in line for line in lines)
    assert parts == (1 if width >= 80 else parts)
    for row in rows:
        assert row["sequence"] in whole and {"12", "100.0", "0.418", "0.000"} <= whole
        pattern = "".join("█" if unit in row["allocation"] else "·" for unit in range(30))
        assert pattern in whole if "█" in out else set(compact(row["allocation"]).split(",")) <= whole
    # At 72 columns there are two parts either way; elsewhere ranges save one.
    assert ("█" in out) == (width == 72 or width >= 94), "ranges where patterns would need a further part"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_number_in_a_text_is_not_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(width)}.items():
        monkeypatch.setenv(name, value)
    row = {"method": "oracle budget=0.67", "setting": "speedup=1.5, threshold=0.125", "a": 1.25, "b": 1.25, "c": 1.25}
    show_table(of_records("kept", [row] * 2))
    words = capsys.readouterr().out.split()
    assert {"budget=0.67", "speedup=1.5,", "threshold=0.125", "1.25"} <= set(words)


def test_what_marks_mean_stands_below_every_form(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tried = {f"s{n}": random_outcomes(rng, 8) for n in range(3)}
    tried["s1"][0] = (tried["s1"][0][0], 0.0)
    complete_run(tmp_path / "run", tried)
    meaning = "the full model scores zero, so every allocation qualifies"
    assert f"\n* {meaning}\n" in command("query", tmp_path / "run")[1]
    assert command("query", tmp_path / "run", "--markdown")[1].endswith(f"|\n\n\\* {meaning}\n")
    latex = command("query", tmp_path / "run", "--latex")[1]
    assert latex.endswith(f"\n% * {meaning}\n") and [row[5] for row in read_latex(latex)[1:]].count("0.000 *") == 1
    assert meaning not in command("query", tmp_path / "run", "--csv")[1]


def test_the_first_column_is_folded_no_more_than_it_must(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    row = {"who": "a name of 20 letters", **{f"column-{k}": 1.5 for k in range(7)}}
    show_table(of_records("wide", [row]))
    assert capsys.readouterr().out.count("a name of 20 letters") == 2


def test_csv_of_no_rows_has_its_header() -> None:
    assert csv_text(of_records("none", [], ["a", "b"])) == "a,b\n"
    endless = {"a": float("inf"), "b": [float("-inf")], "c": float("nan")}
    assert csv_text(of_records("endless", [endless])) == "a,b,c\ninf,[null],\n"
    assert markdown_text(of_records("none", [], ["a", "b"])) == "| a | b |\n| --- | --- |\n"
