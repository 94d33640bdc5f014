"""Ready-made questions to stored runs, and SQL on the command line."""

import csv
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import LAYERS, jsonl

import analysis
from analysis import queries as query
from analysis.comparison import compare_two
from oracle.allocations import compact
from oracle.cli.query import EXAMPLES
from oracle.errors import InputError
from oracle.metrics import METRICS
from oracle.store import Run
from oracle.store.files import write_table
from oracle.store.index import index_all
from oracle.utils.text import spreadsheet_text

Command = Callable[..., tuple[int, str, str]]

SETTINGS = {"criterion": "agreement", "tolerance": 0.5, "evaluations": 20}


@pytest.fixture(scope="module")
def run(search: Callable[..., Run]) -> Run:
    """A run whose minimal budgets differ; some outputs were dropped."""
    return search(**SETTINGS, prune=True)


@pytest.fixture(scope="module")
def other(search: Callable[..., Run]) -> Run:
    """Four of the same sequences, searched with less effort."""
    return search(**{**SETTINGS, "evaluations": 8}, limit=4)


def answer(command: Command, *arguments: object) -> dict[str, Any]:
    code, out, err = command("query", *arguments, "--json")
    assert (code, err) == (0, "")
    value = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(value, dict)
    return value


def rows_of(command: Command, *arguments: object) -> list[dict[str, str]]:
    code, out, err = command("query", *arguments, "--csv")
    assert (code, err) == (0, "")
    return list(csv.DictReader(io.StringIO(out)))


def test_a_task_is_told_by_its_own_mean_and_that_of_the_others() -> None:
    values = [("a", 0.2, True), ("a", 0.4, True), ("b", 0.9, True), ("b", 0.0, False), ("c", 0.0, False)]
    common = {"full_quality": 1.0, "zero_quality": False, "certified": False}
    rows = [
        {"sequence": str(n), "task": task, "fraction": fraction, "informative": tells, "vacuous": "", **common}
        for n, (task, fraction, tells) in enumerate(values)
    ]
    found = {row["task"]: (row["fraction_informative"], row["fraction_of_others"]) for row in query.by_task(rows)}
    assert found["a"] == pytest.approx((0.3, 0.9)), "0.9 is the one of b that tells something"
    assert found["b"] == pytest.approx((0.9, 0.3))
    assert found["c"] == (None, pytest.approx(0.5)), "(0.2 + 0.4 + 0.9) / 3, the headline"
    [alone] = query.by_task(rows[:2])
    assert alone["fraction_of_others"] is None


def test_what_is_proven_is_what_the_summary_says(command: Command, run: Run) -> None:
    summary, found = run.summary(), answer(command, run.folder)
    assert len(found["sequences"]) == 6
    for name in ("certified",):
        assert found[name] == summary[name]
    assert found["mean_gap"] == pytest.approx(summary["mean_gap"])
    _, out, _ = command("query", run.folder)
    shown = f"Proven minimal: {summary['certified']} of 6; mean gap of the others {summary['mean_gap']:.1f} layers."
    assert out.splitlines()[-1] == shown


@pytest.mark.parametrize(
    ("certified", "expected"),
    [
        ([], {"certified": 0, "certified_informative": 0, "mean_gap": 3.0}),
        ([0, 1], {"certified": 2, "certified_informative": 1, "mean_gap": 4.0}),
        ([0, 1, 2], {"certified": 3, "certified_informative": 2, "mean_gap": None}),
    ],
)
def test_the_gap_is_that_of_what_is_not_proven(certified: list[int], expected: dict[str, Any]) -> None:
    gaps = [0 if n in certified else 2 + n for n in range(3)]
    rows = [
        {"upper": 5, "lower": 5 - gap, "certified": n in certified, "informative": n != 1} for n, gap in enumerate(gaps)
    ]
    assert query.proven(rows) == expected


