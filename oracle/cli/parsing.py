"""Options and checks that all commands share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from oracle.cli.config_file import add_config, read_config
from oracle.cli.wording import (
    METAVARS,
    exclusion,
    missing_value,
    no_such_choice,
    unknown_options,
    unknown_words,
    wrong_value,
)
from oracle.errors import InputError
from oracle.utils.devices import DTYPES, check_device, dtype_name
from oracle.utils.option_names import OPTIONS

if TYPE_CHECKING:
    from oracle.utils.progress import Watch

__all__ = [
    "Parser",
    "Settings",
    "add_debug",
    "add_device",
    "add_dtype",
    "add_formats",
    "add_prompt",
    "add_quiet",
    "add_trust",
    "add_view",
    "command",
    "loading",
    "progress",
    "provenance_of",
    "view_name",
]

LOADING = ("model", "dtype", "device", "trust_remote_code")
"""Settings of `oracle.config.SearchConfig` that determine how a model is loaded."""


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help formatter that omits the defaults of flags, None and [], and names values by their type."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.nargs == 0 or action.default in (None, []):
            return action.help
        if isinstance(action.default, list | tuple) and "%(default)" not in (action.help or ""):
            return f"{action.help} (default: {' '.join(map(str, action.default)).replace('%', '%%')})"
        return super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        kind: Any = action.type
        return METAVARS.get(kind) or super()._get_default_metavar_for_optional(action)


class Parser(argparse.ArgumentParser):
    """Argument parser that raises `InputError` instead of exiting, and accepts no abbreviations.

    An abbreviation would change its meaning with the next option that begins alike.

    Attributes:
        options: adds options whose defaults or help take long to import; called once the command is known.
        tables: whether the command prints tables, and lacks the options of `add_formats` yet.
        config_options: the parser whose options `--config` may give; None for its own.
        config_runs: whether `--config` may name a run.
        stray: option that a word without one is probably the value of; empty for none.
    """

    options: Callable[["Parser"], None] | None = None
    config_options: Callable[[], "Parser"] | None = None
    config_runs: bool = False
    tables: bool = False
    stray: str = ""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Raises `InputError`."""
        raise InputError(f"{exclusion(message)}; see '{self.prog} --help'")

    def complete(self) -> None:
        """Adds the options that wait until the command is known."""
        if self.options is not None:
            add, self.options = self.options, None
            add(self)
        if self.tables:
            self.tables = False
            add_formats(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Like the base class, but a command refuses what it does not know, with the nearest of its own options."""
        self.complete()
        try:
            found, unknown = super().parse_known_args(args, namespace)
        except InputError:
            # A misspelled option, rather than what lacks because of it.
            own = [] if args is None or self._subparsers else args
            if strange := unknown_options(own, self._option_string_actions):
                self._refuse(strange)
            raise
        if unknown:
            self._refuse(unknown)
        if self._subparsers is None:
            if getattr(found, "config_file", None) is not None:
                parser = self if self.config_options is None else self.config_options()
                read_config(found, self._given(args), parser, runs=self.config_runs)
            check_formats(found)
        return found, unknown

    def _refuse(self, unknown: list[str]) -> NoReturn:
        self.error(f"unrecognized arguments: {' '.join(unknown)}{unknown_words(unknown, self, self.stray)}")

    def _given(self, args: Any) -> set[str]:
        """Names of what was given, as opposed to defaults."""
        defaults = [(action, action.default) for action in self._actions]
        others, self._defaults = self._defaults, {}
        try:
            for action, _ in defaults:
                action.default = argparse.SUPPRESS
            return set(vars(super().parse_known_args(args, argparse.Namespace())[0]))
        finally:
            self._defaults = others
            for action, default in defaults:
                action.default = default

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            self.error(no_such_choice(action, value))

    def _match_argument(self, action: argparse.Action, arg_strings_pattern: str) -> int:
        try:
            return super()._match_argument(action, arg_strings_pattern)
        except argparse.ArgumentError:
            self.error(missing_value(action))

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            value = super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            if said := wrong_value(action, arg_string):
                self.error(said)
            raise
        if value == Path() and not arg_string:
            self.error(str(wrong_value(action, arg_string)))
        return value


class Settings:
    """Adds options that set an attribute only if given, which tells given options from defaults.

    Args:
        group: a parser or argument group.
        defaults: an object whose attributes are the defaults shown in the help.
    """

    def __init__(self, group: Any, defaults: object = None) -> None:
        self._group = group
        self._defaults = defaults

    def add(self, option: str, *, help: str, **settings: Any) -> None:
        """Adds one option; arguments as in `add_argument`."""
        known = option.removeprefix("--")
        name = settings.setdefault("dest", OPTIONS.get(known, known.replace("-", "_")))
        default = getattr(self._defaults, name, None)
        shown = "" if default is None or default == () or isinstance(default, bool) else f" (default: {default})"
        self._group.add_argument(option, help=help + shown.replace("%", "%%"), default=argparse.SUPPRESS, **settings)


def command(
    commands: Any,
    name: str,
    run: Any,
    summary: str,
    options: Callable[[Parser], None] | None = None,
    *,
    tables: bool = False,
    config: bool = False,
) -> Parser:
    """Adds a command with `--json`, with `--config` if wanted, and with `options` once it is used: see `Parser`.

    A command that prints `tables` has the options of `add_formats` too.
    """
    parser: Parser = commands.add_parser(name, help=summary, description=summary, formatter_class=Formatter)
    parser.options, parser.tables = options, tables
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    if config:
        add_config(parser)
    add_debug(parser)
    return parser


FORMS = ("json", "csv", "markdown", "latex")
"""Forms of a command's tables, by option."""

ENDINGS = (".csv", ".md", ".tex", ".json")
"""Endings of the files that `--save` writes."""


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `oracle.cli.formats.give`; `Parser` checks them."""
    group = parser.add_argument_group("form of the tables")
    group.add_argument(
        "--csv",
        action="store_true",
        help="print the records as CSV, numbers unrounded; control characters are escaped, and cells that a "
        "spreadsheet would run as formulas start with an apostrophe (--json prints texts as they are)",
    )
    group.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    group.add_argument("--latex", action="store_true", help="print the tables in LaTeX, with booktabs")
    group.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="also write them to FILE, in the form of its ending: .csv, .md, .tex, .json; model, data, settings and "
        "versions go to FILE.provenance.json",
    )


def provenance_of(path: Path) -> Path:
    """The file beside a saved table that says what it is of."""
    return path.with_name(f"{path.name}.provenance.json")


def check_formats(found: argparse.Namespace) -> None:
    """Raises `InputError` for two forms at once, or a file that `--save` cannot or should not write."""
    chosen = [f"--{name}" for name in FORMS if getattr(found, name, False)]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)} exclude each other; omit {'one' if len(chosen) == 2 else 'others'}")
    path: Path | None = getattr(found, "save", None)
    if path is None:
        return
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"--save needs a file that ends in {', '.join(ENDINGS)}, not '{path}'")
    if path.exists() and not provenance_of(path).exists():
        raise InputError(f"'{path}' already exists, and --save did not write it; choose another --save or delete it")


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Adds `--debug`, which `oracle.cli.main` reads: it may stand before or after the command."""
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="print the traceback of an error"
    )


