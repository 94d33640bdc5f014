"""The command line: `oracle COMMAND`; one module adds each command."""

import argparse
import io
import os
import shlex
import sys
from collections.abc import Sequence as Seq

from oracle.cli.cache import add_cache
from oracle.cli.compare import add_compare
from oracle.cli.export import add_export
from oracle.cli.figures import add_figures
from oracle.cli.measure import add_measure
from oracle.cli.parsing import Parser
from oracle.cli.profile import add_profile
from oracle.cli.query import add_query
from oracle.cli.report import add_report
from oracle.cli.search import add_demo, add_search
from oracle.cli.skiplayer import add_skiplayer
from oracle.errors import InputError, Interrupted
from oracle.utils.cores import wait_passively
from oracle.utils.text import printable

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "demo": add_demo,
    "search": add_search,
    "query": add_query,
    "figures": add_figures,
    "report": add_report,
    "measure": add_measure,
    "compare": add_compare,
    "export": add_export,
    "profile": add_profile,
    "skiplayer": add_skiplayer,
    "cache": add_cache,
}
"""Function that adds each command, in the order of the help text."""


def main(argv: Seq[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0, 1 (damage found), 2 (bad input) or 130 (interrupted)."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    wait_passively()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Escape characters that the encoding lacks, as standard error does already.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
        code = arguments.run(arguments)
        sys.stdout.flush()
    except InputError as error:
        print(f"oracle: error: {' '.join(printable(str(error)).split())}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(f"oracle: stopped; continue with: oracle search --resume {shlex.quote(str(stopped))}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("oracle: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code or 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="oracle", description="How many layers of a language model does each sequence need?")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for add in COMMANDS.values():
        add(commands)
    return parser
