"""What all commands share."""

import argparse
from typing import Any, NoReturn

from oracle.errors import InputError

__all__ = ["Parser", "Settings", "add_quiet", "command"]


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


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Adds the option that turns progress bars off."""
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
