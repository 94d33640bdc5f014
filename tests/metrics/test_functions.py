"""Metrics that are functions of the user's own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import analysis
from oracle.errors import InputError
from oracle.metrics import function_value, get_metric, load_function
from oracle.metrics.functions import _load
from oracle.store import Run
from oracle.utils import consent

Command = Callable[..., tuple[int, str, str]]

MODULE = '''
def share(references, output, record):
    """Share of the letters of the row's word that the output has, and something for every output."""
    word = record["word"]
    return (1 + sum(letter in output for letter in word)) / (1 + len(word))

share.upper_bound = lambda references, output, record, remaining: 1.0

def same(references, output, record):
    return 0.7

def letters(references, output, record):
    """Of the output alone, and something for every output."""
    return 1.0 + sum(map(ord, output)) % 101

def both(references, output, record):
    return 1.0 + sum(map(ord, output + 3 * references[0])) % 101

def two(references, output):
    return 1.0

def text(references, output, record):
    return "high"

def fails(references, output, record):
    raise KeyError("word")
'''


@pytest.fixture(autouse=True)
def nothing_imported() -> Iterator[None]:
    """What a test imports does not reach the next."""
    yield
    _load.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a user with a module and data."""
    (tmp_path / "own_metrics.py").write_text(MODULE)
    rows = [f'{{"prompt": "Say {one}.", "references": ["{one}"], "word": "abc{one}"}}' for one in range(4)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_function_is_searched_by_and_read_without_it(
    folder: Path, command: Command, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, how = "own_metrics:share", ("--model", tiny_folder, "--device", "cpu", "--no-figures", "--quiet")
    given = ("--data", "data.jsonl", "--evaluations", 10, "--max-new-tokens", 6, *how)
    code, _, error = command("search", *given, "--criterion", name, "--out", "run")
    assert (code, error) == (0, "")
    run = Run.open(folder / "run")
    found = run.evaluations()
    assert found[name].between(0.2, 1).all() and found[f"null_{name}"].notna().all()
    assert '"word": "abc0"' in run.sequences()["record"][0]
    # Pruned, the qualifying budgets are the same.
    code, _, error = command("search", *given, "--criterion", name, "--prune", "--out", "pruned")
    assert (code, error) == (0, "")
    uppers = [Run.open(folder / one).table("minimal_budgets")["upper"].tolist() for one in ("run", "pruned")]
    assert uppers[0] == uppers[1]
    # Reading runs nothing; what runs code asks for consent.
    consent._ALLOWED.clear()
    monkeypatch.setattr("oracle.metrics.functions._imported", lambda name: pytest.fail("reading imports nothing"))
    _load.cache_clear()
    experiment = analysis.load(folder / "run")
    assert experiment.metric == name and analysis.summarise(experiment).sequences == 4
    for arguments in (
        ("compare", "run", "--controllers", "unified", "--no-timing", "--quiet"),
        ("search", "--from", "run", "--evaluations", 12, "--out", "other", *how),
    ):
        code, _, error = command(*arguments)
        assert code == 2 and f"add --trust-code '{name}'" in error
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    code, _, error = command(
        "compare", "run", "--controllers", "unified", "--no-timing", "--quiet", "--trust-code", name
    )
    assert (code, error) == (0, "")


def test_one_score_for_every_output_tells_nothing(folder: Path, command: Command, tiny_folder: Path) -> None:
    given = ("--data", "data.jsonl", "--model", tiny_folder, "--device", "cpu", "--evaluations", 10, "--no-figures")
    code, text, _ = command("search", *given, "--criterion", "own_metrics:same", "--out", "run")
    text = " ".join(text.split())
    assert code == 0 and "No fraction is stated: no sequence can tell one allocation from another." in text
    assert "on 4 the metric gives every output the same score" in text and "use another --criterion" in text
    assert Run.open(folder / "run").summary()["vacuous"] == {"one score": 4}
    # Read by a metric that tells outputs apart, the sequences count.
    assert not (analysis.budgets(analysis.load(folder / "run", criterion="agreement"))["vacuous"] == "one score").any()


def test_a_criterion_that_reads_no_references_is_said(folder: Path, command: Command, tiny_folder: Path) -> None:
    given = ("--data", "data.jsonl", "--model", tiny_folder, "--device", "cpu", "--evaluations", 20, "--no-figures")
    for name, reads in (("letters", False), ("both", True)):
        code, text, _ = command("search", *given, "--criterion", f"own_metrics:{name}", "--out", name)
        assert code == 0 and ("Shuffled references change no number" in " ".join(text.split())) != reads
        assert reads or 0 < Run.open(folder / name).headline()["per_sequence_fraction"] < 1


BAD = [
    ("own_metrics:two", "must be a function"),
    ("own_metrics:text", "finite number, not 'high'"),
    ("own_metrics:fails", "metric 'own_metrics:fails' failed"),
    ("own_metrics:missing", "no attribute 'missing'"),
    ("no_such_module:f", "No module named 'no_such_module'"),
]


@pytest.mark.parametrize(("name", "message"), BAD)
def test_bad_functions_are_one_line(folder: Path, command: Command, tiny_folder: Path, name: str, message: str) -> None:
    given = ("--data", "data.jsonl", "--model", tiny_folder, "--device", "cpu", "--evaluations", 3, "--quiet")
    code, _, error = command("search", *given, "--criterion", name, "--out", "run")
    assert code == 2 and message in error and error.count("\n") == 1
    if "oracle search --resume" in error:
        assert f"--resume run --trust-code {name}" in error


def test_nothing_is_imported_without_consent(folder: Path) -> None:
    metric = get_metric("own_metrics:share")
    assert (metric.kind, metric.columns) == ("function", ("own_metrics:share", "null_own_metrics:share"))
    with pytest.raises(InputError, match=r"function of your own.*--trust-code 'own_metrics:share'"):
        load_function("own_metrics:share")
    consent.allow("own_metrics:share")
    assert function_value("own_metrics:share", (), "xabx", {"word": "abc"}) == pytest.approx(3 / 4)


def test_stored_outputs_are_read_by_text_metrics_that_the_search_did_not_compute(
    folder: Path, command: Command, tiny_folder: Path
) -> None:
    given = ("--data", "data.jsonl", "--model", tiny_folder, "--device", "cpu", "--evaluations", 4, "--quiet")
    assert command("search", *given, "--no-figures", "--out", "run")[0] == 0
    experiment = analysis.load(folder / "run", "token_f1")
    assert experiment.metric == "token_f1" and experiment.evaluations["token_f1"].between(0, 1).all()
