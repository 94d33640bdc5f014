"""Options and checks that all commands share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from oracle.errors import InputError
from oracle.utils.devices import DTYPES, check_device, dtype_name

if TYPE_CHECKING:
    from oracle.utils.progress import Watch

__all__ = [
    "Parser",
    "Settings",
    "add_device",
    "add_dtype",
    "add_quiet",
    "add_trust",
    "add_view",
    "check_format",
    "command",
    "loading",
    "progress",
    "view_name",
]

LOADING = ("model", "dtype", "device", "trust_remote_code")
"""Settings of `oracle.config.SearchConfig` that determine how a model is loaded."""


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help formatter that omits the defaults None, False and []."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Argument parser that raises `InputError` instead of exiting.

    Attributes:
        options: adds options whose defaults or help take long to import; called once the command is known.
    """

    options: Callable[["Parser"], None] | None = None

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """See the base class."""
        if self.options is not None:
            add, self.options = self.options, None
            add(self)
        return super().parse_known_args(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raises `InputError`."""
        raise InputError(f"{message}; see '{self.prog} --help'")


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
        name = settings.get("dest") or option.removeprefix("--").replace("-", "_")
        default = getattr(self._defaults, name, None)
        shown = "" if default is None or default == () or isinstance(default, bool) else f" (default: {default})"
        self._group.add_argument(option, help=help + shown.replace("%", "%%"), default=argparse.SUPPRESS, **settings)


def command(
    commands: Any, name: str, run: Any, summary: str, options: Callable[[Parser], None] | None = None
) -> argparse.ArgumentParser:
    """Adds a command with the option `--json`, and with `options` once it is used: see `Parser`."""
    parser = commands.add_parser(name, help=summary, description=summary, formatter_class=Formatter)
    parser.options = options
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return parser


def add_dtype(settings: Settings) -> None:
    """Adds `--dtype`."""
    names = ", ".join(f"{name} ({others[0]})" for name, others in DTYPES.items())
    settings.add("--dtype", help=f"of the weights: {names}, or auto: the checkpoint's own on a GPU, float32 on the CPU")


def add_device(settings: Settings, note: str = "") -> None:
    """Adds `--device`."""
    settings.add("--device", help=f"cpu, cuda, cuda:N, or auto: a GPU if available{note}")


def add_trust(settings: Settings) -> None:
    """Adds `--trust-remote-code`."""
    settings.add("--trust-remote-code", action="store_true", help="run code shipped with the model")


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


def check_format(arguments: argparse.Namespace) -> None:
    """Raises `InputError` if both `--json` and `--csv` were given."""
    if arguments.json and arguments.csv:
        raise InputError("--json and --csv exclude each other; omit one")
