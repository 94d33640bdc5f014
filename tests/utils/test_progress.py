"""Progress bars in notebooks, lines in logs."""

import re
import sys
from types import ModuleType
from typing import Any

import pytest

from oracle.utils import progress


class Handle:
    def __init__(self, shown: list[str]) -> None:
        self.shown = shown

    def update(self, html: str) -> None:
        self.shown.append(html)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a notebook would show."""
    found: list[str] = []

    def display(html: str, **_: Any) -> Handle:
        found.append(html)
        return Handle(found)

    kernel = type("ZMQInteractiveShell", (), {})()
    shell, module = ModuleType("IPython"), ModuleType("IPython.display")
    shell.__dict__.update(get_ipython=lambda: kernel)
    module.__dict__.update(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(progress, "BETWEEN", 0.0)
    return found


def test_a_notebook_shows_a_bar(shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.automatic("Searching <b>", 3) as advance:
        advance(1, "s1 <i>")
        advance(2, "s2")
    assert [re.sub(r"\d+:\d+", "T", one) for one in shown] == [
        'Searching &lt;b&gt; <progress value="0" max="3"></progress> 0/3 T ',
        'Searching &lt;b&gt; <progress value="1" max="3"></progress> 1/3 T s1 &lt;i&gt;',
        'Searching &lt;b&gt; <progress value="3" max="3"></progress> 3/3 T s2',
        'Searching &lt;b&gt; <progress value="3" max="3"></progress> 3/3 T ',
    ]
    assert capsys.readouterr() == ("", "")


def test_a_line_in_a_notebook(shown: list[str]) -> None:
    progress.note(progress.automatic, "a < b")
    assert shown == ["a &lt; b"]


def test_elsewhere_nothing_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with progress.automatic("Searching", 3) as advance:
        advance(1, "s1")
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.0, 10.0, 90.0, 90.0, 100.0, 4000.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with progress.terminal("Searching", 4) as advance:
        advance(1, "s1")
        advance(2, "s2")
        advance(1, "s3")
    assert capsys.readouterr().err.splitlines() == [
        "Searching: 3 of 4 in 1:30, about 0:30 left (s2)",
        "Searching: 4 of 4 in 1:06:40",
    ]


def test_a_log_of_what_was_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), progress.log("Searching", 4):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "Searching: 0 of 4 in 0:00\n"
