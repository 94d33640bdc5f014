"""The command that continues a search."""

import shlex
from contextlib import suppress
from pathlib import Path

from oracle.store.checks import parse_json
from oracle.store.index import MANIFEST
from oracle.utils.consent import allowed, is_function_name

__all__ = ["resume_command"]


def resume_command(folder: Path) -> str:
    """The command that continues the search of a run, with the consent to the user's own code that it needs.

    Args:
        folder: the run folder; without a readable manifest only what this process has been allowed is known.
    """
    names: list[str] = []
    with suppress(OSError, ValueError, LookupError, TypeError):
        config = parse_json(folder / MANIFEST)["config"]
        names = [name for name in (config["criterion"], *config.get("metrics", ())) if is_function_name(str(name))]
    consent = [f"--trust-code {shlex.quote(name)}" for name in dict.fromkeys([*names, *allowed()])]
    return " ".join(["oracle search --resume", shlex.quote(str(folder)), *consent])
