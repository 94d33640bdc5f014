"""One self-contained HTML file: markup, style, program and data, with a policy that blocks everything else."""

import base64
import gzip
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

__all__ = ["block", "page"]

PROGRAM = ("kit.js", "diff.js", "strip.js", "plots.js", "extras.js", "table.js", "app.js")
"""Parts of the script, in order."""


def block(data: Any) -> str:
    """Data for the page: JSON, compressed, in an alphabet that can neither end a script nor start a tag."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), allow_nan=False)
    # Without a date, equal data gives equal bytes.
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 6, mtime=0)).decode("ascii")


def page(blocks: dict[str, Any], **values: Any) -> str:
    """The whole file, with blocks of data unpacked on demand, and values of the template, which escapes texts."""
    program, plotly = "\n".join(map(_asset, PROGRAM)), get_plotlyjs()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html")).render(
        style=Markup(_asset("page.css")),
        program=Markup(program),
        policy=_policy(program, plotly),
        blocks={name: Markup(block(data)) for name, data in {"plotly": plotly, **blocks}.items()},
        **values,
    )


def _policy(*scripts: str) -> str:
    """Allows these scripts only, and no loading of resources, not even by injected text."""
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _asset(name: str) -> str:
    return files("analysis.report").joinpath("assets", name).read_text(encoding="utf-8")
