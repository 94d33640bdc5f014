"""Words for what a parser refuses: what was required, what came instead, and what to write."""

import argparse
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from oracle.utils.text import nearest_names, one_of

__all__ = [
    "METAVARS",
    "exclusion",
    "missing_value",
    "no_such_choice",
    "unknown_options",
    "unknown_words",
    "wrong_value",
]

ELSEWHERE = {
    "threads": "set the environment variable OMP_NUM_THREADS instead",
    "speedup": "'oracle static --speedup X' finds masks for a speed-up, 'oracle export --budget' deploys them",
}
"""Options of other tools -> what to do here."""

ALIASES = {
    "metric": "criterion",
    "sequences": "limit",
    "samples": "limit",
    "output": "out",
    "dataset": "data",
    "max-tokens": "max-new-tokens",
}
"""Other words for options, by which other tools or other commands know them -> the option."""

MANY = 3
"""Maximum number of options that one hint names."""

METAVARS: dict[Any, str] = {int: "N", float: "X", Path: "PATH"}
"""Names of values by type, where an option has none of its own."""

KINDS: dict[Any, str] = {int: "a whole number", float: "a number"}
"""What a value of a type is."""

SHARES = ("F", "SHARE")
"""Names of values that are fractions, where a per cent sign has a meaning."""

EXCLUDING = re.compile(r"argument (\S+): not allowed with argument (\S+)")


def unknown_words(unknown: Seq[str], parser: argparse.ArgumentParser, stray: str) -> str:
    """What to do about arguments that a parser does not know; empty if there is nothing near.

    Args:
        unknown: the arguments.
        parser: the parser.
        stray: option that a word without one is probably the value of; empty for none.
    """
    options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    places = {action.dest: action.metavar or action.dest for action in parser._actions if not action.option_strings}
    names = {**{str(word).lower(): word for word in places.values()}, **places}
    for given in (one.partition("=")[0] for one in unknown if _is_option(one)):
        name = given.lstrip("-").replace("_", "-").lower()
        if name in ELSEWHERE:
            return f"; {ELSEWHERE[name]}"
        if name in names:
            return f"; give {names[name]} without {given}"
        if found := list(_near(name, options)):
            return f"; nearest: {' or '.join(map(repr, found))}"
    if stray and unknown and not _is_option(unknown[0]):
        return f"; write {stray} {shlex.quote(unknown[0])}"
    return ""


def unknown_options(arguments: Iterable[str], known: Mapping[str, Any]) -> list[str]:
    """The options among arguments that a parser does not know, each with the values after it."""
    found: list[str] = []
    within = False
    for one in arguments:
        if one == "--":
            break
        if _is_option(one):
            within = one.partition("=")[0] not in known
        if within:
            found.append(one)
    return found


def _is_option(word: str) -> bool:
    return re.match(r"--?[A-Za-z]", word) is not None and " " not in word.partition("=")[0]


def _near(name: str, options: Seq[str]) -> Iterator[str]:
    """Options that a name may mean: by another word for it, as its beginning, or misspelled."""
    bare = {option.removeprefix("--"): option for option in options}
    found = [ALIASES[name]] if ALIASES.get(name) in bare else []
    begun = [one for one in bare if one.startswith(name)]
    found += begun if len(begun) <= MANY else []
    found += nearest_names(name, bare)
    yield from (bare[one] for one in list(dict.fromkeys(found))[:MANY])


def missing_value(action: argparse.Action) -> str:
    """That an option lacks its value."""
    kind: Any = action.type
    name, value = _name(action), action.metavar or METAVARS.get(kind) or action.dest.upper()
    where = "; 'oracle runs' lists the runs in a folder" if value == "RUN" else ""
    return f"{name} needs a value, but none follows it: write {name} {value}{where}"


def wrong_value(action: argparse.Action, text: str) -> str | None:
    """That a value is not of its option's type; None if the type says it in words of its own."""
    kind: Any = action.type
    if kind is Path and not text:
        return f"{_name(action)} needs a path, not an empty text"
    if kind not in KINDS:
        return None
    return f"{_name(action)} needs {KINDS[kind]}, not '{text}'{_number_in(text, kind, action.metavar in SHARES)}"


def _number_in(text: str, kind: Any, is_share: bool) -> str:
    """The number that a text with a unit, a per cent sign or commas between thousands means."""
    grouped = re.fullmatch(r"\d{1,3}(,\d{3})+", text)
    found = re.fullmatch(r"\s*([-+]?\d+(?:\.\d+)?)\s*(%|[A-Za-z]+)\s*", text)
    if grouped:
        return f"; write {text.replace(',', '')}"
    if found is None or (kind is int and "." in found[1]):
        return ""
    return f"; write {float(found[1]) / 100:g}" if found[2] == "%" and is_share else f"; write {found[1]}"


def no_such_choice(action: argparse.Action, value: Any) -> str:
    """That a value is not one of those to choose from."""
    return f"{''.join(action.option_strings) or action.metavar} needs {one_of(map(str, action.choices or ()), value)}"


def exclusion(message: str) -> str:
    """A message of argparse, in our words if it is that two options exclude each other."""
    found = EXCLUDING.fullmatch(message)
    return f"{found[1]} and {found[2]} exclude each other: give only one of them" if found else message


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
