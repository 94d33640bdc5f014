"""The shell and Python blocks of the README and of the documentation, and what a shell block says to do.

A comment before a block decides about it: `<!-- slow: REASON -->` or `<!-- embedded: REASON -->` (both run by
`make test-slow`, the latter on the embedded model), or `<!-- not run: REASON -->`.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "blocks", "options_in", "statements"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^(```+)(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!--\s*(.*?)\s*-->\s*\Z", re.DOTALL)
_PARTS = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|(?<!\S)#[^\n]*|\\\n|\n|[^'"#\\\n]+|.""", re.DOTALL)
"""Quoted texts, comments, joined lines, ends of lines, and the rest of a shell block."""
_HERE = re.compile(r"^cat > (\S+) <<'(\w+)'\n(.*?)^\2$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block of a page.

    Attributes:
        page: its file.
        line: number of its first line.
        language: `sh` or `python`.
        text: its content.
        mark: `slow`, `embedded`, `not run`, or empty for a fast one; anything else is a mistake.
        reason: given with the mark.
    """

    page: Path
    line: int
    language: str
    text: str
    mark: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The shell and Python blocks of a page, in order."""
    text, found, end = page.read_text(encoding="utf-8"), [], 0
    for fence in _FENCE.finditer(text):
        mark, _, reason = (match[1] if (match := _MARK.search(text, end, fence.start())) else "").partition(":")
        end = fence.end()
        if fence[2] in ("sh", "python"):
            line = text.count("\n", 0, fence.start()) + 2
            one = {"language": fence[2], "text": fence[3], "mark": mark.strip(), "reason": reason.strip()}
            found.append(Block(page=page, line=line, **one))
    return found


def statements(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block.

    Quotes may span lines, a backslash joins lines, and `#` begins a comment. A file written by `cat > FILE <<'END'` is
    one command whose last word is its text.
    """
    end = 0
    for here in _HERE.finditer(text):
        yield from _commands(text[end : here.start()])
        yield ["cat", ">", here[1], here[3]]
        end = here.end()
    yield from _commands(text[end:])


def _commands(text: str) -> Iterator[list[str]]:
    command = ""
    for part in _PARTS.findall(text + "\n"):
        if part == "\n":
            if command.strip():
                yield shlex.split(command)
            command = ""
        elif part == "\\\n":
            command += " "
        elif not part.startswith("#"):
            command += part


def options_in(page: Path) -> set[str]:
    """Long options named in the running text of a page, in code spans."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return {option for span in _INLINE.findall(prose) for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)}
