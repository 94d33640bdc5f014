"""What `mkdocs build` adds to the pages: the README as home page, references of commands and Python, formulas.

- `index.md` is the README of the repository.
- `COMMANDS` in a page becomes the help text of every command, formatted by the command line's own parsers.
- `PUBLIC` followed by a package becomes one entry per public name of that package.
- Links to files outside `docs/` lead to the repository; pictures outside `docs/` become part of the site.
- Formulas become MathML, which browsers show without a script.
- A page that would load anything from another host fails the build.
"""

import argparse
import ast
import html
import os
import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/layer-oracle/layer-oracle/blob/HEAD/"
COMMANDS = "<!-- oracle: help texts of all commands -->"
PUBLIC = re.compile(r"<!-- ([\w.]+): public names -->")
LINK = re.compile(r"(!?\[[^\]]*\]\()([\w./-]+)(#[\w-]+)?\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
EXTERNAL = re.compile(
    r"<(?:script|img|iframe|source|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//|<link\b(?![^>]*\brel=[\"']?canonical)[^>]*\bhref="
    r"[\"']?(?:https?:)?//"
)
WIDTH = "80"
"""Columns of the help texts, whatever the terminal's width."""


def on_files(files: Any, config: Any) -> Any:
    """The files of `docs/`, the README as `index.md`, and the pictures that pages show from elsewhere."""
    pages = {"index.md": (ROOT / "README.md").read_text(encoding="utf-8")}
    files.append(File.generated(config, "index.md", content=pages["index.md"]))
    for file in list(files.documentation_pages()):
        folder = "." if file.src_uri == "index.md" else posixpath.join("docs", posixpath.dirname(file.src_uri))
        for head, target, _ in LINK.findall(file.content_string):
            path = posixpath.normpath(posixpath.join(folder, target))
            if head.startswith("!") and not path.startswith("docs/") and files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The text of a page, its links translated and its generated parts filled in."""
    uri = page.file.src_uri
    folder = "." if uri == "index.md" else posixpath.join("docs", posixpath.dirname(uri))

    def link(found: re.Match[str]) -> str:
        head, target, anchor = found[1], found[2], found[3] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        if not (ROOT / path).exists():
            raise PluginError(f"{uri} links to {target}, which does not exist; mend the link")
        if path == "README.md":
            path = "docs/index.md"
        if head.startswith("!") and not path.startswith("docs/"):
            path = f"docs/{path}"
        if path.startswith("docs/"):
            return f"{head}{posixpath.relpath(path, posixpath.join('docs', posixpath.dirname(uri)))}{anchor})"
        return f"{head}{REPOSITORY}{path}{anchor})"

    markdown = PUBLIC.sub(lambda found: public(found[1]), LINK.sub(link, markdown))
    return markdown.replace(COMMANDS, commands()) if COMMANDS in markdown else markdown


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """The page as HTML, its formulas as MathML."""

    def mathml(found: re.Match[str]) -> str:
        return str(convert(html.unescape(found[2].strip()), display="block" if found[1] == "div" else "inline"))

    return FORMULA.sub(mathml, content)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The finished page; raises if it would load anything from another host."""
    if found := EXTERNAL.search(output):
        raise PluginError(f"{page.file.src_uri} would load from another host: {output[found.start() :][:200]}")
    return output


def commands() -> str:
    """The help text of every command, as the command line prints it."""
    from oracle.cli import parsers

    os.environ["COLUMNS"] = WIDTH
    return "\n\n".join(f"## oracle {name}\n\n{_help(parser)}" for name, parser in parsers().items())


def _help(parser: argparse.ArgumentParser) -> str:
    parser.description = textwrap.fill(parser.description or "", int(WIDTH))
    parts = [f"```text\n{parser.format_help()}```"]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parts += [f"### {inner.prog}\n\n{_help(inner)}" for inner in action.choices.values()]
    return "\n\n".join(parts)


def public(package: str) -> str:
    """One entry of the Python reference per public name of a package, found in its stub file without importing it."""
    tree = ast.parse(ROOT.joinpath(*package.split("."), "__init__.pyi").read_text(encoding="utf-8"))
    found = {
        alias.asname or alias.name: f"{package}.{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    return "\n\n".join(f"::: {found[name]}" for name in sorted(found, key=str.lower))
