"""What all commands share."""

import argparse
from typing import Any, NoReturn

from oracle.errors import InputError
from oracle.utils.devices import DTYPES, check_device, dtype_name

__all__ = ["Parser", "Settings", "add_cost", "add_device", "add_dtype", "add_quiet", "add_trust", "command", "loading"]

LOADING = ("model", "dtype", "device", "trust_remote_code")
"""Options that say how a model is loaded, by the names of `oracle.config.SearchConfig`."""


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """One clear line and exit code 2, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        """Raises what every other bad input raises."""
        raise InputError(f"{message}; see '{self.prog} --help'")


class Settings:
    """Adds options that set something only if they are given, so that it shows which were.

    Args:
        group: of a parser.
        defaults: an object whose attributes are what holds otherwise; help shows them.
    """

    def __init__(self, group: Any, defaults: object = None) -> None:
        self._group = group
        self._defaults = defaults

    def add(self, option: str, *, help: str, **settings: Any) -> None:
        """Adds one option, as `add_argument` does."""
        name = settings.get("dest") or option.removeprefix("--").replace("-", "_")
        default = getattr(self._defaults, name, None)
        shown = "" if default is None or default == () or isinstance(default, bool) else f" (default: {default})"
        self._group.add_argument(option, help=help + shown.replace("%", "%%"), default=argparse.SUPPRESS, **settings)


def command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    """Adds a command, which prints tables or one JSON object."""
    parser = commands.add_parser(name, help=summary, description=summary, formatter_class=Formatter)
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return parser


def add_dtype(settings: Settings) -> None:
    """Adds the option of the precision of a model."""
    names = ", ".join(f"{name} ({others[0]})" for name, others in DTYPES.items())
    settings.add("--dtype", help=f"of the weights: {names}, or auto: the checkpoint's own on a GPU, float32 on the CPU")


def add_device(settings: Settings, note: str = "") -> None:
    """Adds the option of where a model runs."""
    settings.add("--device", help=f"cpu, cuda, cuda:N, or auto: a GPU if there is one{note}")


def add_trust(settings: Settings) -> None:
    """Adds the option that lets a model's own code run."""
    settings.add("--trust-remote-code", action="store_true", help="let code that comes with the model run")


def loading(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of the options of loading a model that were given.

    Raises:
        InputError: if a device or dtype is badly named.
    """
    given = {name: value for name, value in vars(arguments).items() if name in LOADING}
    if "dtype" in given:
        dtype_name(given["dtype"])
    if "device" in given:
        check_device(given["device"])
    return given


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Adds the option that turns progress off."""
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def add_cost(parser: argparse.ArgumentParser) -> None:
    """Adds the option that reads a stored run by other costs."""
    parser.add_argument(
        "--cost",
        metavar="COST",
        help="read the run by other costs than its own: layers, or a file of 'oracle profile --out' (FILE:flops or "
        "FILE:ms chooses)",
    )