def add_dtype(settings: Settings) -> None:
    """Adds `--dtype`."""
    names = ", ".join(f"{name} ({others[0]})" for name, others in DTYPES.items())
    settings.add("--dtype", help=f"of the weights: {names}, or auto: the checkpoint's own on a GPU, float32 on the CPU")


def add_device(settings: Settings, note: str = "") -> None:
    """Adds `--device`."""
    settings.add("--device", help=f"cpu, cuda, cuda:N, or auto: a GPU if available{note}")


def add_trust(settings: Settings) -> None:
    """Adds `--trust-remote-code` and `--trust-code`, which `oracle.cli.main` reads."""
    settings.add("--trust-remote-code", action="store_true", help="run code shipped with the model")
    code = (
        "run Python code of your own that data or a run names: a metric MODULE:FUNCTION, or that of a folder of tasks"
    )
    settings.add("--trust-code", action="append", metavar="NAME", help=code)


def loading(arguments: argparse.Namespace) -> dict[str, Any]:
    """The model-loading settings given on the command line.

    Raises:
        InputError: if the name of the device or dtype is invalid.
    """
    given = {name: value for name, value in vars(arguments).items() if name in LOADING}
    if "dtype" in given:
        dtype_name(given["dtype"])
    if "device" in given:
        check_device(given["device"])
    return given


def add_prompt(group: Any) -> None:
    """Adds the options that decide how prompts are rendered."""
    settings = Settings(group)
    settings.add("--system", metavar="TEXT", help="system turn of every prompt that has none")
    settings.add(
        "--template-arg",
        action="append",
        metavar="NAME=VALUE",
        help="argument of the chat template, such as enable_thinking=false; true, false, null and numbers as in JSON, "
        "anything else is text; repeatable",
    )
    template = Settings(group.add_mutually_exclusive_group())
    template.add(
        "--chat-template",
        metavar="NAME|FILE",
        help="one of the tokenizer's templates, or a jinja file (default: the tokenizer's own, if it has one)",
    )
    template.add("--no-chat-template", dest="chat_template", action="store_false", help="pass prompts unformatted")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Adds `--quiet`."""
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def progress(arguments: argparse.Namespace, *, only_terminal: bool = False) -> "Watch":
    """The progress display: silent with `--quiet`, and without a terminal if `only_terminal`."""
    from oracle.utils.progress import silent, terminal

    return silent if arguments.quiet or (only_terminal and not sys.stderr.isatty()) else terminal


def add_view(parser: argparse.ArgumentParser) -> None:
    """Adds `--criterion` and `--cost`, which re-read a stored run by another metric or cost."""
    parser.add_argument("--criterion", metavar="METRIC", help="metric to read the run by (default: its own)")
    parser.add_argument(
        "--cost",
        metavar="COST",
        help="cost to read the run by: layers, or a file of 'oracle profile --out' (FILE:flops or FILE:ms chooses) "
        "(default: its own)",
    )


def view_name(stem: str, arguments: argparse.Namespace) -> str:
    """The stem followed by the options of `add_view` that were given: STEM, or STEM-METRIC-COST."""
    cost = arguments.cost and Path(arguments.cost).name.replace(":", "-")
    return "-".join(filter(None, (stem, arguments.criterion, cost)))
