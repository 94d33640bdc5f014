"""A metric, a strategy, a controller and a reader of another package: found by entry point, held to the contracts."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from oracle.errors import InputError
from oracle.search import get_strategy
from oracle.store import Run
from oracle.testing import check_controller, check_metric, check_strategy
from oracle.utils import plugins

Command = Callable[..., tuple[int, str, str]]

PACKAGE = Path(__file__).resolve().parents[1] / "third_party"


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package, as if it were installed."""
    monkeypatch.syspath_prepend(PACKAGE)
    plugins.plugins.cache_clear()
    import acme_depth

    yield acme_depth
    plugins.plugins.cache_clear()
    sys.modules.pop("acme_depth", None)


def test_all_are_used_from_the_command_line(acme: Any, command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    how = ("--criterion", "acme-length", "--strategy", "acme-halves", "--evaluations", 9, "--max-new-tokens", 4)
    given = ("--data", "acme:4", "--model", tiny_folder, "--device", "cpu", "--no-figures", "--quiet", "--out", out)
    code, _, error = command("search", *given, *how)
    assert (code, error) == (0, "")
    run = Run.open(out)
    found, sequences = run.evaluations(), run.sequences().set_index("sequence")
    assert set(found["family"]) == {"full", "acme-halves"}
    assert sequences["prompt"].tolist() == [f"Say {number}." for number in range(4)]
    expected = [
        acme.length(("",), text, json.loads(sequences["record"][name]))
        for text, name in zip(found["text"], found["sequence"], strict=True)
    ]
    assert found["acme-length"].tolist() == pytest.approx(expected)
    assert found["null_acme-length"].notna().all()
    code, out_text, error = command(
        "compare", out, "--controllers", "acme-ends,unified", "--no-timing", "--quiet", "--json"
    )
    assert (code, error) == (0, "")
    rows = json.loads(out_text)["controllers"]
    fractions = {row["setting"]: row["executed_fraction"] for row in rows if row["controller"] == "acme-ends"}
    assert fractions == pytest.approx({"each=1": 0.4, "each=2": 0.8})
    assert rows[-1]["controller"] == "acme-ends"


def test_the_help_lists_what_is_installed(acme: Any, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command("search", "--help")
    assert "acme-halves  of an installed package (acme_depth:Halves)" in " ".join(capsys.readouterr().out.split(" "))


def test_without_the_package_the_names_are_unknown(command: Command, tiny_folder: Path) -> None:
    plugins.plugins.cache_clear()
    for how, message in (
        (("--criterion", "acme-length"), "unknown metric 'acme-length'"),
        (("--strategy", "acme-halves"), "unknown strategy 'acme-halves'"),
        (("--data", "acme:4"), "acme"),
    ):
        code, _, error = command("search", "--model", tiny_folder, *how)
        assert code == 2 and message in error


def test_entry_points_of_another_kind_are_refused(acme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acme, "Halves", acme.Ends)
    with pytest.raises(InputError, match=r"'acme-halves' of layer_oracle.strategies must be a subclass"):
        get_strategy("acme-halves")


def test_the_contracts_hold(acme: Any, search: Callable[..., Run]) -> None:
    check_metric(acme.length)
    check_strategy(acme.Halves)
    run = search(criterion="agreement", evaluations=8, strategy="spread")
    check_controller(acme.Ends, run.folder)


def changes_the_record(references: tuple[str, ...], output: str, record: dict[str, Any]) -> float:
    record["seen"] = True
    return 0.0


def remembers(references: tuple[str, ...], output: str, record: Mapping[str, Any]) -> float:
    remembers.calls = getattr(remembers, "calls", 0) + 1  # type: ignore[attr-defined]
    return float(remembers.calls)  # type: ignore[attr-defined]


def with_a_low_bound(references: tuple[str, ...], output: str, record: Mapping[str, Any]) -> float:
    return 1.0


with_a_low_bound.upper_bound = lambda references, output, record, remaining: 0.5  # type: ignore[attr-defined]

BROKEN = [
    (lambda references, output, record: "high", "finite number"),
    (lambda references, output, record: float("nan"), "finite number"),
    (changes_the_record, "does not change the record"),
    (remembers, "depends on its arguments alone"),
    (with_a_low_bound, "upper bound 0.5"),
]


@pytest.mark.parametrize(("function", "rule"), BROKEN)
def test_a_broken_metric_is_found(function: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_metric(function)


def test_a_broken_strategy_is_found(acme: Any) -> None:
    class Repeats(acme.Halves):  # type: ignore[misc,name-defined]
        def known(self, allocation: Any) -> bool:
            return False

    class Random(acme.Halves):  # type: ignore[misc,name-defined]
        calls = 0

        def _candidates(self, count: int) -> Any:
            type(self).calls += 1
            return list(super()._candidates(count))[type(self).calls % 3 :]

    for kind, rule in ((Repeats, "twice|1 to"), (Random, "equal seeds|archive|twice|1 to")):
        with pytest.raises(AssertionError, match=rule):
            check_strategy(kind)


def test_a_broken_controller_is_found(acme: Any, search: Callable[..., Run]) -> None:
    class ByPlace(acme.Ends):  # type: ignore[misc,name-defined]
        def allocations(self, prompts: Any) -> list[Any]:
            return [tuple(range(1 + place % 5)) for place in range(len(prompts))]

    run = search(criterion="agreement", evaluations=8, strategy="spread")
    with pytest.raises(AssertionError, match="order of prompts changes nothing"):
        check_controller(ByPlace, run.folder)
