"""`oracle report`: a stored run as one HTML file."""

import argparse
import json
import webbrowser
from pathlib import Path
from typing import Any

from oracle.cli.parsing import add_quiet, add_view, command, progress, view_name
from oracle.utils.text import printable

__all__ = ["add_report"]


def add_report(commands: Any) -> None:
    """Adds `oracle report`."""
    summary = "Write a stored run as one HTML file to explore in a browser, offline; needs no model."
    parser = command(commands, "report", _run_report, summary)
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the file (default: RUN/report.html, or RUN/report-METRIC-COST.html)"
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    add_view(parser)
    add_quiet(parser)


def _run_report(arguments: argparse.Namespace) -> None:
    from analysis import load
    from analysis.report import write_report
    from oracle.store import Run

    out = arguments.out or arguments.folder / f"{view_name('report', arguments)}.html"
    experiment = load(arguments.folder, arguments.criterion, costs=arguments.cost)
    run = Run.open(arguments.folder)
    # Verification covers the allocations reported under the run's own criterion and cost.
    own = experiment.metric == run.manifest["config"]["criterion"] and arguments.cost is None
    verified = run.table("verification") if own and run.has("verification") else None
    watch = progress(arguments, only_terminal=True)
    with watch("Reading", experiment.sequences["task"].nunique() + 2) as advance:
        path = write_report(arguments.folder, out, experiment=experiment, verified=verified, advance=advance)
    print(json.dumps({"report": str(path)}) if arguments.json else printable(str(path)))
    if arguments.open:
        webbrowser.open(path.resolve().as_uri())
