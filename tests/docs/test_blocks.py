"""Every shell and Python block of the README and of the documentation is run, or says why it is not.

Blocks run in this process, in the order of their page, in a folder of its own. A random model takes the place of the
embedded one, except in blocks marked `embedded`. `runs/demo` is there, and a copy of it, `runs/second`.
"""

import runpy
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.blocks import PAGES, ROOT, Block, blocks, options_in, statements

from oracle.cli import COMMANDS, main, parsers

MARKS = {
    "": "runs with the fast tests",
    "slow": "with the slow ones",
    "embedded": "the same, real model",
    "not run": "",
}

ELSEWHERE = {"--questions", "--run", "--directory", "--repo-type", "--local-dir", "--logdir"}
"""Options of programs under `tests/benchmarks`, of Python's server, and of `hf`."""

RUN = [(page, mark) for page in PAGES for mark in ("", "slow", "embedded") if any(b.mark == mark for b in blocks(page))]


def commands(block: Block) -> Iterator[list[str]]:
    """Arguments of the block's `oracle` commands."""
    if block.language == "sh":
        for words in statements(block.text):
            if words[0] == "oracle":
                yield words[1 : words.index(">") if ">" in words else None]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_marks_are_known_and_have_a_reason(page: Path) -> None:
    for block in blocks(page):
        assert block.mark in MARKS, f"{block}: unknown mark {block.mark!r}"
        assert not block.mark or len(block.reason.split()) > 1, f"{block}: '{block.mark}' needs a reason"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_options_that_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oracle.cli.parsing.read_config", lambda *_, **__: None)  # blocks before it write the file
    each = parsers()
    for block in blocks(page):
        for name, *arguments in commands(block):
            each[name].parse_args(arguments)  # raises InputError
    known = {option for one in each.values() for action in one._actions for option in action.option_strings}
    assert options_in(page) <= known | ELSEWHERE


def test_what_is_looked_for_is_found() -> None:
    """The checks above read blocks, commands and options at all."""
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) > 30
    assert {block.language for block in found} == {"sh", "python"}
    assert {block.mark for block in found} == set(MARKS)
    assert {arguments[0] for block in found for arguments in commands(block)} >= set(COMMANDS) - {"demo"}
    assert {"--tolerance", "--near-tie"} <= {option for page in PAGES for option in options_in(page)}


def test_words_of_a_shell_block() -> None:
    text = (
        "oracle query run  # don't\n\n# it's a comment\necho 'a # b' > f\noracle \\\n  x --sql \"SELECT 1\n  FROM t\"\n"
        "cat > own.py <<'EOF'\nprint('a')  # b\nEOF\noracle runs\n"
    )
    assert list(statements(text)) == [
        ["oracle", "query", "run"],
        ["echo", "a # b", ">", "f"],
        ["oracle", "x", "--sql", "SELECT 1\n  FROM t"],
        ["cat", ">", "own.py", "print('a')  # b\n"],
        ["oracle", "runs"],
    ]


@pytest.fixture
def registries() -> Iterator[None]:
    """What a page adds to a dictionary is taken out again."""
    from oracle.controllers import CONTROLLERS
    from oracle.search import STRATEGIES

    everything: tuple[dict[str, type], ...] = (CONTROLLERS, STRATEGIES)
    before = [dict(each) for each in everything]
    yield
    for each, items in zip(everything, before, strict=True):
        each.clear()
        each.update(items)


@pytest.mark.parametrize(
    ("page", "mark"),
    [
        pytest.param(page, mark, id=f"{page.relative_to(ROOT)}-{mark or 'fast'}", marks=[pytest.mark.slow] * bool(mark))
        for page, mark in RUN
    ],
)
def test_blocks_run(
    page: Path,
    mark: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registries: None,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    if mark != "embedded":
        monkeypatch.setenv("LAYER_ORACLE_CACHE", str(request.getfixturevalue("stand_in")))
    if any("runs/" in block.text for block in blocks(page) if block.mark == mark):
        for name in ("demo", "second"):
            shutil.copytree(request.getfixturevalue("demo"), tmp_path / "runs" / name)
    for block in blocks(page):
        if block.mark == mark:
            began = time.perf_counter()
            run(block, monkeypatch)
            print(f"{block}: {time.perf_counter() - began:.1f} s", file=sys.stderr)


def run(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a block as a user would; fails where a command does, or where it is none that this test knows."""
    if block.language == "python":
        import matplotlib as mpl

        with mpl.rc_context():
            exec(compile("\n" * (block.line - 1) + block.text, str(block.page), "exec"), {"__name__": "__main__"})
        return
    for words in statements(block.text):
        if words[0] == "oracle":
            assert main(words[1:]) == 0, f"{block}: {words} failed"
        elif words[:2] == ["cat", ">"]:
            Path(words[2]).write_text(words[3])
        elif words[0] == "echo" and words[2:3] == [">"]:
            Path(words[3]).write_text(words[1] + "\n")
        elif words[0] == "python" and words[1].startswith("figures/"):
            monkeypatch.setattr(sys, "argv", words[1:])
            monkeypatch.syspath_prepend(str(ROOT / "figures"))
            with pytest.raises(SystemExit) as left:
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
            assert left.value.code == 0, f"{block}: {words} failed"
        else:
            pytest.fail(f"{block}: {words} is no command that this test runs; mark the block 'not run' and say why")