@pytest.mark.parametrize("fraction", [0.0, 0.4, 0.6, 1.0])
def test_sequences_that_need_at_most_a_fraction(command: Command, run: Run, fraction: float) -> None:
    minimal = run.table("minimal_budgets")
    expected = {row.sequence for row in minimal.itertuples() if row.upper <= fraction * LAYERS + 1e-6}
    found = answer(command, run.folder, "--at-most", fraction)
    assert {row["sequence"] for row in found["sequences"]} == expected
    assert [row["upper"] for row in found["sequences"]] == sorted(row["upper"] for row in found["sequences"])
    assert (found["of"], found["at_most"]) == (6, fraction)
    _, out, _ = command("query", run.folder, "--at-most", fraction)
    assert f"{len(expected)} of 6 sequences need at most {100 * fraction:.1f} %." in out
    assert {row["sequence"] for row in rows_of(command, run.folder, "--at-most", fraction)} == expected


def test_the_fractions_asked_for_tell_sequences_apart(run: Run) -> None:
    upper = run.table("minimal_budgets")["upper"]
    assert 0 < (upper <= 0.6 * LAYERS + 1e-6).sum() < 6


def test_budgets_by_task(command: Command, search: Callable[..., Run], tmp_path: Path) -> None:
    rows = [{"id": f"s{i}", "task": "ab"[i % 2], "prompt": f"Q {i}?", "references": ["x"]} for i in range(3)]
    run = search(**{**SETTINGS, "evaluations": 8}, data=jsonl(tmp_path / "tasks.jsonl", *rows))
    fractions = run.table("minimal_budgets")["upper"] / LAYERS
    found = answer(command, run.folder, "--by-task")["tasks"]
    assert [(row["task"], row["sequences"]) for row in found] == [("a", 2), ("b", 1)]
    assert [row["fraction"] for row in found] == pytest.approx([(fractions[0] + fractions[2]) / 2, fractions[1]])
    _, out, _ = command("query", run.folder, "--by-task")
    assert [line.split()[:2] for line in out.splitlines()][-2:] == [["a", "2"], ["b", "1"]]


@pytest.mark.parametrize("criterion", [None, "chrf"])
def test_allocations_that_serve_the_most_sequences(command: Command, run: Run, criterion: str | None) -> None:
    metric, tolerance = (criterion, 0.0) if criterion else ("agreement", 0.5)
    evaluations = run.evaluations()
    full = evaluations.query("number == 0").set_index("sequence")[metric]
    served: dict[tuple[int, ...], set[str]] = {}
    tried: dict[tuple[int, ...], set[str]] = {}
    for row in evaluations.itertuples():
        if row.dropped and criterion:
            continue
        tried.setdefault(tuple(row.allocation), set()).add(row.sequence)
        if getattr(row, metric) >= full[row.sequence] - tolerance - 1e-12:
            served.setdefault(tuple(row.allocation), set()).add(row.sequence)
    order = sorted(served, key=lambda allocation: (-len(served[allocation]), len(allocation), allocation))
    options = ["--criterion", criterion] if criterion else []
    found = answer(command, run.folder, "--allocations", 9, *options)["allocations"]
    assert evaluations["dropped"].any()
    assert [
        (tuple(row["allocation"]), row["cost"], row["fraction"], row["sequences"], row["share"], row["tried"])
        for row in found
    ] == [(a, len(a), len(a) / LAYERS, len(served[a]), len(served[a]) / 6, len(tried[a])) for a in order[:9]]
    assert [row["nonzero"] for row in found] == [sum(full[s] > 0 for s in served[a]) for a in order[:9]]
    assert len(found) == min(9, len(served)) > 3


