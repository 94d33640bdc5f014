"""Names in any script: glyphs from an installed font that has them, else one warning."""

from dataclasses import replace

import matplotlib.font_manager
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry
from plot_tables import pictured

from analysis import Source, summarise
from analysis.plots import fonts
from analysis.plots.fonts import complete_glyphs


@pytest.fixture
def text():
    return Figure().text(0, 0, "abc", fontfamily="DejaVu Sans")


def test_what_the_font_has_needs_no_other(text):
    text.set_text("abc \N{EN DASH} \N{GREEK SMALL LETTER ALPHA} \N{CYRILLIC SMALL LETTER ZHE}")
    complete_glyphs([text])
    assert text.get_fontfamily() == ["DejaVu Sans"]


def test_a_font_that_has_the_glyphs_is_added(text):
    # In STIX (a font of matplotlib's) and not in DejaVu Sans.
    stix = next(font for font in matplotlib.font_manager.fontManager.ttflist if font.name == "STIXGeneral")
    lacking = sorted(fonts._glyphs(stix.fname) - fonts._glyphs(matplotlib.font_manager.findfont("DejaVu Sans")))
    text.set_text("name " + chr(lacking[-1]))
    complete_glyphs([text])
    first, *others = text.get_fontfamily()
    assert first == "DejaVu Sans" and others
    assert any(
        lacking[-1] in fonts._glyphs(matplotlib.font_manager.findfont(other, fallback_to_default=False))
        for other in others
    )


def test_what_no_font_has_is_said_once(run_maker, monkeypatch):
    installed = tuple(one for one in fonts._installed() if one[0].startswith("DejaVu"))
    monkeypatch.setattr(fonts, "_installed", lambda: installed)
    experiment = run_maker(sequences=4, count=24, layers=8)
    names = ["\u7ffb\u8a33", "\u8981\u7d04"] * 2
    named = replace(experiment, sequences=experiment.sequences.assign(task=names))
    source = Source(experiment=named, known=summarise(named, bootstrap=0, permutations=0))
    with pytest.warns(
        UserWarning, match="no installed font has the characters \u7d04\u7ffb\u8981\u8a33 of names"
    ) as found:
        pictured("layer_use", source)
    assert len(found) == 1 and "fonts-noto-cjk" in str(found[0].message)


def test_fonts_that_draw_boxes_for_anything_are_no_help():
    assert all(isinstance(font, FontEntry) for font in matplotlib.font_manager.fontManager.ttflist)
    assert not [name for name, _ in fonts._installed() if name.startswith("Last Resort")]
    assert "DejaVu Sans" in dict(fonts._installed())
