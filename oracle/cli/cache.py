"""`oracle cache`: hidden states stored on this machine by searches. Needs no model."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import Parser, command
from oracle.errors import InputError
from oracle.utils.text import printable

if TYPE_CHECKING:
    from oracle.cli.tables import Table
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
    info = command(actions, "info", _reporting(_info), "Show folder, size, limit, and the size per model.", tables=True)
    about = "Verify every file; damaged ones are set aside and computed again when needed. Exit code 1 on damage."
    verify = command(actions, "verify", _reporting(_verify), about, tables=True)
    about = "Delete hidden states, least recently used first."
    prune = command(actions, "prune", _reporting(_prune), about, tables=True)
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


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an action found or did.

    Attributes:
        whole: as a JSON object.
        table: its table.
        above: the line above it.
        listed: whether it is printed for people too.
        below: the lines below it.
        code: exit code.
    """

    whole: dict[str, Any]
    table: "Table"
    above: str
    listed: bool = False
    below: Sequence[str] = ()
    code: int = 0


def _reporting(act: Callable[["HiddenStore", argparse.Namespace], Report]) -> Any:
    """A command that prints the report of an action."""

    def run(arguments: argparse.Namespace) -> int:
        from oracle.cli.formats import give
        from oracle.cli.tables import show_line, show_table

        store = open_store(arguments)
        assert store is not None
        try:
            report = act(store, arguments)
        except OSError as error:
            raise InputError(f"cannot use '{store.folder}' ({error.strerror}); choose another --cache") from error

        def show() -> None:
            show_line(report.above)
            if report.listed and report.table.rows:
                show_table(report.table)
            for line in report.below:
                show_line(line)

        give(arguments, [report.table], whole=lambda: {"folder": str(store.folder), **report.whole}, show=show)
        return report.code

    return run


def _info(store: "HiddenStore", arguments: argparse.Namespace) -> Report:
    from analysis.formatting import counted
    from oracle.cli.tables import Column, Table, counts, words

    usage, damaged = sorted(store.usage(), key=lambda each: -each.bytes), store.set_aside()
    models = [asdict(each) for each in usage]
    shards, count = sum(each.shards for each in usage), sum(each.bytes for each in usage)
    size = Column(heading="size", text=lambda row: _shown(row["bytes"]))
    columns = [words("model", "model"), counts("shards", "shards"), size, words("name", "name")]
    aside = f"{counted(len(damaged), 'damaged shard')} set aside; 'oracle cache prune --all' deletes them too"
    return Report(
        whole={"shards": shards, "bytes": count, "limit": store.limit, "damaged": len(damaged), "models": models},
        table=Table(name="models", rows=models, columns=columns, fields=("model", "name", "shards", "bytes")),
        above=f"{store.folder}: {counted(shards, 'shard')}, {_shown(count)} of at most {_shown(store.limit)}",
        listed=True,
        below=[aside] if damaged else [],
    )


def _verify(store: "HiddenStore", arguments: argparse.Namespace) -> Report:
    from analysis.formatting import counted
    from oracle.cli.tables import of_records

    count = store.verify()
    damaged = [str(path) for path in store.damaged]
    return Report(
        whole={"shards": count, "damaged": damaged},
        table=of_records("damaged", [{"damaged": path} for path in damaged], ["damaged"]),
        above=f"{counted(count, 'shard')}, {len(damaged)} damaged" + (" and set aside" if damaged else ""),
        code=1 if damaged else 0,
    )


def _prune(store: "HiddenStore", arguments: argparse.Namespace) -> Report:
    from analysis.formatting import counted
    from oracle.cli.tables import of_records

    if arguments.to is None and arguments.model is None and not arguments.all:
        raise InputError("prune needs --to SIZE, --model NAME, or --all to delete everything")
    if arguments.all and (arguments.to is not None or arguments.model is not None):
        raise InputError("prune --all deletes everything: omit --all, or omit --to and --model")
    count, freed = store.prune(arguments.to or 0, model=arguments.model)
    whole = {"deleted": count, "deleted_bytes": freed, "bytes": sum(each.bytes for each in store.usage())}
    return Report(
        whole=whole,
        table=of_records("deleted", [whole]),
        above=f"{counted(count, 'shard')} deleted, {_shown(freed)}; {_shown(whole['bytes'])} left",
    )


def _shown(count: int) -> str:
    """Bytes with a binary unit, such as `1.5 GiB`."""
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
