"""The tables of a run: its headline, tasks, budgets, frontiers and the oracle's choice."""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any, cast

from rich.text import Text

from analysis.formatting import FEW, average, between, counted, decimals, interval_name, percent, quality
from analysis.queries import by_task
from oracle.allocations import compact
from oracle.cli.tables import (
    Column,
    Row,
    Table,
    console,
    counts,
    interval,
    layers,
    on_one_line,
    qualities,
    shares,
    show_line,
    show_table,
    words,
)
from oracle.metrics import VACUOUS, told_nothing
from oracle.utils.text import printable

if TYPE_CHECKING:
    from analysis.luck.kept import Kept

__all__ = [
    "assignment_table",
    "budgets_table",
    "cost_text",
    "frontier_table",
    "informative_summary",
    "kept_table",
    "show_noted",
    "show_oracle",
    "show_sequence",
    "show_summary",
    "summary_tables",
    "tasks_table",
]

WHOLE = ("layers", "sublayers")
"""Measures of cost that are whole numbers."""

MAX_LINE = 500
"""Maximum number of characters of a prompt, an output or references above a table."""

HEADLINE = {
    "minimal budget per sequence": "per_sequence",
    "oracle at equal mean quality": "equal_quality",
    "  the same end to end, prompt included": "end_to_end_fraction",
    "  over the full model's own outputs": "end_to_end_against_full",
}
"""Numbers of the headline -> their entries in a summary."""


