"""Texts in CSV: no formula, no control character, and numbers as they are."""

import csv
import io
import sys
from collections.abc import Callable

import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.plots.files import save
from oracle.cli.formats import write_csv
from oracle.utils.text import spreadsheet_text

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    " =1+1",
    "\t=1",
    "\n=1",
    "\r=1",
    "\uff1d1+1",
    "\uff20x",
    "=",
    "-",
]
PLAIN = ["", "a=b", "-5", "+1.5e3", "1", "it's", "ä\n\tb", "日本 👩‍👩‍👧"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_start_with_an_apostrophe(text: str) -> None:
    safe = spreadsheet_text(text)
    assert safe.startswith("'") or not safe.lstrip().startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert spreadsheet_text(text) == text


def test_control_characters_are_escaped() -> None:
    assert spreadsheet_text("a\x1b[2J\x00\x9b\u202e\rb") == r"a\x1b[2J\x00\x9b\u202e\rb"


def test_every_csv_is_neutral(capsys: pytest.CaptureFixture[str], tmp_path: Callable) -> None:
    hostile = '=HYPERLINK("http://x")\x1b[31m'
    write_csv(sys.stdout, [hostile, "n"], [{hostile: hostile, "n": -1}])
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows == [[f"'{hostile[:-5]}\\x1b[31m", "n"], [f"'{hostile[:-5]}\\x1b[31m", "-1"]]
    paths = save(pd.DataFrame({"task": [hostile], "value": [-1.5]}), Figure(), tmp_path / "figure", {"model": hostile})
    text = paths[2].read_text()
    assert "\x1b" not in text
    read = pd.read_csv(paths[2], comment="#")
    assert (read["task"][0], read["value"][0]) == (rows[1][0], -1.5)
