"""What the build of the documentation adds to the pages. `make docs` builds all of it, with every warning an error."""

import importlib.util
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from docs.blocks import ROOT
from mkdocs.exceptions import PluginError

import analysis
import oracle
from oracle.cli import COMMANDS
from oracle.config import SearchConfig


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(uri: str) -> Any:
    return SimpleNamespace(file=SimpleNamespace(src_uri=uri))


def translated(hooks: ModuleType, uri: str, text: str) -> str:
    return hooks.on_page_markdown(text, page(uri), None, None)


def test_the_command_reference_is_what_the_parsers_say(hooks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = hooks.commands()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## oracle {name}" for name in COMMANDS]
    assert "### oracle cache prune" in text
    assert f"(default: {SearchConfig().evaluations})" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("  --")) <= 80, (
        "whatever the terminal's width"
    )


@pytest.mark.parametrize("package", [oracle, analysis, analysis.plots], ids=lambda package: package.__name__)
def test_the_python_reference_has_every_public_name(hooks: ModuleType, package: ModuleType) -> None:
    entries = [line.removeprefix("::: ") for line in hooks.public(package.__name__).splitlines() if line]
    names = [name for name in package.__all__ if not isinstance(getattr(package, name), ModuleType)]
    assert sorted(entry.rpartition(".")[2] for entry in entries) == sorted(names)
    for entry in entries:
        module, _, name = entry.rpartition(".")
        assert getattr(importlib.import_module(module), name) is getattr(package, name)


def test_links_lead_to_pages_to_the_repository_and_to_pictures(hooks: ModuleType) -> None:
    blob = hooks.REPOSITORY
    for uri, text, expected in (
        ("index.md", "[a](docs/how-to/costs.md)", "[a](how-to/costs.md)"),
        ("index.md", "[a](SECURITY.md)", f"[a]({blob}SECURITY.md)"),
        ("index.md", "![a](figures/example/oracle_quality.png)", "![a](figures/example/oracle_quality.png)"),
        ("how-to/costs.md", "[a](../concepts.md#costs)", "[a](../concepts.md#costs)"),
        ("how-to/costs.md", "[a](../../README.md)", "[a](../index.md)"),
        ("how-to/costs.md", "[a](../../data/README.md)", f"[a]({blob}data/README.md)"),
        ("tutorial.md", "![a](../figures/example/layer.png)", None),
        ("tutorial.md", "[a](nowhere.md)", None),
        ("tutorial.md", "[a](https://example.org/x.md)", "[a](https://example.org/x.md)"),
    ):
        if expected is None:
            with pytest.raises(PluginError, match="does not exist"):
                translated(hooks, uri, text)
        else:
            assert translated(hooks, uri, text) == expected


def test_formulas_need_no_script(hooks: ModuleType) -> None:
    content = (
        r'<p><span class="arithmatex">\(a &lt; b_1\)</span></p><div class="arithmatex">\[x \le \frac{1}{2}\]</div>'
    )
    found = hooks.on_page_content(content, page("concepts.md"), None, None)
    assert found.count("<math") == 2
    assert "<mo>&#x0003C;</mo>" in found and "<mfrac>" in found
    assert "arithmatex" not in found


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ('<script src="https://cdn.example/x.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', True),
        ("<img alt=x src=http://example.org/x.png>", True),
        ('<script src="assets/x.js"></script><a href="https://example.org">there</a>', False),
        ('<link rel="canonical" href="https://example.org/">', False),
    ],
)
def test_a_page_that_loads_from_another_host_is_refused(hooks: ModuleType, text: str, loads: bool) -> None:
    if loads:
        with pytest.raises(PluginError, match="another host"):
            hooks.on_post_page(text, page("x.md"), None)
    else:
        assert hooks.on_post_page(text, page("x.md"), None) == text