def test_two_runs_are_compared_sequence_by_sequence(command: Command, run: Run, other: Run) -> None:
    mine, theirs = (one.table("minimal_budgets").set_index("sequence")["upper"] / LAYERS for one in (run, other))
    shared = list(theirs.index)
    difference = mine[shared] - theirs
    found = answer(command, run.folder, "--against", other.folder)
    assert [row["sequence"] for row in found["sequences"]] == shared
    for row in found["sequences"]:
        assert (row["fraction"], row["against"]) == (mine[row["sequence"]], theirs[row["sequence"]])
        assert row["difference"] == row["fraction"] - row["against"]
    assert (found["shared"], found["fraction"], found["against"]) == (4, mine[shared].mean(), theirs.mean())
    assert found["difference"] == pytest.approx(difference.mean())
    assert difference.min() <= found["interval"][0] <= found["difference"] <= found["interval"][1] <= difference.max()
    assert found["interval"][0] < found["interval"][1]
    counts = [int(count) for count in ((difference < 0).sum(), (difference == 0).sum(), (difference > 0).sum())]
    assert [found[name] for name in ("lower", "equal", "higher")] == counts
    assert found["settings"]["evaluations"] == [20, 8]
    assert set(found["settings"]) == {"evaluations", "limit", "prune"}
    back = compare_two(other.folder, run.folder)
    assert (back["difference"], back["lower"]) == (pytest.approx(-found["difference"]), found["higher"])
    _, out, _ = command("query", run.folder, "--against", other.folder)
    few = f"bootstrap range, too few sequences (4) for 95 %: {100 * found['interval'][0]:+.1f} to"
    points = f"difference {100 * found['difference']:+.1f} points ({few}"
    assert points in out and "evaluations: 20; against: 8" in out
    assert f"Lower on {counts[0]}, equal on {counts[1]}, higher on {counts[2]}; " in out


def test_a_run_against_itself_differs_in_nothing(run: Run) -> None:
    found = compare_two(run.folder, run.folder)
    assert (found["difference"], found["interval"], found["settings"]) == (0, (0, 0), {})
    assert (found["shared"], found["equal"]) == (6, 6)


@pytest.fixture
def changed(other: Run, tmp_path: Path) -> Callable[..., Path]:
    """Copies the other run with another prompt or other settings."""

    def change(prompt: str | None = None, **config: object) -> Path:
        folder = Path(shutil.copytree(other.folder, tmp_path / f"run-{len(list(tmp_path.iterdir()))}"))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["config"].update(config)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        index_all(folder)
        if prompt is not None:
            table = pq.read_table(folder / "sequences.parquet")
            place = table.column_names.index("prompt")
            table = table.set_column(place, "prompt", pa.array([prompt] * len(table)))
            write_table(folder / "sequences.parquet", table)
        return folder

    return change


def test_runs_that_cannot_be_compared_are_refused(
    run: Run, changed: Callable[..., Path], search: Callable[..., Run], tmp_path: Path
) -> None:
    stranger = search(**SETTINGS, data=jsonl(tmp_path / "x.jsonl", {"id": "x", "prompt": "Q", "references": ["A"]}))
    cases = {
        changed(
            criterion="chrf"
        ): "the same criterion are required, not of agreement and chrf; read both by one metric",
        changed(tolerance=0.25): "the same tolerance are required, not of 0.5 and 0.25; read both by one metric",
        changed(prompt="another"): "on the same sequences are required, but 's0' has another prompt",
        stranger.folder: "share sequences are required, but these have none in common: 's0' and 'x'",
    }
    for folder, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            compare_two(run.folder, folder)
        assert "\n" not in str(caught.value)
    assert compare_two(run.folder, changed(criterion="chrf"), "exact_match")["criterion"] == "exact_match"


def test_runs_of_other_units_are_refused(run: Run, search: Callable[..., Run]) -> None:
    sublayers = search(**{**SETTINGS, "evaluations": 4}, unit="sublayer", limit=2)
    with pytest.raises(InputError, match=r"the same unit are required, not of layer and sublayer$"):
        compare_two(run.folder, sublayers.folder)


SQL = "SELECT sequence, upper, certified, allocation FROM minimal_budgets ORDER BY sequence"


