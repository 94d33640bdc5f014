"""Terminal tables. Model output is untrusted: it is printed as text, never as markup or control codes."""

import csv
import json
import math
import sys
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from decimal import Decimal
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.formatting import counted, interval_name
from analysis.queries import by_task
from oracle.allocations import compact
from oracle.metrics import VACUOUS, told_nothing
from oracle.utils.text import printable, spreadsheet_text

__all__ = [
    "console",
    "informative_summary",
    "new_table",
    "percent",
    "plain",
    "show_budgets",
    "show_csv",
    "show_line",
    "show_oracle",
    "show_rows",
    "show_sequence",
    "show_summary",
]

UNWRAPPED = 10_000
"""Line width for files and pipes, where nothing is wrapped."""

MAX_TEXT = 120
"""Maximum number of characters of a text in a table; CSV and JSON hold all of it."""

COUNTS = ("layers", "sublayers")
"""Measures of cost that are whole numbers."""


def show_summary(summary: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Prints the numbers of a run, then one line per task."""
    out = console()
    out.print(
        f"\n{counted(summary['sequences'])}, {summary['allocations_per_sequence']:.4g} allocations each, "
        f"{summary['layers']} {summary['unit']}s; mean {summary['criterion']} of the full model "
        f"{summary['full_quality']:.3f}\n"
    )
    out.print(_headline(summary))
    out.print(_tasks(by_task(rows)))
    told = informative_summary(summary)
    out.print(_left_out(summary))
    if told:
        gap = told["mean_gap"]
        others = "" if gap is None else f" (mean gap of the others {_mean_cost(gap, told['cost'])} {told['cost']})"
        proven = f"{told['certified']} of the {told['sequences']} that can tell something proven minimal"
        out.print(f"Budgets are the best found; {proven}{others}.")
    out.print(
        f"Verified by the cut model's own forward: {summary['verified']} of {summary['verified_of']} reported "
        "allocations.\n"
        f"Search {summary['search_seconds']:.0f} s, total {summary['seconds']:.0f} s, "
        f"peak memory {summary['peak_memory_mib']} MiB ({summary['memory_above_model_mib']} above the model)."
    )
    if summary.get("equal_quality_gap"):
        most = percent(summary["equal_quality_gap"])
        out.print(f"The oracle was not solved exactly: its fraction is at most {most} too high (certified).")
    if summary["unverified"]:
        names = ", ".join(printable(name) for name in summary["unverified"])
        out.print(_text(f"NOT VERIFIED, do not use: {names}; see verification.parquet in the run."))
        for entry in summary.get("differences", []):
            out.print(_text(_difference(entry)))


def _difference(entry: dict[str, Any]) -> str:
    """One line for an allocation that failed verification: position, size of the difference, and remedy."""
    where = f"{printable(entry['sequence'])}, allocation of cost {entry['cost']:g}"
    if "position" not in entry:
        return f"  {where}: {entry['remedy']}."
    recorded, plain = (
        "the end" if entry[name] is None else repr(printable(entry[f"{name}_text"])) for name in ("recorded", "plain")
    )
    near_tie = "none, every token is computed alone" if entry["near_tie"] is None else f"{entry['near_tie']:.2g}"
    lead = "" if entry["lead"] is None else f", which leads by {entry['lead']:.2g} logits"
    return (
        f"  {where}: token {entry['position'] + 1} is {recorded} in the run and {plain} in plain generation{lead} "
        f"(rounding measured here {entry['rounding']:.2g}, near-tie rule {near_tie}); {entry['remedy']}."
    )


def informative_summary(summary: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of the sequences that can tell something; None if none can. Earlier runs did not count them."""
    if summary.get("informative_sequences", summary["sequences"]) == summary["sequences"]:
        return summary
    return cast(dict[str, Any] | None, summary["informative"])


def _left_out(summary: dict[str, Any]) -> str:
    """How many sequences tell nothing, and why."""
    zero, vacuous, n = summary["zero_quality_sequences"], summary.get("vacuous", {}), summary["sequences"]
    untold = n - summary.get("informative_sequences", n - zero)
    null = f"against shuffled references the full model scores zero on {percent(summary['null_zero_quality_share'])}"
    null = "" if summary["null_zero_quality_share"] is None else f" ({null})"
    if not untold:
        return f"All {n} sequences can tell something{null}."
    return f"{untold} of {n} sequences can tell nothing: {told_nothing(untold, vacuous)}{null}."


def _headline(summary: dict[str, Any]) -> Table | str:
    told = informative_summary(summary)
    if told is None:
        return "No fraction is stated: no sequence can tell one allocation from another.\n"
    ends = interval_name(told["sequences"]).replace(", ", ",\n").removesuffix(":")
    table = new_table(f"Fraction of {summary['cost']} that suffices", ["mean", ends, "shuffled\nreferences"])
    parts = {f"the {told['sequences']} sequences that can tell something": told} if told is not summary else {}
    for over, part in {**parts, f"all {summary['sequences']} sequences": summary}.items():
        table.add_row(f"over {over}", "", "", "")
        rows = {
            "  minimal budget per sequence": "per_sequence",
            "  oracle at equal mean quality": "equal_quality",
            "    the same end to end, prompt included": "end_to_end_fraction",
            "    over the full model's own outputs": "end_to_end_against_full",
        }
        for label, name in rows.items():
            mean, bounds = part.get(name, part.get(f"{name}_fraction")), part.get(f"{name}_interval")
            if mean is None and name.startswith("end_to_end"):
                continue  # latency was not measured on prompts
            table.add_row(
                label,
                percent(mean),
                f"{percent(bounds[0])} - {percent(bounds[1])}" if bounds else "",
                percent(part.get(f"null_{name}_fraction")),
            )
    return table


def _tasks(rows: list[dict[str, Any]]) -> Table:
    columns = [
        "sequences",
        "full quality",
        "minimal budget",
        "of those\nthat tell",
        "headline\nwithout it",
        "tell nothing",
    ]
    table = new_table("Task", columns)
    for row in rows:
        table.add_row(
            _text(row["task"] or "(none)"),
            str(row["sequences"]),
            f"{row['full_quality']:.3f}",
            percent(row["fraction"]),
            percent(row["fraction_informative"]),
            percent(row["fraction_of_others"]),
            str(row["sequences"] - row["informative"]),
        )
    return table


def show_budgets(rows: list[dict[str, Any]], layers: int, measure: str = "layers") -> None:
    """Prints one line per sequence: bounds of the minimal budget and the allocation as a strip of layers.

    Args:
        rows: of `analysis.queries.budgets`.
        layers: number of units.
        measure: unit of the costs.
    """
    budget = "budget" if measure in COUNTS else measure
    table = new_table("Sequence", [budget, "at least", "fraction", "quality", "full"], strip=True)
    for row in rows:
        mark = "" if row["informative"] else " *" if row["zero_quality"] else " +"
        table.add_row(
            _text(row["sequence"]),
            _cost(row["upper"], measure),
            _cost(row["lower"], measure),
            percent(row["fraction"]),
            f"{row['quality']:.3f}",
            f"{row['full_quality']:.3f}{mark}",
            _strip(row["allocation"], layers),
        )
    out = console()
    out.print(table)
    if any(row["zero_quality"] for row in rows):
        out.print("* the full model scores zero, so every allocation qualifies")
    for reason in {row["vacuous"]: None for row in rows if row["vacuous"]}:
        out.print(f"{'*' if reason == 'unseen references' else '+'} {VACUOUS[reason]}")


def show_sequence(answer: dict[str, Any], layers: int, measure: str = "layers") -> None:
    """Prints one sequence with its frontier; see `show_budgets`."""
    out = console()
    upper, lower = (_cost(answer[name], measure) for name in ("upper", "lower"))
    of = f"of {layers} layers" if measure in COUNTS else f"{measure}, {percent(answer['fraction'])}"
    proof = f"{upper} {of}; at least {lower} ({answer['proof']})"
    for label, value in [
        ("sequence", answer["sequence"]),
        ("prompt", answer["prompt"]),
        ("references", " | ".join(answer["references"])),
        ("full model", answer["full_output"]),
        ("minimal budget", proof),
        ("allocation", compact(answer["allocation"])),
    ]:
        out.print(Text.assemble((f"{label:15}", "bold"), _text(value, 500)))
    if answer["statistical"] is not None:
        out.print(Text.assemble((f"{'statistical':15}", "bold"), _text(answer["statistical"])))
    table = new_table("Layers" if measure in COUNTS else measure, ["fraction", answer["criterion"]], strip=True)
    table.add_column("output", overflow="fold")
    for point in answer["frontier"]:
        table.add_row(
            _cost(point["cost"], measure),
            percent(point["fraction"]),
            f"{point['quality']:.3f}",
            _strip(point["allocation"], layers),
            _text(point["text"], MAX_TEXT),
        )
    out.print(table)


def show_oracle(answer: dict[str, Any], layers: int, measure: str = "layers") -> None:
    """Prints the oracle's choice under a mean budget; see `show_budgets`."""
    of = "layers" if measure in COUNTS else measure
    out = console()
    out.print(
        f"\nOracle under a mean budget of {percent(answer['budget'])}: uses {percent(answer['fraction'])} of the "
        f"{of} at mean {answer['criterion']} {answer['quality']:.3f} (full model {answer['full_quality']:.3f})\n"
    )
    table = new_table("Sequence", [of, "quality"], strip=True)
    for row in answer["assignment"]:
        table.add_row(
            _text(row["sequence"]),
            _cost(row["cost"], measure),
            f"{row['quality']:.3f}",
            _strip(row["allocation"], layers),
        )
    out.print(table)


def console() -> Console:
    """A console as wide as the terminal; without a terminal, lines are not wrapped."""
    found = Console()
    return found if found.is_terminal else Console(width=UNWRAPPED)


def new_table(first: str | None = None, numbers: Seq[str] = (), *, strip: bool = False) -> Table:
    """An empty table: a column of names, then columns of numbers; names and strips may wrap, numbers never do."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    if first is not None:
        table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    if strip:
        table.add_column("layers that run", overflow="fold")
    return table


def _strip(allocation: Seq[int], layers: int) -> Text:
    """One cell per layer: filled if it runs."""
    kept = set(allocation)
    return Text("".join("█" if layer in kept else "·" for layer in range(layers)))


def _cost(value: float, measure: str) -> str:
    """A cost as text: whole layers, milliseconds to the microsecond, or FLOPs with a prefix."""
    if measure in COUNTS:
        return str(value)
    if measure == "ms/token":
        return f"{value:.3f}"
    size, prefix = next((pair for pair in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if value >= pair[0]), (1e3, "k"))
    return f"{value / size:.1f} {prefix}"


def _mean_cost(value: float, measure: str) -> str:
    return f"{value:.1f}" if measure in COUNTS else _cost(value, measure)


def percent(value: float | None) -> str:
    """A fraction as a percentage, such as `12.3 %`; empty for None."""
    return "" if value is None else f"{100 * value:.1f} %"


def _text(value: str, longest: int | None = None) -> Text:
    """Untrusted text on one line, without control characters, truncated to a length."""
    line = printable(value.replace("\n", " / "))
    return Text(line if longest is None or len(line) <= longest else line[: longest - 1] + "…")


def show_rows(columns: Seq[str], rows: Seq[Mapping[str, Any]]) -> None:
    """Prints a table: numbers right-aligned and never wrapped, allocations as ranges of layers."""
    table = new_table()
    for name in columns:
        numeric = all(row[name] is None or isinstance(row[name], (int, float, Decimal)) for row in rows)
        table.add_column(
            Text(printable(name)), justify="right" if numeric and rows else "left", no_wrap=numeric, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(_cell(name, row[name])) for name in columns))
    console().print(table)


def show_line(text: str) -> None:
    """Prints a sentence, wrapped to the terminal."""
    console().print(Text(printable(text)))


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (float, Decimal)):
        return f"{value:.4g}"
    if name == "allocation" and isinstance(value, (list, tuple)):
        return compact(value)
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
    return _text(text, MAX_TEXT).plain


def show_csv(columns: Seq[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Prints CSV with a header: lists and structures as JSON, missing values as empty cells.

    Texts neither control a terminal nor run as formulas; see `spreadsheet_text`.
    """
    writer = csv.writer(sys.stdout, lineterminator="\n")
    shown = (lambda text: printable(spreadsheet_text(text))) if sys.stdout.isatty() else spreadsheet_text
    writer.writerow([shown(name) for name in columns])
    for row in rows:
        values = [plain(row[name]) for name in columns]
        cells = [json.dumps(value) if isinstance(value, (list, dict, bool)) else value for value in values]
        writer.writerow([shown(cell) if isinstance(cell, str) else cell for cell in cells])


def plain(value: Any) -> Any:
    """The value as a JSON value: None for NaN and infinity, text for dates and other types."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, Decimal)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)
