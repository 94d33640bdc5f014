"""Figures as PGF: drawing commands that a LaTeX document sets with its own fonts."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_pgf import LatexError
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import Formatter

from analysis.experiment import InputError
from oracle.utils.text import printable

__all__ = ["check_tex", "pgf_code", "tex_text"]

ESCAPED = {
    "\\": r"\textbackslash{}",
    "$": r"\textdollar{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{char: f"\\{char}" for char in "{}&#%_"},
}

REMEDY = "use format pdf, or load what it lacks by pgf.preamble in a --style sheet"


def tex_text(text: str) -> str:
    """A text of a figure as LaTeX that sets these characters and runs none of them as commands."""
    return "".join(ESCAPED.get(char, char) for char in text.replace(r"\$", "$"))


def check_tex() -> None:
    """Raises `InputError` if the TeX program by which matplotlib measures text is not installed."""
    program = str(mpl.rcParams["pgf.texsystem"])
    if shutil.which(program) is None:
        raise InputError(
            f"format pgf needs TeX to measure text, and '{program}' is not installed: install TeX Live (Debian: "
            "texlive-latex-recommended and texlive-pictures), or include the PDF in your paper"
        )


def pgf_code(figure: Figure) -> str:
    """The figure as PGF, without local paths.

    Raises:
        InputError: if TeX cannot set one of its texts, or lacks a package.
    """
    code = StringIO()
    with _escaped(figure):
        try:
            figure.savefig(code, format="pgf")
        except (LatexError, ValueError) as error:
            program = mpl.rcParams["pgf.texsystem"]
            reason = re.search(r"^! (.+)$", str(error), re.MULTILINE)
            if reason is None:
                raise
            raise InputError(f"{program} cannot set the figure ({printable(reason[1])}): {REMEDY}") from error
    # Matplotlib names in comments the folders of the fonts that it measured with.
    return "".join(line for line in code.getvalue().splitlines(True) if not re.match(r"%.*\[Path=", line))


class _Escaping(Formatter):
    """Labels of another formatter, as LaTeX."""

    def __init__(self, inner: Formatter) -> None:
        self._inner = inner

    def __call__(self, x: float, pos: int | None = None) -> str:
        return tex_text(self._inner(x, pos))

    def format_ticks(self, values: list[float]) -> list[str]:
        return [tex_text(label) for label in self._inner.format_ticks(values)]

    def get_offset(self) -> str:
        return tex_text(self._inner.get_offset())


@contextmanager
def _escaped(figure: Figure) -> Iterator[None]:
    """All texts of a figure as LaTeX, for a `with` block."""
    # Labels of ticks are set from the formatters whenever a figure is drawn.
    texts: list[tuple[Any, str]] = [(text, text.get_text()) for text in figure.findobj(Text) if isinstance(text, Text)]
    axes = [one for one in figure.findobj(Axes) if isinstance(one, Axes)]
    ticks = [(axis, axis.get_major_formatter()) for one in axes for axis in (one.xaxis, one.yaxis)]
    try:
        for text, said in texts:
            text.set_text(tex_text(said))
        for axis, formatter in ticks:
            axis.major.formatter = _Escaping(formatter)
        yield
    finally:
        for axis, formatter in ticks:
            axis.major.formatter = formatter
        for text, said in texts:
            text.set_text(said)
