"""`oracle cache`: hidden states stored on this machine by searches. Needs no model."""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import Parser, command
from oracle.errors import InputError
from oracle.utils.text import printable

if TYPE_CHECKING:
    from oracle.store.hidden import HiddenStore

__all__ = ["add_cache", "add_cache_options", "open_store"]

UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}{end}": 1024**power for power, letter in enumerate("kmgt", 1) for end in ("", "ib")},
}
UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}


def add_cache(commands: Any) -> None:
    """Adds `oracle cache info`, `verify` and `prune`."""
    summary = "Manage the hidden states that searches store: list, verify, delete."
    parser = commands.add_parser("cache", help=summary, description=summary)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    info = command(actions, "info", _reporting(_info), "Show folder, size, limit, and the size per model.")
    about = "Verify every file; damaged ones are set aside and computed again when needed. Exit code 1 on damage."
    verify = command(actions, "verify", _reporting(_verify), about)
    prune = command(actions, "prune", _reporting(_prune), "Delete hidden states, least recently used first.")
    prune.add_argument("--to", type=size, metavar="SIZE", help="stop once at most this much is left, such as 1GiB")
    prune.add_argument("--model", metavar="NAME", help="only this model's: its name or fingerprint in 'info'")
    prune.add_argument("--all", action="store_true", help="delete everything")
    for action in (info, verify, prune):
        _add_folder(action)
    _add_limit(info)


def add_cache_options(group: Any) -> None:
    """Adds the options of a command that reads and stores hidden states; `open_store` reads them."""
    which = group.add_mutually_exclusive_group()
    _add_folder(which)
    which.add_argument("--no-cache", action="store_true", help="neither read nor store hidden states")
    _add_limit(group)


def open_store(arguments: argparse.Namespace) -> "HiddenStore | None":
    """The store that the options of `add_cache_options` name; None with `--no-cache`.

    Raises:
        InputError: if the path is not a folder.
    """
    if getattr(arguments, "no_cache", False):
        return None
    from oracle.store.hidden import LIMIT, HiddenStore
    from oracle.utils.paths import hidden_folder

    folder = arguments.cache.expanduser() if arguments.cache else hidden_folder()
    limit = getattr(arguments, "cache_limit", None)
    return HiddenStore(folder, LIMIT if limit is None else limit, warn=_warn)


def size(text: str) -> int:
    """Size in bytes, parsed from a number and a unit such as GiB (1024^3), GB (1000^3) or G (same as GiB)."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if not found or found[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"a size such as 500MiB or 4GiB is required, not '{text}'")
    return int(float(found[1]) * UNITS[found[2]])


def _add_folder(parser: Any) -> None:
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder of hidden states (default: $LAYER_ORACLE_HIDDEN, or 'hidden' in the cache folder)",
    )


def _add_limit(parser: Any) -> None:
    parser.add_argument(
        "--cache-limit",
        type=size,
        metavar="SIZE",
        help="maximum size of hidden states on disk; the least recently used are deleted first (default: 4GiB)",
    )


def _warn(message: str) -> None:
    print(f"oracle: warning: {' '.join(printable(message).split())}", file=sys.stderr)


def _reporting(act: Callable[["HiddenStore", argparse.Namespace], tuple[dict[str, Any], str, int]]) -> Any:
    """A command that prints an action's (JSON object, text, exit code) as JSON or as text."""

    def run(arguments: argparse.Namespace) -> int:
        store = open_store(arguments)
        assert store is not None
        try:
            answer, text, code = act(store, arguments)
        except OSError as error:
            raise InputError(f"cannot use '{store.folder}' ({error.strerror}); choose another --cache") from error
        print(json.dumps({"folder": str(store.folder), **answer}) if arguments.json else text)
        return code

    return run


def _info(store: "HiddenStore", arguments: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    usage, damaged = sorted(store.usage(), key=lambda each: -each.bytes), store.set_aside()
    models = [asdict(each) for each in usage]
    shards, count = sum(each.shards for each in usage), sum(each.bytes for each in usage)
    answer = {"shards": shards, "bytes": count, "limit": store.limit, "damaged": len(damaged), "models": models}
    lines = [
        f"{store.folder}: {shards} shards, {_shown(count)} of at most {_shown(store.limit)}",
        *(f"  {each.model}  {each.shards} shards, {_shown(each.bytes)}  {each.name}" for each in usage),
    ]
    if damaged:
        lines.append(f"{len(damaged)} damaged shards set aside; 'oracle cache prune --all' deletes them too")
    return answer, "\n".join(printable(line) for line in lines), 0


def _verify(store: "HiddenStore", arguments: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    count = store.verify()
    damaged = [str(path) for path in store.damaged]
    text = f"{count} shards, {len(damaged)} damaged" + (" and set aside" if damaged else "")
    return {"shards": count, "damaged": damaged}, text, 1 if damaged else 0


def _prune(store: "HiddenStore", arguments: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    if arguments.to is None and arguments.model is None and not arguments.all:
        raise InputError("prune needs --to SIZE, --model NAME, or --all to delete everything")
    if arguments.all and (arguments.to is not None or arguments.model is not None):
        raise InputError("prune --all deletes everything: omit --all, or omit --to and --model")
    count, freed = store.prune(arguments.to or 0, model=arguments.model)
    left = sum(each.bytes for each in store.usage())
    answer = {"deleted": count, "deleted_bytes": freed, "bytes": left}
    return answer, f"{count} shards deleted, {_shown(freed)}; {_shown(left)} left", 0


def _shown(count: int) -> str:
    """Bytes with a binary unit, such as `1.5 GiB`."""
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
