"""The command line: `oracle demo`, `search`, `query`, `figures`, `profile`."""

import argparse
import io
import os
import sys
from collections.abc import Sequence as Seq

from oracle.cli.parsing import Parser
from oracle.cli.profile import add_profile
from oracle.cli.read import add_figures, add_query
from oracle.cli.search import add_demo, add_search
from oracle.errors import InputError
from oracle.printable import printable

__all__ = ["main"]


def main(argv: Seq[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Standard error does so already: what an encoding lacks is escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
        sys.stdout.flush()
    except InputError as error:
        print(f"oracle: error: {' '.join(printable(str(error)).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("oracle: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="oracle", description="How many layers of a language model does each sequence need?")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for add in (add_demo, add_search, add_query, add_figures, add_profile):
        add(commands)
    return parser