def test_sql_gives_a_table_or_json_or_csv(command: Command, run: Run) -> None:
    expected = [
        (row.sequence, row.upper, row.certified, row.allocation.tolist())
        for row in run.table("minimal_budgets").sort_values("sequence").itertuples()
    ]
    found = answer(command, run.folder, "--sql", SQL)
    assert found["columns"] == ["sequence", "upper", "certified", "allocation"]
    assert [tuple(row.values()) for row in found["rows"]] == expected
    assert [
        (row["sequence"], int(row["upper"]), json.loads(row["certified"]), json.loads(row["allocation"]))
        for row in rows_of(command, run.folder, "--sql", SQL)
    ] == expected
    code, out, _ = command("query", run.folder, "--sql", SQL)
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:]] == [
        [name, str(upper), "yes" if certified else "no", compact(allocation)]
        for name, upper, certified, allocation in expected
    ]
    assert out.splitlines()[0].split() == found["columns"]


def test_values_of_every_kind_can_be_said(command: Command, run: Run) -> None:
    sql = """SELECT 'nan'::DOUBLE AS a, [1.5, 'inf'::DOUBLE] AS b, DATE '2020-01-02' AS c, NULL AS d,
        {'e': 'ä"\n,'} AS e, 0.25 AS f, true AS g, 1 AS h"""
    found = answer(command, run.folder, "--sql", sql)["rows"]
    row = {"a": None, "b": [1.5, None], "c": "2020-01-02", "d": None, "e": {"e": 'ä"\n,'}, "f": 0.25, "g": True, "h": 1}
    assert found == [row]
    texts = {"a": "", "b": "[1.5, null]", "c": "2020-01-02", "d": "", "f": "0.25", "g": "true", "h": "1"}
    [cells] = rows_of(command, run.folder, "--sql", sql)
    assert {name: cells[name] for name in texts} == texts
    assert json.loads(cells["e"]) == row["e"]
    assert answer(command, run.folder, "--sql", "SELECT 1 AS a WHERE false") == {"columns": ["a"], "rows": []}
    assert command("query", run.folder, "--sql", "SELECT 1 AS a WHERE false", "--csv")[1] == "a\n"


HOSTILE = "[red]a[/red] \x1b[31mb\x1b[2J \x1b]0;title\x07 \u202ed"


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("option", [[], ["--csv"], ["--json"]])
def test_hostile_text_controls_no_terminal(
    command: Command, run: Run, monkeypatch: pytest.MonkeyPatch, is_terminal: bool, option: list[str]
) -> None:
    sql = f"SELECT '{HOSTILE}' AS text, ['{HOSTILE}'] AS list, '{'x' * 500}' AS long, 1 AS \"{HOSTILE}\""
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    code, out, err = command("query", run.folder, "--sql", sql, *option)
    assert (code, err) == (0, "")
    assert "[red]a[/red]" in out
    assert "\x1b[31m" not in out and "\x07" not in out and "\u202e" not in out and "\x1b]" not in out
    if option == ["--csv"]:
        # A file may be shown on a terminal later.
        assert next(csv.DictReader(io.StringIO(out)))["text"] == spreadsheet_text(HOSTILE)


def test_the_frontiers_are_those_of_each_sequence(command: Command, run: Run) -> None:
    rows = answer(command, run.folder, "--sql", "FROM frontiers ORDER BY sequence, cost")["rows"]
    for sequence in run.sequences()["sequence"]:
        expected = answer(command, run.folder, "--sequence", sequence)["frontier"]
        mine = [{name: row[name] for name in expected[0]} for row in rows if row["sequence"] == sequence]
        assert mine == expected
    assert len(rows) > 6


REFUSED = {
    "--at-most 1.5": "--at-most needs a fraction of the layers from 0 to 1, not 1.5",
    "--at-most nan": "--at-most needs a fraction",
    "--allocations 0": "--allocations needs at least 1, not 0",
    "--allocations 3 --criterion log_likelihood": "criterion 'log_likelihood' needs values that this run does not have",
    "--allocations 3 --criterion rogueL": "unknown metric 'rogueL'",
    "--by-task --sequence s0": "--sequence and --by-task exclude each other: give only one of them",
    "--by-task --budget 0.5": "--budget works alone or with --sequence, not with --by-task",
    "--against nowhere": "a run folder is required, but 'nowhere'",
    "--sql SELECT": "Parser Error",
    "--sql VALUES(1) --criterion chrf": "--sql reads metrics as columns of evaluations",
    "--sql VALUES(1) --json --csv": "--json and --csv exclude each other",
}


