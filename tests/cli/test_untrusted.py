"""Data and model outputs are shown as text: they neither are markup nor control the terminal."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import jsonl

from oracle.store import RunWriter
from oracle.types import Outcome, Sequence

Command = Callable[..., tuple[int, str, str]]

HOSTILE = "[red]a[/red] [/b] \x1b[31mb\x1b[2J \x1b]0;title\x07 c\r\x08\x9b1m \u202ed\n[link=file:///x]e"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 30 layers in which every text is hostile."""
    config = {"criterion": "rougeL", "tolerance": 0.0, "scope": "decode"}
    manifest = {"config": config, "model": {"layers": 30, "fingerprint": "f00d"}, "seed": 0}
    writer = RunWriter(tmp_path / "run", manifest)
    writer.write_sequences([Sequence(id=HOSTILE, prompt=HOSTILE, references=(HOSTILE,), task=HOSTILE)], [3])
    rows = []
    for number, (layers, family) in enumerate([(30, "full"), (12, "random"), (3, "random")]):
        outcome = Outcome(
            allocation=tuple(range(layers)),
            family=family,
            tokens=(1,),
            text=HOSTILE,
            finished=True,
            margin=1.0,
            quality={"rougeL": 0.5},
        )
        rows.append((HOSTILE, number, outcome))
    writer.append(rows, ["rougeL"])
    return tmp_path / "run"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes output look as if it went to a terminal of some width."""

    def pretend(columns: int) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(columns)}.items():
            monkeypatch.setenv(name, value)

    return pretend


@pytest.mark.parametrize("question", [(), ("--sequence", HOSTILE), ("--budget", "0.5")], ids=["all", "one", "oracle"])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_queries_show_it_as_text(
    command: Command, run: Path, question: tuple[str, ...], is_terminal: bool, terminal: Callable[[int], None]
) -> None:
    if is_terminal:
        terminal(500)
    code, out, err = command("query", run, *question)
    assert code == 0 and err.startswith("oracle: note: the search of ") and err.count("\n") == 1
    assert "[red]a[/red] [/b]" in out
    assert "[link=file:///x]e" in out
    # The colours of our own tables aside, nothing controls the terminal.
    assert ("\x1b[1m" in out) == is_terminal
    assert "\x1b[31m" not in out
    assert not CONTROL.search(COLOUR.sub("", out))


def test_a_search_shows_it_as_text(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    rows = ({"id": f"{i}{HOSTILE}", "prompt": HOSTILE, "references": [HOSTILE], "task": HOSTILE} for i in range(2))
    data = jsonl(tmp_path / "hostile.jsonl", *rows)
    small = ["--max-new-tokens", 2, "--evaluations", 4, "--no-figures", "--out", tmp_path / "run"]
    code, out, err = command("search", "--model", tiny_folder, "--data", data, *small)
    assert code == 0
    assert "[red]a[/red] [/b]" in out
    assert not CONTROL.search(out + err)


def test_an_error_shows_it_as_text(command: Command, run: Path) -> None:
    code, out, err = command("query", run, "--sequence", f"other {HOSTILE}")
    assert (code, out) == (2, "")
    assert "other [red]a[/red]" in err
    assert not CONTROL.search(err)
    assert err.count("\n") == 1


@pytest.mark.parametrize("columns", [52, 80, 120])
def test_a_narrow_terminal_breaks_no_number(
    command: Command, run: Path, columns: int, terminal: Callable[[int], None]
) -> None:
    terminal(columns)
    lines = COLOUR.sub("", command("query", run)[1]).splitlines()
    assert max(map(len, lines)) <= columns
    row = r" 3 +0 +10\.0 % +0\.500 +0\.500 "
    # The longest word of the id is as wide as five numbers; half of them stand in a further part.
    for part in (r" 3 +0 +10\.0 %", r" 0\.500 +0\.500") if columns < 80 else (row,):
        assert [line for line in lines if re.search(part, line)]
    assert any("[link=file:///x]e" in line for line in lines), "a word of the id is whole"
    if columns < 120:
        assert any(re.search(r" 0-2 *$", line) for line in lines), "ranges, where there is no room for the pattern"
    else:
        assert any(3 * "█" + 27 * "·" in line for line in lines)


def test_a_pipe_gets_whole_lines(command: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = command("query", run)
    assert len(out.splitlines()) == 4, "heading, sequence, why it tells nothing, proofs"
    assert 3 * "█" + 27 * "·" in out
