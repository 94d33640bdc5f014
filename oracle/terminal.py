"""Tables for the terminal. Model output is untrusted: it is shown as text, never as markup or control codes."""

from collections.abc import Sequence as Seq
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oracle.query import by_task, compact

__all__ = ["show_budgets", "show_oracle", "show_sequence", "show_summary"]


def show_summary(summary: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The numbers of a run, then a line a task."""
    console = Console()
    console.print(
        f"\n{summary['sequences']} sequences, {summary['allocations_per_sequence']} allocations each, "
        f"{summary['layers']} layers; mean {summary['criterion']} of the full model {summary['full_quality']:.3f}\n"
    )
    console.print(_headline(summary))
    console.print(_tasks(by_task(rows)))
    zero, n = summary["zero_quality_sequences"], summary["sequences"]
    gap = summary["mean_gap"]
    open_gap = "" if gap is None else f" (mean gap of the others {gap:.1f} layers)"
    console.print(
        f"Zero quality of the full model: {zero} of {n} (there every allocation qualifies). "
        f"Certified minimal: {summary['certified']} of {n}{open_gap}.\n"
        f"Verified by plain generation: {summary['verified']} of {summary['verified_of']} reported allocations. "
        f"Search {summary['search_seconds']:.0f} s, all {summary['seconds']:.0f} s, "
        f"peak memory {summary['peak_memory_mib']} MiB ({summary['memory_above_model_mib']} above the model)."
    )


def _headline(summary: dict[str, Any]) -> Table:
    table = _table("Fraction of layers needed", ["mean", "95 % interval", "shuffled references"])
    rows = {
        "minimal budget per sequence": "per_sequence",
        "  where the full model scores above zero": "per_sequence_fraction_nonzero",
        "oracle at equal mean quality": "equal_quality",
        "  the same end to end, prompt included": "end_to_end_fraction",
    }
    for label, name in rows.items():
        bounds = summary.get(f"{name}_interval")
        table.add_row(
            label,
            _percent(summary.get(name, summary.get(f"{name}_fraction"))),
            f"{_percent(bounds[0])} - {_percent(bounds[1])}" if bounds else "",
            _percent(summary.get(f"null_{name}_fraction")),
        )
    return table


def _tasks(rows: list[dict[str, Any]]) -> Table:
    table = _table("Task", ["sequences", "full quality", "minimal budget", "zero quality"])
    for row in rows:
        table.add_row(
            Text(row["task"] or "(none)"),
            str(row["sequences"]),
            f"{row['full_quality']:.3f}",
            _percent(row["fraction"]),
            str(row["zero_quality"]),
        )
    return table


def show_budgets(rows: list[dict[str, Any]], layers: int) -> None:
    """A line a sequence: bounds of the minimal budget and the allocation as a strip of layers."""
    table = _table("Sequence", ["budget", "at least", "fraction", "quality", "full"], strip=True)
    for row in rows:
        zero = row["zero_quality"]
        table.add_row(
            _text(row["sequence"], 28),
            str(row["upper"]),
            str(row["lower"]),
            _percent(row["fraction"]),
            f"{row['quality']:.3f}",
            f"{row['full_quality']:.3f}" + (" *" if zero else ""),
            _strip(row["allocation"], layers),
        )
    console = Console()
    console.print(table)
    if any(row["zero_quality"] for row in rows):
        console.print("* the full model scores zero, so that every allocation qualifies")


def show_sequence(answer: dict[str, Any], layers: int) -> None:
    """One sequence with its frontier."""
    console = Console()
    proof = f"{answer['upper']} of {layers} layers; at least {answer['lower']} ({answer['proof']})"
    for label, value in [
        ("sequence", answer["sequence"]),
        ("prompt", answer["prompt"]),
        ("references", " | ".join(answer["references"])),
        ("full model", answer["full_output"]),
        ("minimal budget", proof),
        ("allocation", compact(answer["allocation"])),
    ]:
        console.print(Text(f"{label:15}", style="bold") + _text(value, 500))
    table = _table("Layers", ["fraction", answer["criterion"]], strip=True)
    table.add_column("output", overflow="fold")
    for point in answer["frontier"]:
        table.add_row(
            str(point["cost"]),
            _percent(point["fraction"]),
            f"{point['quality']:.3f}",
            _strip(point["allocation"], layers),
            _text(point["text"], 120),
        )
    console.print(table)


def show_oracle(answer: dict[str, Any], layers: int) -> None:
    """The oracle's choice under a mean budget."""
    console = Console()
    console.print(
        f"\nOracle under a mean budget of {_percent(answer['budget'])}: uses {_percent(answer['fraction'])} of the "
        f"layers at mean {answer['criterion']} {answer['quality']:.3f} (full model {answer['full_quality']:.3f})\n"
    )
    table = _table("Sequence", ["layers", "quality"], strip=True)
    for row in answer["assignment"]:
        table.add_row(
            _text(row["sequence"], 28),
            str(row["cost"]),
            f"{row['quality']:.3f}",
            _strip(row["allocation"], layers),
        )
    console.print(table)


def _table(first: str, numbers: Seq[str], *, strip: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    if strip:
        table.add_column("layers that run", no_wrap=True)
    return table


def _strip(allocation: Seq[int], layers: int) -> Text:
    """A cell a layer: filled if it runs."""
    kept = set(allocation)
    return Text("".join("█" if layer in kept else "·" for layer in range(layers)))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _text(value: str, longest: int) -> Text:
    """Untrusted text on one line, without control characters."""
    line = "".join(char if char.isprintable() else " " for char in value.replace("\n", " / "))
    return Text(line if len(line) <= longest else line[: longest - 1] + "…")
