"""The command line: `oracle COMMAND`; one module adds each command."""

import argparse
import atexit
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence as Seq
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NoReturn

from oracle.cli.cache import add_cache
from oracle.cli.check import add_check
from oracle.cli.compare import add_compare
from oracle.cli.completion import add_completion
from oracle.cli.data import add_data
from oracle.cli.draft import add_draft
from oracle.cli.eval import add_eval
from oracle.cli.export import add_export
from oracle.cli.figures import add_figures
from oracle.cli.interrupts import within_a_second
from oracle.cli.measure import add_measure
from oracle.cli.parsing import Parser, add_debug
from oracle.cli.profile import add_profile
from oracle.cli.query import add_query
from oracle.cli.report import add_report
from oracle.cli.runs import add_runs
from oracle.cli.search import add_demo, add_search
from oracle.cli.skiplayer import add_skiplayer
from oracle.cli.static import add_static
from oracle.cli.unfinished import note_unfinished, runs_named
from oracle.errors import ForeignError, InputError, Interrupted, reason_of
from oracle.utils.consent import allow
from oracle.utils.cores import wait_passively
from oracle.utils.text import printable
from oracle.version import __version__

__all__ = ["COMMANDS", "main", "parsers", "run", "whole_parser"]

INTERRUPTED = 130
"""Exit code after SIGINT."""

COMMANDS = {
    "demo": add_demo,
    "search": add_search,
    "data": add_data,
    "runs": add_runs,
    "query": add_query,
    "figures": add_figures,
    "report": add_report,
    "measure": add_measure,
    "static": add_static,
    "draft": add_draft,
    "compare": add_compare,
    "eval": add_eval,
    "export": add_export,
    "check": add_check,
    "profile": add_profile,
    "skiplayer": add_skiplayer,
    "cache": add_cache,
    "completion": add_completion,
}
"""Function that adds each command, in the order of the help text."""

FAULT = 70
"""Exit code for an exception that no check foresaw; EX_SOFTWARE of sysexits."""


SEARCHING = ("demo", "search", "skiplayer")
"""Commands that store what they have when they are interrupted."""

EPILOG = """\
oracle COMMAND --help, or oracle help COMMAND, prints the options of a command."""


def main(argv: Seq[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1, 2 (bad input), 70 (a fault) or 130 (interrupted).

    1: damage was found, or a figure that was named cannot be drawn.

    A fault is an exception that no check foresaw. As for every error, standard error gets one line; it names the file
    that holds the traceback.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    wait_passively()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Escape characters that the encoding lacks, as standard error does already.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        words = _spelled(sys.argv[1:] if argv is None else argv)
        arguments = _parser(words).parse_args(words)
        with nullcontext() if arguments.command in SEARCHING else within_a_second():
            allow(*getattr(arguments, "trust_code", ()))
            _tidy(arguments)
            code = arguments.run(arguments)
            sys.stdout.flush()
            note_unfinished(arguments)
    except InputError as error:
        kept = _traceback(error, argv) if _foreign(error) or _debug(argv) else ""
        print(f"oracle: error: {' '.join(printable(str(error)).split())}{kept}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        from oracle.store.resuming import resume_command

        print(f"oracle: stopped; continue with: {resume_command(Path(str(stopped)))}", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("oracle: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = f"oracle: error: a fault in this program or in the model's code: {printable(reason_of(error))}"
        print(f"{line}; please report it with its traceback{_traceback(error, argv)}", file=sys.stderr)
        return FAULT
    return code or 0


def _foreign(error: BaseException | None) -> ForeignError | None:
    """The error of foreign code that an error goes back to, if it does."""
    while error is not None and not isinstance(error, ForeignError):
        error = error.__cause__
    return error


def _debug(argv: Seq[str] | None) -> bool:
    return "--debug" in (sys.argv[1:] if argv is None else argv)


def _traceback(error: Exception, argv: Seq[str] | None) -> str:
    """Prints the traceback with `--debug`, or else keeps it in a file; returns the words that say where it is."""
    text = "".join(traceback.format_exception(error))
    if _debug(argv):
        print("\n".join(map(printable, text.splitlines())), file=sys.stderr)
        return ""
    foreign = _foreign(error)
    log = foreign.log if foreign else None
    if log is None:
        try:
            with tempfile.NamedTemporaryFile(
                "w", prefix="layer-oracle-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
            ) as file:
                file.write(text)
        except OSError:
            return " (--debug prints the traceback)"
        log = Path(file.name)
    return f" (traceback: {printable(str(log))}, or --debug)"


def run() -> NoReturn:
    """Runs the command of this process, and ends the process.

    An interrupted one skips the interpreter's own end, in which torch alone takes longer than a second.
    """
    code = main()
    if code == INTERRUPTED:
        # What the interpreter would do first: functions that libraries registered, such as Ray's.
        atexit._run_exitfuncs()
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _spelled(words: Seq[str]) -> list[str]:
    """The words with `help`, `help COMMAND` and `version` as the options that these stand for."""
    place = next((place for place, word in enumerate(words) if not word.startswith("-")), len(words))
    before, named = list(words[:place]), list(words[place:])
    if named[:1] == ["version"]:
        return [*before, "--version", *named[1:]]
    return [*before, *named[1:], "--help"] if named[:1] == ["help"] else [*before, *named]


def _tidy(arguments: argparse.Namespace) -> None:
    """Deletes what a killed command left unfinished in the runs that this one reads or writes."""
    from oracle.store.atomic import tidy_tree

    for folder in runs_named(arguments):
        tidy_tree(folder)


def whole_parser() -> Parser:
    """The parser with all commands and all of their options, for documentation and completion."""
    parser = _parser([])
    _complete(parser)
    return parser


def _complete(parser: Parser) -> None:
    parser.complete()
    for each in _commands(parser).values():
        _complete(each)


def parsers() -> dict[str, Parser]:
    """The parser of each command with all of its options."""
    return _commands(whole_parser())


def _commands(parser: Parser) -> dict[str, Parser]:
    """The parsers of the commands below a parser."""
    return next((dict(one.choices) for one in parser._actions if isinstance(one, argparse._SubParsersAction)), {})


def _parser(argv: Seq[str]) -> Parser:
    """The parser, with the options of the command in `argv` only, since adding those of others takes time."""
    about = "How many layers of a language model does each sequence need?"
    parser = Parser(prog="oracle", description=about, epilog=EPILOG)
    add_debug(parser)
    parser.add_argument("--version", action="version", version=f"layer-oracle {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    named = next((word for word in argv if not word.startswith("-")), None)
    for name in [named] if named in COMMANDS else COMMANDS:
        COMMANDS[name](commands)
    return parser
