"""The command line: help, JSON, tables, and how it ends."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest
from tiny import LAYERS

import analysis
from oracle.store import Run

Command = Callable[..., tuple[int, str, str]]

OPTIONS = {
    "": ["demo", "search", "query", "figures", "profile", "cache"],
    "demo": ["--json", "--seed", "--dtype", "--device", "default: auto", "--out", "--quiet"],
    "search": [
        *("--json", "--model", "--data", "--limit", "--tasks", "--prompt-column", "--template", "--reference-column"),
        *("--reference-file", "--choices-column", "--answer-column", "--id-column", "--task-column", "--criterion"),
        *("--tolerance", "--metrics", "--scope", "--max-new-tokens", "--evaluations", "--batch-rows"),
        *("--no-chat-template", "--seed", "--dtype", "--device", "--trust-remote-code", "--out", "--quiet"),
        *(
            "--strategy",
            "--resume",
            "--from",
            "--executor",
            "--workers",
            "--address",
            "--cache",
            "--no-cache",
            "--no-figures",
        ),
        *("rougeL", "log_likelihood", "choice_accuracy", "default: 120", "bfloat16 (bf16)", "default: auto"),
    ],
    "query": ["RUN", "--json", "--sequence", "--budget", "--criterion"],
    "figures": ["RUN", "--json", "--out", "--criterion", "--width", "--no-title", "--format", "--style", "--label"],
    "profile": ["--model", "--dtype", "--device", "--trust-remote-code", "bfloat16 (bf16)", "default: auto"],
    "measure": ["RUN", "--device", "--trust-remote-code", "default: the run's setting"],
    "compare": ["RUN", "--device", "--trust-remote-code", "default: the run's setting"],
    "skiplayer": ["--device", "default: auto"],
}


@pytest.fixture(scope="module")
def run(search: Callable[..., Run]) -> Run:
    """A run to ask; its minimal budgets differ."""
    return search(criterion="agreement", tolerance=0.5, evaluations=2**LAYERS)


@pytest.fixture
def small(tiny_folder: Path, sequences_file: Path) -> list[object]:
    """The arguments of a small search, without --out."""
    return ["search", "--model", tiny_folder, "--data", sequences_file, "--max-new-tokens", 4, "--evaluations", 8]


@pytest.mark.parametrize("name", OPTIONS)
def test_help_names_every_option(name: str, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command(*name.split(), "--help")
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert [option for option in OPTIONS[name] if option not in shown] == []


def test_a_search_shows_its_numbers(command: Command, small: list[object], tmp_path: Path) -> None:
    code, out, err = command(*small, "--quiet", "--criterion", "agreement", "--out", tmp_path / "a run")
    assert (code, err) == (0, "")
    summary = Run.open(tmp_path / "a run").summary()
    low, high = (f"{100 * bound:.1f} %" for bound in summary["per_sequence_interval"])
    for shown in (
        "6 sequences, 8 allocations each, 5 layers; mean agreement of the full model 1.000",
        f"minimal budget per sequence {100 * summary['per_sequence_fraction']:.1f} % {low} - {high} "
        f"{100 * summary['null_per_sequence_fraction']:.1f} %",
        f"oracle at equal mean quality {100 * summary['equal_quality_fraction']:.1f} %",
        f"prompt included {100 * summary['end_to_end_fraction']:.1f} %",
        f"Verified by the cut model's own forward: {summary['verified']} of {summary['verified_of']}",
        f"Next: oracle query '{tmp_path / 'a run'}' --sequence s0",
    ):
        assert shown in " ".join(out.split())
    assert re.search(r"^a +3 +1\.000", out, re.MULTILINE)
    assert (tmp_path / "a run" / "figures" / "oracle_quality.pdf").is_file()


def only_object(answer: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = answer
    assert (code, err) == (0, "")
    assert out.count("\n") == 1, "one object on one line"
    value = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(value, dict)
    return value


def test_json_of_a_search_is_its_summary(command: Command, small: list[object], tmp_path: Path) -> None:
    small = [*small, "--no-figures"]
    answer = only_object(command(*small, "--quiet", "--json", "--out", tmp_path / "run"))
    run = Run.open(tmp_path / "run")
    assert answer == {**run.summary(), "machine": run.manifest["machine"], "run": str(run.folder)}
    # Progress goes to standard error, so that it may be on.
    code, out, err = command(*small, "--json", "--out", tmp_path / "again")
    assert code == 0
    assert only_object((code, out, ""))["run"] == str(tmp_path / "again")
    assert "Searching" in err and "Verifying" in err
    assert not (tmp_path / "run" / "figures").exists(), "as was asked for"


def test_json_of_the_minimal_budgets(command: Command, run: Run) -> None:
    rows = only_object(command("query", run.folder, "--json"))["sequences"]
    assert [(row["sequence"], row["upper"], row["lower"], row["allocation"]) for row in rows] == [
        (row.sequence, row.upper, row.lower, row.allocation.tolist())
        for row in run.table("minimal_budgets").itertuples()
    ]


def test_json_of_a_sequence_is_its_frontier(command: Command, run: Run) -> None:
    answer = only_object(command("query", run.folder, "--sequence", "s1", "--json"))
    best = run.evaluations().query("sequence == 's1'").groupby("cost")["agreement"].max()
    rises = best[best > best.cummax().shift(fill_value=-1.0)]
    assert len(rises) > 1
    assert [(point["cost"], point["quality"]) for point in answer["frontier"]] == list(rises.items())
    assert (answer["prompt"], answer["references"]) == ("Question 1?", ["Answer 1", "1"])
    # A budget includes what costs just that.
    budget = answer["frontier"][1]["fraction"]
    within = only_object(command("query", run.folder, "--sequence", "s1", "--budget", budget, "--json"))
    assert within["frontier"] == answer["frontier"][:2]
    _, out, _ = command("query", run.folder, "--sequence", "s1", "--budget", budget)
    assert f"Allocations below: of at most {100 * budget:.1f} % of the full model's cost (--budget)." in out


@pytest.mark.parametrize("budget", [0.0, 0.3, 0.7, 1.0])
def test_json_of_the_oracle_under_a_budget(command: Command, run: Run, budget: float) -> None:
    answer = only_object(command("query", run.folder, "--budget", budget, "--json"))
    rows = answer["assignment"]
    assert answer["fraction"] == pytest.approx(sum(row["cost"] for row in rows) / len(rows) / LAYERS)
    assert answer["quality"] == pytest.approx(sum(row["quality"] for row in rows) / len(rows))
    assert 0 <= answer["fraction"] <= budget
    assert budget < 1 or answer["quality"] == answer["full_quality"] == 1
    told = int(analysis.budgets(run.folder)["informative"].sum())
    assert (answer["sequences"], answer["informative"]) == (len(rows), told)
    _, out, _ = command("query", run.folder, "--budget", budget)
    assert f"over all {len(rows)} sequences" in out
    assert ("can tell nothing (headlines leave them out)" in " ".join(out.split())) == (told < len(rows))


def test_json_of_figures_names_the_files(command: Command, run: Run, tmp_path: Path) -> None:
    drawn = only_object(command("figures", run.folder, "--out", tmp_path / "pictures", "--json"))["figures"]
    assert sorted(drawn) == sorted(str(path) for path in (tmp_path / "pictures").iterdir())
    assert len(drawn) >= 6


def test_a_figure_for_a_paper(command: Command, run: Run, tmp_path: Path) -> None:
    runs = [run.folder, run.folder, "--label", "135M", "--label", "360M", "--only", "oracle_quality"]
    look = ["--width", 3.25, "--no-title", "--format", "pdf", "--out", tmp_path / "paper"]
    drawn = only_object(command("figures", *runs, *look, "--json"))["figures"]
    assert [Path(path).name for path in drawn] == [f"oracle_quality.{kind}" for kind in ("pdf", "csv", "txt", "json")]
    assert set(pd.read_csv(drawn[1])["run"]) == {"135M", "360M"}
    assert "(360M)" in Path(drawn[2]).read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--width", "0"], "width must be 2 to 30 inches, not 0: 3.25 is one column"),
        (["--format", "pdf,gif"], "format must be one of png, pdf, svg, pgf, not 'gif'"),
        (["--only", "frontier"], "unknown figure 'frontier'"),
        (["--label", "a", "--label", "b"], "one label per run is required, got 2 for 1 run: repeat --label"),
        (["--style", "no.mplstyle"], "cannot read the style sheet 'no.mplstyle'"),
    ],
)
def test_figures_that_cannot_be_are_one_line(command: Command, run: Run, options: list[str], said: str) -> None:
    code, _, error = command("figures", run.folder, *options)
    assert code == 2
    assert said in error and error.count("\n") == 1


def strip(allocation: list[int]) -> str:
    return "".join("█" if layer in allocation else "·" for layer in range(LAYERS))


def test_tables_of_a_query_show_the_numbers(command: Command, run: Run) -> None:
    code, out, err = command("query", run.folder)
    assert (code, err) == (0, "")
    for row in run.table("minimal_budgets").itertuples():
        numbers = rf"{row.upper} +{row.lower} +{20 * row.upper}\.0 % +{row.quality:.3f} +1\.000"
        assert re.search(rf"^{row.sequence} +{numbers} +{strip(row.allocation)} *$", out, re.MULTILINE)
    _, out, _ = command("query", run.folder, "--sequence", "s1")
    assert re.search(r"^prompt +Question 1\?$", out, re.MULTILINE)
    assert re.search(rf"^ *{LAYERS} +100\.0 % +1\.000 +█+ ", out, re.MULTILINE)


def test_the_table_of_an_oracle_shows_its_numbers(command: Command, run: Run) -> None:
    answer = only_object(command("query", run.folder, "--budget", 0.5, "--json"))
    _, out, _ = command("query", run.folder, "--budget", 0.5)
    assert f"uses {100 * answer['fraction']:.1f} %" in out
    assert f"agreement {answer['quality']:.3f} (full model 1.000)" in out
    for row in answer["assignment"]:
        numbers = rf"{row['cost']} +{row['quality']:.3f} +{strip(row['allocation'])}"
        assert re.search(rf"^{row['sequence']} +{numbers} *$", out, re.MULTILINE)


def test_a_run_can_be_read_by_another_metric(command: Command, run: Run) -> None:
    answer = only_object(command("query", run.folder, "--sequence", "s0", "--criterion", "chrf", "--json"))
    mine = run.evaluations().query("sequence == 's0'").set_index("number")
    assert answer["criterion"] == "chrf"
    assert answer["full_quality"] == mine["chrf"][0] != mine["agreement"][0]


def test_an_interruption_is_no_traceback(
    command: Command, small: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(description: str, total: int) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("oracle.utils.progress.silent", interrupted)
    assert command(*small, "--quiet", "--out", tmp_path / "run") == (130, "", "oracle: interrupted\n")


def test_an_output_that_lacks_characters_gets_their_escapes(
    command: Command, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    code, _, err = command("query", run.folder)
    assert (code, err) == (0, "")
    assert b"\\u2588" in written.getvalue()


def test_a_reader_that_has_left_is_no_error(command: Command, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[object] = []

    class Closed(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def fileno(self) -> int:
            return -1

        def write(self, data: Any) -> int:
            attempts.append(data)
            if diverted:
                return len(data)  # the stream of the test itself is deleted
            raise BrokenPipeError

    diverted: list[int] = []
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(Closed()), encoding="utf-8"))
    monkeypatch.setattr("os.dup2", lambda source, target: diverted.append(target))
    assert command("query", run.folder, "--json")[0] == 0
    # What is left is written nowhere: the interpreter would complain about it at its end.
    assert attempts and diverted == [-1]
