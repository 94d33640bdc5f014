"""`--config FILE`: options of a command from a YAML file; those on the command line win."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oracle.errors import InputError
from oracle.utils.text import nearest_hint

__all__ = ["add_config", "config_run", "in_file", "read_config"]

CONSENT = ("trust_remote_code", "trust_code")
"""Options that a file cannot give: consent to run code comes from the caller."""

_IN_FILE = "names_in_file"


def add_config(parser: Any, more: str = "") -> None:
    """Adds `--config`, which `oracle.cli.parsing.Parser` reads."""
    parser.add_argument(
        "--config",
        dest="config_file",
        type=Path,
        metavar="FILE",
        help=f"YAML file of options, their names as keys; those on the command line win{more}",
    )


def in_file(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Names of the options that `--config` gave."""
    return tuple(getattr(arguments, _IN_FILE, ()))


def config_run(path: Path | None) -> Path | None:
    """The folder of the run whose manifest, or folder, is given as the config; None if it is neither."""
    if path is None:
        return None
    folder = path if path.is_dir() else path.parent
    return folder if (path.is_dir() or path.name == "manifest.json") and (folder / "manifest.json").is_file() else None


def read_config(
    found: argparse.Namespace, given: set[str], parser: argparse.ArgumentParser, *, runs: bool = False
) -> None:
    """Sets the options of the config file in `found`, except those given on the command line.

    Args:
        found: the options with their defaults.
        given: names of those on the command line.
        parser: of the options that the file may give.
        runs: whether the file may be a run, which is then left to the command.

    Raises:
        InputError: if the file cannot be read, or has an unknown key or a value of another type.
    """
    from oracle.settings import read_yaml

    path = found.config_file
    if folder := config_run(path):
        if not runs:
            raise InputError(
                f"--config '{path}' is a run ('{folder}'), whose settings are those of a search: give a file"
            )
        return
    values = read_yaml(path)
    if isinstance(values.get("config"), Mapping) and "schema_version" in values:
        raise InputError(
            f"'{path}' is the manifest of a run outside its folder: give the run's folder, or the file there"
        )
    chosen = _chosen(values, path, parser)
    for group in parser._mutually_exclusive_groups:
        members = {action.dest for action in group._group_actions}
        if members & given:
            chosen = {name: value for name, value in chosen.items() if name not in members}
        elif len(both := sorted(members & set(chosen))) > 1:
            raise InputError(f"--config '{path}': {' and '.join(both)} exclude each other: keep one of them")
    chosen = {name: value for name, value in chosen.items() if name not in given}
    for name, value in chosen.items():
        setattr(found, name, value)
    setattr(found, _IN_FILE, tuple(chosen))


def _chosen(values: Mapping[str, Any], path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    from oracle.settings import entries

    actions = [action for action in parser._actions if action.option_strings and action.dest not in _META]
    named = {option.removeprefix("--"): action for action in actions for option in action.option_strings}
    found: dict[str, Any] = {}
    for key, name, value in entries(values):
        option = key.replace("_", "-")
        matching = [named[option]] if option in named else [action for action in actions if action.dest == name]
        if not matching:
            known = [*named, *(action.dest for action in actions)]
            raise InputError(f"--config '{path}': unknown key '{key}'{nearest_hint(option, known)}")
        dest = matching[0].dest
        if dest in CONSENT:
            raise InputError(
                f"--config '{path}' cannot give {key}: consent to run code comes from the command line only"
            )
        if dest in found:
            raise InputError(f"--config '{path}': '{key}' is given twice, by two names: keep one of them")
        same = [action for action in actions if action.dest == dest]
        if value is not None:
            opposite = option.startswith("no-") and not dest.startswith("no_")
            found[dest] = _value(value, matching[0], same, f"--config '{path}': {key}", by_opposite=opposite)
    return found


_META = ("help", "config_file", "debug")


def _value(value: Any, action: argparse.Action, same: list[argparse.Action], where: str, *, by_opposite: bool) -> Any:
    """A value as the option would set it."""
    flags = [one for one in same if one.nargs == 0]
    if flags and isinstance(value, bool):
        # `no-figures: true` and `figures: false` say the same.
        return value is not by_opposite
    if action.nargs == 0:
        raise InputError(f"{where} needs true or false, not {value!r}")
    several = isinstance(action, argparse._AppendAction) or action.nargs == "+"
    if several:
        return [_converted(one, action, where) for one in (value if isinstance(value, list | tuple) else [value])]
    return _converted(value, action, where)


def _converted(value: Any, action: argparse.Action, where: str) -> Any:
    if isinstance(value, Mapping | list | tuple) or value is None:
        raise InputError(f"{where} needs one value, not {value!r:.80}")
    if isinstance(value, bool):
        raise InputError(f"{where} needs a value, not {str(value).lower()}: put a text in quotes")
    if action.type is None:
        return value if isinstance(value, str) else str(value)
    kind: Any = action.type
    try:
        return kind(str(value))
    except (ValueError, argparse.ArgumentTypeError):
        raise InputError(f"{where} needs {getattr(kind, '__name__', 'another value')}, not {value!r:.80}") from None