@pytest.mark.parametrize("options", REFUSED)
def test_a_question_is_refused_in_one_line(command: Command, run: Run, options: str) -> None:
    code, out, err = command("query", run.folder, *options.split())
    assert (code, out) == (2, "")
    assert err.startswith("oracle: error: ") and err.count("\n") == 1
    assert REFUSED[options] in err


def test_the_examples_of_the_help_work(command: Command, run: Run, other: Run) -> None:
    text = EXAMPLES.split("views for")[0].split("\n", 1)[1].replace("\n" + " " * 32, " ")
    names = {"runs/demo-2": str(other.folder), "runs/demo": str(run.folder), "facts-001": "s0"}
    lines = [line.strip() for line in text.strip().splitlines()]
    assert len(lines) == 9
    for line in lines:
        wanted = shlex.split(line.split("   ")[0].split("  ")[0])
        assert wanted[:2] == ["oracle", "query"]
        code, out, err = command("query", *(names.get(word, word) for word in wanted[2:]))
        assert (code, err) == (0, ""), line
        assert out


def test_the_help_names_every_column(run: Run) -> None:
    words = set(re.findall(r"\w+", EXAMPLES))
    views = set(run.query("SHOW TABLES")["name"])
    assert views == {"sequences", "evaluations", "frontiers", "minimal_budgets", "tasks"}
    for view in views:
        assert {view, *run.query(f"SELECT * FROM {view} LIMIT 0").columns} - set(METRICS) <= words


def test_random_masks_make_a_statement_that_is_no_proof(command: Command, search: Callable[..., Run]) -> None:
    drawn = search(strategy="spread", evaluations=24, criterion="agreement", tolerance=0.3)
    experiment = analysis.load(drawn.folder)
    rows = answer(command, drawn.folder)["sequences"]
    random = experiment.evaluations[experiment.evaluations["family"] == "random"]
    stated = [row for row in rows if row["statistical"] is not None]
    assert stated
    for row in stated:
        size = len(row["allocation"]) - 1
        mine = random[(random["sequence"] == row["sequence"]) & (random["allocation"].map(len) == size)]
        assert row["random_below"] == len(mine) > 0
        assert 0 < row["random_below_at_most"] < 1
        assert f"of the masks with {size} layer" in row["statistical"]
        assert row["statistical"].endswith("not a proof")
        assert not row["certified"]
        code, out, _ = command("query", drawn.folder, "--sequence", row["sequence"])
        assert code == 0
        [line] = [line for line in out.splitlines() if line.startswith("statistical ")]
        assert row["statistical"] in line
        [proof] = [line for line in out.splitlines() if line.startswith("minimal budget ")]
        assert "qualify" not in proof
        sizes = answer(command, drawn.folder, "--sequence", row["sequence"])["rarity"]
        [own] = [each for each in sizes if each["units"] == size]
        assert (own["drawn"], own["at_most"]) == (row["random_below"], row["random_below_at_most"])


def test_a_guided_search_makes_no_statistical_statement(command: Command, search: Callable[..., Run]) -> None:
    run = search(strategy="auto", evaluations=12)
    rows = answer(command, run.folder)["sequences"]
    assert {(row["random_below"], row["random_below_at_most"], row["statistical"]) for row in rows} == {(None,) * 3}
    whole = answer(command, run.folder, "--sequence", rows[0]["sequence"])
    assert whole["rarity"] is whole["statistical"] is None
    _, out, _ = command("query", run.folder, "--sequence", rows[0]["sequence"])
    assert "statistical" not in out
