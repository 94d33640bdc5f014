"""What the documented Python snippets print: the numbers of the headline, and a table that LaTeX reads."""

import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from docs.blocks import ROOT, Block, blocks
from tables import judged

import analysis
from analysis.formatting import percent
from oracle.cli import main
from oracle.store import Run

TUTORIAL = ROOT / "docs" / "tutorial.md"


def block_with(page: Path, text: str) -> Block:
    [found] = [block for block in blocks(page) if block.language == "python" and text in block.text]
    return found


def printed(block: Block) -> str:
    with redirect_stdout(out := StringIO()):
        exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    return out.getvalue()


@pytest.fixture(scope="module")
def headline(demo: Path) -> str:
    """What `oracle query --summary` prints of a run that has sequences of both kinds."""
    summary = Run.open(demo).summary()
    assert 0 < summary["informative_sequences"] < summary["sequences"]
    with redirect_stdout(out := StringIO()):
        assert main(["query", str(demo), "--summary"]) == 0
    return out.getvalue()


def test_plain_names_give_the_numbers_of_the_headline(demo: Path, headline: str) -> None:
    stored, computed = Run.open(demo).headline(), analysis.summarise(analysis.informative(demo))
    everything = analysis.summarise(demo)
    for name in ("per_sequence_fraction", "equal_quality_fraction"):
        assert percent(stored[name]) in headline
        assert stored[name] == getattr(computed, name) == getattr(everything.headline, name)
    assert stored["per_sequence_fraction"] != everything.per_sequence_fraction, "the test can tell them apart"
    [row] = analysis.savings(demo, by=[], resamples=0).query("counted == 'informative'").to_dict("records")
    assert row["mean"] == stored["per_sequence_fraction"]


def test_the_tutorial_prints_the_headline(
    demo: Path, headline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(demo)
    monkeypatch.chdir(tmp_path)
    first = printed(block_with(TUTORIAL, "luck_adjusted")).split()[0]
    assert percent(float(first.removeprefix("np.float64(").rstrip(")"))) in headline


def test_no_page_takes_a_headline_from_the_numbers_over_all() -> None:
    """`summary()` and `summarise(run)` are over all sequences: no snippet prints their fractions as they are."""
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for block in blocks(page):
            if block.language == "python":
                assert not re.search(r"summary\(\)\[\"\w+_fraction\"\]|summarise\([^)]*\)\.\w+_fraction", block.text), (
                    block
                )


@pytest.fixture
def by_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`analysis.savings` of a run with a task of an awkward name, and one of which no sequence can tell something."""
    seen_NKR = np.linspace(0, 1, 24).reshape(4, 6, 1)
    seen_NKR[2:] = 0.0
    run = judged(seen_NKR, floor=0.0)
    named = run.sequences.assign(task=["multiple_choice", "multiple_choice", "R&D 50%", "R&D 50%"])
    object.__setattr__(run, "sequences", named)
    savings = analysis.savings
    monkeypatch.setattr(analysis, "savings", lambda _, by: savings(run, by, resamples=20))
    yield


def test_the_table_of_the_tutorial_is_what_latex_reads(by_task: None) -> None:
    text = printed(block_with(TUTORIAL, "to_latex"))
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    assert r"multiple\_choice" in body and r"R\&D 50\%" in body and r"95 \% low" in body
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3 and {len(re.split(r"(?<!\\)&", row)) for row in rows} == {6}
    bare = re.sub(r"\\[_&%]", "", "".join(rows))
    assert not set("_%#$^~") & set(bare)
    assert not re.search(r"nan|None", text, re.IGNORECASE)
    assert [cell.strip(" \\") for cell in rows[2].split(" & ")[2:]] == ["--"] * 4
    assert not any("_" in name.replace(r"\_", "") for name in rows[0].split("&")), "headings are words"
    assert r"\usepackage{booktabs}" in TUTORIAL.read_text(encoding="utf-8")
