"""The example notebook: it runs, what it shows is stored in it, and nothing of the machine that ran it is."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oracle.store import Run

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parents[3] / "figures" / "example.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return json.loads(EXAMPLE.read_text(encoding="utf-8"))["cells"]


def test_its_cells_run_on_any_run(
    cells: list[dict[str, Any]], search: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("IPython", reason="the notebook shows a picture with IPython")
    search(out=tmp_path / "runs" / "example")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(EXAMPLE), "exec"), names)
    assert isinstance(names["run"], Run)
    assert (tmp_path / "runs" / "example" / "report.html").is_file()


def test_it_is_stored_executed_small_and_without_places(cells: list[dict[str, Any]]) -> None:
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
    assert EXAMPLE.stat().st_size < 250_000
    assert not re.findall(r"/(?:work|home|root|tmp|Users)/", EXAMPLE.read_text(encoding="utf-8"))
