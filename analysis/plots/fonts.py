"""Fonts for names in any script: what the chosen font lacks is taken from an installed one that has it."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

from oracle.utils.text import printable

__all__ = ["complete_glyphs", "covering", "said_once"]

NAMED = 12
"""Maximum number of characters that a warning names."""


@cache
def _glyphs(path: str) -> frozenset[int]:
    """Code points that a font file has."""
    return frozenset(get_font(path).get_charmap())


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Family and file of every upright font of normal weight; not those that draw a box for anything."""
    usable = [
        font for font in fontManager.ttflist if font.style == "normal" and not font.name.startswith("Last Resort")
    ]
    usable.sort(key=lambda font: (abs(int(font.weight) - 400) if str(font.weight).isdigit() else 400, font.name))
    return tuple({font.name: (font.name, font.fname) for font in reversed(usable)}.values())


def families_of(text: str, families: Sequence[str]) -> tuple[list[str], set[int]]:
    """The families followed by those that have what they lack, and the code points that no installed font has."""
    added: list[str] = []
    missing = {ord(char) for char in text if not char.isspace()}
    for family in families:
        if not missing:
            break
        missing -= _glyphs(findfont(FontProperties(family=[family])))
    for name, path in _installed() if missing else ():
        if missing & (has := _glyphs(path)):
            missing -= has
            added.append(name)
    return [*families, *added], missing


def covering(text: str, font: FontProperties) -> FontProperties:
    """The font, with further families for what it lacks."""
    if text.isascii():
        return font
    wider = font.copy()
    wider.set_family(families_of(text, font.get_family())[0])
    return wider


def complete_glyphs(texts: Iterable[Text]) -> None:
    """Adds fonts to texts whose own lack characters; warns once of those that no installed font has."""
    lacking: set[int] = set()
    for text in texts:
        families, missing = families_of(text.get_text(), text.get_fontfamily())
        text.set_fontfamily(families)
        lacking |= missing
    if lacking:
        named = "".join(map(chr, sorted(lacking)[:NAMED])) + "..." * (len(lacking) > NAMED)
        message = (
            f"no installed font has the characters {printable(named)} of names in the figure, drawn as boxes: "
            "install one that does (Debian: fonts-noto-core, fonts-noto-cjk) and delete matplotlib's font cache"
        )
        warnings.warn(message, stacklevel=2)


@contextmanager
def said_once() -> Iterator[None]:
    """Without matplotlib's warnings of missing glyphs, one per glyph: `complete_glyphs` names them together."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield
