"""`oracle runs`: the runs in a folder."""

import argparse
from pathlib import Path
from typing import Any

from oracle.cli.parsing import command
from oracle.errors import InputError
from oracle.utils.paths import nearest_path

__all__ = ["add_runs"]

COLUMNS = ("run", "model", "data", "criterion", "sequences", "state", "per_sequence", "equal_quality")

EPILOG = """\
columns: model, data, criterion and number of sequences of the search; mean minimal budget per sequence and oracle at
equal mean quality, over the sequences that can tell something; state: complete, unfinished (continued by
'oracle search --resume RUN'), or the reason why the run cannot be read."""


def add_runs(commands: Any) -> None:
    """Adds `oracle runs`."""
    about = "List the runs in a folder: model, data, sequences, state, headline. Exit code 1 if one cannot be read."
    parser = command(commands, "runs", _run_runs, about, tables=True)
    parser.epilog = EPILOG
    parser.add_argument(
        "under", type=Path, nargs="?", default=Path("runs"), metavar="DIR", help="folder, with those in it at any depth"
    )


def _run_runs(arguments: argparse.Namespace) -> int:
    from oracle.cli.formats import give
    from oracle.cli.tables import Table, counts, shares, show_line, show_table, words
    from oracle.store.index import MANIFEST

    if not arguments.under.is_dir():
        raise InputError(
            f"a folder is required, but '{arguments.under}' is none{nearest_path(arguments.under)}; "
            "give the one that holds your runs"
        )
    found = (_row(path.parent) for path in sorted(arguments.under.rglob(MANIFEST)))
    rows = [row for row in found if row is not None]
    columns = [
        *(words(name, name) for name in ("run", "model", "data", "criterion")),
        counts("sequences", "sequences"),
        shares("per sequence", "per_sequence"),
        shares("oracle", "equal_quality"),
        words("state", "state"),
    ]
    table = Table(name="runs", rows=rows, columns=columns, fields=COLUMNS)

    def show() -> None:
        if rows:
            show_table(table)
            for row in rows:
                if row["state"] == "complete" and row["per_sequence"] is None:
                    show_line(f"{row['run']}: no fraction is stated, as no sequence can tell something")
        else:
            show_line(f"No runs in {arguments.under}; 'oracle search' writes one.")

    give(arguments, [table], whole=lambda: {"runs": rows}, show=show)
    return int(any(row["state"] not in ("complete", "unfinished") for row in rows))


def _row(folder: Path) -> dict[str, Any] | None:
    """What is known of a folder with a manifest; None if the manifest is not a run's, such as that of an export."""
    from oracle.cli.run_tables import informative_summary
    from oracle.store import Run
    from oracle.store.checks import parse_json
    from oracle.store.index import MANIFEST

    row: dict[str, Any] = {**dict.fromkeys(COLUMNS), "run": str(folder)}
    try:
        manifest = parse_json(folder / MANIFEST)
    except (OSError, ValueError):
        manifest = None
    if isinstance(manifest, dict) and not {"schema_version", "config"} <= manifest.keys():
        return None
    try:
        run = Run.open(folder)
        row |= {"model": run.manifest["model"]["id"], "data": run.manifest["config"].get("data")}
        row |= {"criterion": run.manifest["config"]["criterion"], "state": "unfinished"}
        if run.has("sequences"):
            row["sequences"] = len(run.sequences())
        if run.complete:
            told = informative_summary(run.summary(whole=True)) or {}
            row |= {"per_sequence": told.get("per_sequence_fraction"), "state": "complete"}
            row["equal_quality"] = told.get("equal_quality_fraction")
    except InputError as error:
        row["state"] = str(error)
    return row
