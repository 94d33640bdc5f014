"""Runs that can tell nothing end in a sentence: in the terminal, the report, figures, SQL and comparisons."""

import json
from pathlib import Path

import pytest
from tiny import jsonl

import analysis
from analysis.plots.registry import draw_all
from analysis.plots.source import Source
from analysis.report import write_report
from oracle.config import SearchConfig
from oracle.pipeline.run import run_search
from oracle.store import Run
from oracle.utils.progress import silent

LETTERS = [
    {"id": f"q{n}", "prompt": f"Question {n}? A or B?", "choices": ["A", "B"], "answer": n % 2, "task": "mmlu"}
    for n in range(4)
]
RUSSIAN = [
    {"id": f"r{n}", "prompt": f"Вопрос {n}?", "references": ["Ответ на вопрос" + " да" * n], "task": "ru"}
    for n in range(4)
]


@pytest.fixture(scope="module")
def search_rows(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """Searches rows of data."""

    def run(rows: list[dict[str, object]], **settings: object) -> Run:
        data = jsonl(tmp_path_factory.mktemp("data") / "data.jsonl", *rows)
        how = {"model": str(tiny_folder), "data": data, "max_new_tokens": 4, "evaluations": 8, "device": "cpu"}
        return run_search(SearchConfig(**{**how, **settings}), tmp_path_factory.mktemp("runs") / "run", watch=silent)

    return run


@pytest.fixture(scope="module")
def letters(search_rows) -> Run:
    return search_rows(LETTERS, criterion="choice_accuracy", target_delimiter="")


@pytest.fixture(scope="module")
def russian(search_rows) -> Run:
    return search_rows(RUSSIAN, criterion="rougeL")


@pytest.mark.parametrize(
    ("name", "reason", "remedy"),
    [("letters", "one token", "use --scope decode-last"), ("russian", "unseen references", "use --criterion chrf")],
)
def test_a_run_that_tells_nothing_ends_in_a_sentence(
    name: str, reason: str, remedy: str, command, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run: Run = request.getfixturevalue(name)
    summary = run.summary()
    assert (summary["informative_sequences"], summary["vacuous"]) == (0, {reason: 4})
    assert summary["informative"] is None
    logged = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    [warned] = [line for line in logged if line["event"] == "vacuous"]
    assert (
        warned["reason"] == reason
        and "4 of 4 sequences can tell nothing" in warned["note"]
        and remedy in warned["note"]
    )
    # The terminal, after a search and in queries.
    from oracle.cli.run_tables import show_summary

    show_summary(summary, analysis.queries.budgets(run.folder))
    code, budgets, _ = command("query", run.folder)
    assert code == 0 and remedy in budgets and f"Proven minimal: {summary['certified']} of 4" in budgets
    # SQL.
    found = run.query("SELECT vacuous, informative FROM minimal_budgets")
    assert set(found["vacuous"]) == {reason} and not found["informative"].any()
    # The report.
    page = write_report(run.folder, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "This run tells nothing about layers" in page and remedy in page
    assert "are enough" not in page
    # Figures.
    names = ["oracle_quality", "minimal_budgets", "layer_use", "luck_curve", "strategies"]
    for picture in draw_all([Source.open(run.folder)], tmp_path / "figures", names=names):
        assert (
            picture.skipped
            and "no sequence of 'run' can tell something" in picture.skipped
            and remedy in picture.skipped
        )
    # Comparisons.
    code, text, _ = command("query", run.folder, "--against", run.folder)
    assert code == 0 and "None of the 4 shared sequences tells something in both runs: no mean is stated." in text
    with pytest.raises(analysis.InputError, match="tells something in both runs"):
        analysis.compare([run.folder, run.folder])


def test_the_terminal_states_no_fraction(letters: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from analysis.queries import budgets
    from oracle.cli.run_tables import show_summary

    show_summary(letters.summary(), budgets(letters.folder))
    text = " ".join(capsys.readouterr().out.split())
    assert "No fraction is stated: no sequence can tell one allocation from another." in text
    assert "4 of 4 sequences can tell nothing: on 4 what is scored is one token" in text
    assert "suffices" not in text


def test_scope_decode_last_tells_letters_apart(search_rows) -> None:
    """One-token choices depend on the allocation there."""
    run = search_rows(LETTERS, criterion="choice_accuracy", target_delimiter="", scope="decode-last", evaluations=32)
    assert run.summary()["vacuous"] == {}
    choices = run.evaluations().groupby("sequence")["choice"].nunique()
    assert (choices > 1).any()


def test_cyrillic_letters_are_seen_by_chrf(search_rows) -> None:
    assert search_rows(RUSSIAN, criterion="chrf").summary()["vacuous"] == {}


def test_oracle_data_says_it_before_any_model_is_loaded(command, tiny_folder: Path, tmp_path: Path) -> None:
    data = jsonl(tmp_path / "letters.jsonl", *LETTERS)
    letters = ["--model", tiny_folder, "--criterion", "choice_accuracy", "--target-delimiter", ""]
    code, text, _ = command("data", data, *letters)
    assert code == 0 and "Note: 4 of 4 sequences can tell nothing: what is scored is one token" in " ".join(
        text.split()
    )
    assert "can tell nothing" not in command("data", data, *letters, "--scope", "decode-last")[1]
    # A space before each letter is a token of its own here: the letter after it depends on the allocation.
    assert "can tell nothing" not in command("data", data, *letters[:-1], " ")[1]


def test_a_random_model_that_scores_zero_everywhere_ends_in_a_sentence(search_rows, command, tmp_path: Path) -> None:
    rows = [{"id": f"e{n}", "prompt": f"Question {n}?", "references": [f"A sentence of words {n}"]} for n in range(4)]
    run = search_rows(rows, criterion="rougeL")
    summary = run.summary()
    assert (summary["zero_quality_sequences"], summary["informative_sequences"], summary["vacuous"]) == (4, 0, {})
    page = write_report(run.folder, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "This run tells nothing about layers" in page and "on 4 the full model scores zero" in page
    for picture in draw_all([Source.open(run.folder)], tmp_path / "figures", names=["oracle_quality", "luck_curve"]):
        assert picture.skipped and "on 4 the full model scores zero" in picture.skipped
    assert not run.query("SELECT informative FROM minimal_budgets")["informative"].any()
    _, text, _ = command("query", run.folder, "--against", run.folder)
    assert "None of the 4 shared sequences tells something in both runs: no mean is stated." in text
