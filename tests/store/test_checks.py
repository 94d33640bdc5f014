"""Manifests and summaries from anywhere: an answer, or one line that names file, field, found and expected."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oracle.store import Run
from oracle.store.checks import OPTIONAL, REQUIRED, SHOWN
from oracle.store.index import index_all

Command = Callable[..., tuple[int, str, str]]

BAD: list[Any] = [-1, 10**9, float("nan"), float("inf"), 10**400, [], {}, None, "x", True, [None], {"a": float("nan")}]


@pytest.fixture(scope="module")
def finished(search: Callable[..., Run]) -> Run:
    return search(evaluations=6)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def changed(path: Path, place: str, value: Any) -> None:
    """Writes another value into a JSON file, and renews the digests."""
    content = json.loads(path.read_text())
    *sections, last = place.split(".")
    inner = content
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[last] = value
    path.write_text(json.dumps(content))
    index_all(path.parent)


def refused(error: str, file: str, field: str) -> bool:
    wrong = f"{file}' is damaged ({field}" in error and "found" in error
    return (wrong or f"{file}' is damaged (no {field}" in error) and "expected" in error and error.count("\n") == 1


def asked(run: Path, out: Path) -> Iterator[list[Any]]:
    yield ["query", run]
    yield ["query", run, "--sql", "SELECT count(*) FROM frontiers"]
    yield ["export", run, "--format", "jsonl", "--out", out / "export"]
    yield ["report", run, "--out", out / "report.html"]
    yield ["search", "--resume", run, "--quiet", "--no-figures"]


@pytest.mark.parametrize("name", [*REQUIRED, *OPTIONAL])
def test_a_bad_manifest_is_one_line(run: Path, name: str, command: Command) -> None:
    kind = (REQUIRED | OPTIONAL)[name]
    before = (run / "manifest.json").read_text()
    for value in BAD:
        (run / "manifest.json").write_text(before)
        changed(run / "manifest.json", name, value)
        code, _, error = command("query", run, "--by-task")
        if kind.accepts(value):
            assert code in (0, 2) and error.count("\n") == (code == 2), (value, error)
        else:
            assert code == 2 and refused(error, "manifest.json", name.split(".")[0]), (value, error)


@pytest.mark.parametrize("name", SHOWN)
def test_a_bad_summary_is_one_line(run: Path, name: str, command: Command) -> None:
    before = (run / "summary.json").read_text()
    for value in BAD:
        (run / "summary.json").write_text(before)
        changed(run / "summary.json", name, value)
        if not SHOWN[name].accepts(value):
            with pytest.raises(
                ValueError, match=rf"summary\.json' is damaged \({name}.*: found .*, expected"
            ) as caught:
                Run.open(run).summary()
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [[], None, -1, "x", {}])
def test_a_summary_that_is_none_is_computed_again(run: Path, finished: Run, value: Any, command: Command) -> None:
    (run / "summary.json").write_text(json.dumps(value))
    index_all(run)
    code, out, error = command("search", "--resume", run, "--quiet", "--no-figures", "--json")
    assert (code, error) == (0, "")
    assert json.loads(out)["verified"] == finished.summary()["verified"]


@pytest.mark.parametrize(("name", "value"), [("model.layers", 10**9), ("model.layers", 6), ("seed", -1), ("costs", [])])
def test_every_command_refuses_it(run: Path, name: str, value: Any, command: Command, tmp_path: Path) -> None:
    changed(run / "manifest.json", name, value)
    for words in asked(run, tmp_path):
        code, out, error = command(*words)
        assert (code, out) == (2, ""), words
        assert refused(error, "manifest.json", name), (words, error)


def test_a_manifest_may_be_no_object_too_long_or_too_deep(run: Path, command: Command) -> None:
    for text in ("[]", "null", "1", '"x"', "[" * 10**5, " " * (2**26 + 1), "{"):
        (run / "manifest.json").write_text(text)
        code, _, error = command("query", run)
        assert (code, error.count("\n")) == (2, 1)