def show_summary(summary: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Prints the numbers of a run, then one line per task."""
    out = console()
    out.print()
    show_line(
        f"{counted(summary['sequences'])}, {counted(summary['allocations_per_sequence'], 'allocation')} each, "
        f"{counted(summary['layers'], summary['unit'])}; mean {summary['criterion']} of the full model "
        f"{quality(summary['full_quality'])}"
    )
    out.print()
    told = informative_summary(summary)
    if told is None:
        show_line("No fraction is stated: no sequence can tell one allocation from another.")
        out.print()
    for table in summary_tables(summary, rows):
        show_table(table)
    show_line(_left_out(summary))
    if told and _ignores_references(told):
        show_line(
            "Shuffled references change no number: the criterion reads no references, or cannot tell them apart on "
            "these outputs, so that they show nothing about luck."
        )
    if told:
        gap = told["mean_gap"]
        others = "" if gap is None else f" (mean gap of the others {cost_text(gap, told['cost'])} {told['cost']})"
        proven = f"{told['certified']} of the {told['sequences']} that can tell something proven minimal"
        show_line(f"Budgets are the best found; {proven}{others}.")
    show_line(
        f"Verified by the cut model's own forward: {summary['verified']} of "
        f"{counted(summary['verified_of'], 'reported allocation')}."
    )
    show_line(
        f"Search {summary['search_seconds']:.0f} s, total {summary['seconds']:.0f} s, "
        f"peak memory {summary['peak_memory_mib']} MiB ({summary['memory_above_model_mib']} above the model)."
    )
    if summary.get("equal_quality_gap"):
        most = percent(summary["equal_quality_gap"])
        show_line(f"The oracle was not solved exactly: its fraction is at most {most} too high (certified).")
    if summary["unverified"]:
        names = ", ".join(summary["unverified"])
        show_line(f"NOT VERIFIED, do not use: {names}; see verification.parquet in the run.")
        for entry in summary.get("differences", []):
            show_line(_difference(entry))


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


SAME = 1e-9
"""Difference of fractions that is attributed to rounding of means."""


def _ignores_references(told: dict[str, Any]) -> bool:
    """Whether every permutation of the references gives the numbers of the references themselves."""
    pairs = [
        (told[f"{name}_fraction"], told.get(f"null_{name}_fraction")) for name in ("per_sequence", "equal_quality")
    ]
    spreads = [told.get(f"null_{name}_spread") for name in ("per_sequence", "equal_quality")]
    # At the ends other references may give the same by chance.
    apart = [abs(real - null) for real, null in pairs if null is not None]
    return bool(apart) and max([*apart, *(spread or 0 for spread in spreads)]) < SAME and 0 < pairs[0][0] < 1


def _left_out(summary: dict[str, Any]) -> str:
    """How many sequences tell nothing, and why."""
    zero, vacuous, n = summary["zero_quality_sequences"], summary.get("vacuous", {}), summary["sequences"]
    untold = n - summary.get("informative_sequences", n - zero)
    null = f"against shuffled references the full model scores zero on {percent(summary['null_zero_quality_share'])}"
    null = "" if summary["null_zero_quality_share"] is None else f" ({null})"
    if not untold:
        return f"{'The sequence' if n == 1 else f'All {counted(n)}'} can tell something{null}."
    return f"{untold} of {counted(n)} can tell nothing: {told_nothing(untold, vacuous)}{null}."


def summary_tables(summary: dict[str, Any], rows: list[dict[str, Any]]) -> list[Table]:
    """The headline, if a sequence can tell something, and the tasks; `rows` as from `analysis.queries.budgets`."""
    tasks = tasks_table(by_task(rows))
    told = informative_summary(summary)
    if told is None:
        return [tasks]
    records: list[dict[str, Any]] = []
    parts = {f"{counted(told['sequences'])} that can tell something": told} if told is not summary else {}
    every = f"{'all ' * (summary['sequences'] > 1)}{counted(summary['sequences'])}"
    for over, part in {**parts, every: summary}.items():
        for label, name in HEADLINE.items():
            mean, bounds = part.get(name, part.get(f"{name}_fraction")), part.get(f"{name}_interval")
            if mean is None and name.startswith("end_to_end"):
                continue  # latency was not measured on prompts
            low, high = bounds or (None, None)
            null = part.get(f"null_{name}_fraction")
            about = {
                "section": f"over {over}",
                "label": label,
                "name": name,
                "over": over,
                "sequences": part["sequences"],
            }
            records.append({**about, "mean": mean, "low": low, "high": high, "shuffled": null})
    ends = interval_name(told["sequences"]).replace(", ", ",\n").replace("sequences (", "sequences\n(")
    columns = [
        Column(heading=f"Fraction of {summary['cost']} that suffices", text=lambda row: row["label"], is_number=False),
        shares("mean", "mean"),
        Column(heading=ends, text=lambda row: between(row["low"], row["high"], percent)),
        shares("shuffled\nreferences", "shuffled"),
    ]
    fields = ["name", "over", "sequences", "mean", "low", "high", "shuffled"]
    return [Table(name="headline", rows=records, columns=columns, fields=fields, section="section"), tasks]


def tasks_table(rows: Seq[dict[str, Any]]) -> Table:
    """One row per task, of `analysis.queries.by_task`."""
    columns = [
        words("Task", "task", empty="(none)"),
        counts("sequences", "sequences"),
        qualities("full quality", "full_quality"),
        shares("minimal budget", "fraction"),
        shares("budget of\nthose that tell", "fraction_informative"),
        shares("headline\nwithout task", "fraction_of_others"),
        Column(heading="tell nothing", text=lambda row: str(row["sequences"] - row["informative"])),
    ]
    return Table(name="tasks", rows=rows, columns=columns)


def budgets_table(rows: Seq[dict[str, Any]], units: int, measure: str, fields: Seq[str] | None = None) -> Table:
    """One row per sequence, of `analysis.queries.budgets`: bounds of the minimal budget, qualities, the layers.

    Args:
        rows: the records.
        units: number of units.
        measure: unit of the costs.
        fields: of the records, if there may be none.
    """

    def mark(row: Any) -> str:
        return "" if row["informative"] else " *" if row["zero_quality"] else " +"

    columns = [
        words("Sequence", "sequence"),
        _costs("budget" if measure in WHOLE else measure, "upper", measure),
        _costs("at least", "lower", measure),
        shares("fraction", "fraction"),
        qualities("quality", "quality"),
        Column(heading="full", text=lambda row: quality(row["full_quality"]) + mark(row)),
        layers("allocation", units),
    ]
    notes = ["* the full model scores zero, so every allocation qualifies"] * any(row["zero_quality"] for row in rows)
    for reason in {row["vacuous"]: None for row in rows if row["vacuous"]}:
        notes.append(f"{'*' if reason == 'unseen references' else '+'} {VACUOUS[reason]}")
    return Table(name="budgets", rows=rows, columns=columns, fields=fields, notes=notes)


def show_noted(table: Table) -> None:
    """Prints a table, and the meaning of its columns and marks."""
    show_table(table)
    for note in table.notes:
        show_line(note)


def frontier_table(answer: dict[str, Any], units: int, measure: str) -> Table:
    """One row per allocation of a sequence that beats all cheaper ones, of `analysis.queries.sequence_frontier`."""
    columns = [
        _costs(measure.capitalize() if measure in WHOLE else measure, "cost", measure),
        shares("fraction", "fraction"),
        qualities(answer["criterion"], "quality"),
        layers("allocation", units),
        words("output", "text"),
    ]
    return Table(name="frontier", rows=answer["frontier"], columns=columns)


def show_sequence(answer: dict[str, Any], units: int, measure: str = "layers") -> None:
    """Prints one sequence with its frontier; see `frontier_table`."""
    out = console()
    upper, lower = (cost_text(answer[name], measure) for name in ("upper", "lower"))
    of = (
        f"of {counted(units, measure.removesuffix('s'))}"
        if measure in WHOLE
        else f"{measure}, {percent(answer['fraction'])}"
    )
    proof = f"{upper} {of}; at least {lower} ({answer['proof']})"
    for label, value in [
        ("sequence", answer["sequence"]),
        ("prompt", answer["prompt"]),
        ("references", " | ".join(answer["references"])),
        ("full model", answer["full_output"]),
        ("minimal budget", proof),
        ("allocation", compact(answer["allocation"])),
        *([("statistical", answer["statistical"])] if answer["statistical"] is not None else []),
    ]:
        line = on_one_line(value)
        if len(line) > MAX_LINE:
            line = f"{line[:MAX_LINE]}… (the first {MAX_LINE} of {len(line):,} characters; --json prints all)"
        out.print(Text.assemble((f"{label:15}", "bold"), line))
    if answer["budget"] is not None:
        show_line(f"Allocations below: of at most {percent(answer['budget'])} of the full model's cost (--budget).")
    show_table(frontier_table(answer, units, measure))


def assignment_table(answer: dict[str, Any], units: int, measure: str) -> Table:
    """One row per sequence: the oracle's choice, of `analysis.queries.oracle_at`."""
    columns = [
        words("Sequence", "sequence"),
        _costs(measure, "cost", measure),
        qualities("quality", "quality"),
        layers("allocation", units),
    ]
    return Table(name="assignment", rows=answer["assignment"], columns=columns)


def show_oracle(answer: dict[str, Any], units: int, measure: str = "layers") -> None:
    """Prints the oracle's choice under a mean budget; see `assignment_table`."""
    out = console()
    over, untold = f"over all {counted(answer['sequences'])}", answer["sequences"] - answer["informative"]
    if untold:
        over += f", {untold} of which can tell nothing (headlines leave them out)"
    out.print()
    show_line(
        f"Oracle under a mean budget of {percent(answer['budget'])}: uses {percent(answer['fraction'])} of the "
        f"{measure} at mean {answer['criterion']} {quality(answer['quality'])} "
        f"(full model {quality(answer['full_quality'])}), {over}"
    )
    out.print()
    show_table(assignment_table(answer, units, measure))


def kept_table(rows: Seq[dict[str, Any]], found: "Kept") -> Table:
    """One row per method, setting and group of sequences, of `analysis.luck.kept.quality_kept`."""
    notes = [
        f"Mean {found.metric} and 95 % bootstrap intervals over sequences; kept: over the full model's on the same "
        "sequences. Held out: whether the method was fitted or chosen without the sequences that judge it."
    ]
    if min(row["sequences"] for row in rows) < FEW:
        notes.append(f"Of fewer than {FEW} sequences the intervals are bootstrap ranges: too few for 95 %.")
    if found.bar is not None:
        notes.append(
            f"Right: {found.metric} of at least {found.bar:g}. Random: expected of one allocation of the search of no "
            "more cost, drawn at random. Luck: expected of as many tries as the method chooses from, against "
            f"references of another sequence of the task ({counted(found.permutations, 'permutation')})."
        )

    def expected(field: str) -> Callable[[Row], str]:
        return lambda row: decimals(row[field], 1)

    def count(field: str, of: str) -> Callable[[Row], str]:
        return lambda row: f"{row[field]:.0f} of {row[of]:.0f}" if row[of] == row[of] else ""

    columns = [
        Column(heading="method", text=lambda row: f"{row['method']} {row['setting']}".rstrip(), is_number=False),
        shares("fraction", "fraction"),
        interval(found.metric, "quality"),
        interval("kept", "kept", percent),
        Column(heading="right to wrong", text=count("right_to_wrong", "right")),
        Column(heading="right to wrong, random", text=expected("random_right_to_wrong")),
        Column(heading="wrong to right", text=count("wrong_to_right", "wrong")),
        Column(heading="wrong to right, random", text=expected("random_wrong_to_right")),
        Column(heading="wrong to right, luck", text=expected("null_wrong_to_right")),
        counts("sequences", "sequences"),
        words("held out", "held_out"),
    ]
    return Table(name="kept", rows=rows, columns=columns, section="over", notes=notes)


def _costs(heading: str, field: str, measure: str) -> Column:
    return Column(heading=heading, text=lambda row: cost_text(row[field], measure))


def cost_text(value: float, measure: str) -> str:
    """A cost: layers (means with one decimal), milliseconds to the microsecond, or FLOPs with a prefix."""
    if measure in WHOLE:
        return average(value)
    if measure == "ms/token":
        return decimals(value, 3)
    size, prefix = next((pair for pair in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if value >= pair[0]), (1e3, "k"))
    return f"{value / size:.1f} {prefix}"
