"""`oracle profile`: the cost of a model's units in FLOPs (counted) and milliseconds (measured)."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import Parser, Settings, add_device, add_dtype, add_quiet, add_trust, command, loading, progress
from oracle.errors import InputError

if TYPE_CHECKING:
    from oracle.cli.tables import Table
    from oracle.costs import Costs
    from oracle.costs.latency import Latency

__all__ = ["add_profile"]

MAX_DEVIATION = 0.25
"""Relative difference between the sum of the parts and a whole token above which a warning is printed."""

PARTS = ("layers", "attention of layers", "MLP of layers")
"""Names of `oracle.models.layer_call.Part`."""


def add_profile(commands: Any) -> None:
    """Adds `oracle profile`."""
    command(
        commands,
        "profile",
        _run_profile,
        "Cost of each layer per generated token: FLOPs from the model's shapes, milliseconds on this machine.",
        _add_profile_options,
        tables=True,
        config=True,
    )


def _add_profile_options(parser: Parser) -> None:
    from oracle.config import SearchConfig
    from oracle.costs import Conditions

    settings, defaults = Settings(parser, SearchConfig()), Conditions()
    settings.add("--model", help="hub id, local folder, GGUF file, or the embedded model")
    parser.add_argument("--unit", default=defaults.unit, help="layer, or sublayer: attention and MLP separately")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="number of sequences decoded together")
    parser.add_argument(
        "--context",
        type=int,
        default=defaults.context,
        help="tokens that a generated token attends to, itself included",
    )
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="number of timings")
    add_dtype(settings)
    add_device(settings)
    add_trust(settings)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    add_quiet(parser)


def _run_profile(arguments: argparse.Namespace) -> None:
    from oracle.config import SearchConfig
    from oracle.costs import Conditions, write_costs

    config = SearchConfig(**loading(arguments))
    names = ("unit", "batch", "context", "rounds")
    conditions = Conditions(**{name: getattr(arguments, name) for name in names})
    if arguments.out is not None:
        _check_free(arguments.out)

    from oracle.cli.formats import give
    from oracle.cli.tables import show_line
    from oracle.costs.flops import count_flops
    from oracle.costs.latency import measure_latency
    from oracle.models import load_model
    from oracle.utils.progress import note

    watch = progress(arguments)
    model = load_model(
        config.model, dtype=config.dtype, device=config.device, trust_remote_code=config.trust_remote_code
    )
    flops = count_flops(model, conditions)
    note(watch, model.headline())
    latency = measure_latency(model, conditions, watch=watch)
    costs, more = [flops, latency.costs], _details(flops, latency) | {"machine": model.machine.to_dict()}
    if arguments.out is not None:
        write_costs(arguments.out, costs, **more)
    table = _table(flops, latency)
    processor = model.machine.processor if model.machine.gpu is None else model.machine.gpu

    def show() -> None:
        _show(flops, latency, table, processor)
        if arguments.out is not None:
            show_line(f"Written: {arguments.out}")

    give(arguments, [table], whole=lambda: {"costs": [each.to_dict() for each in costs], **more}, show=show)


def _check_free(path: Path) -> None:
    """Raises `InputError`, before anything is computed, unless a new file can be written at the path."""
    try:
        exists, has_folder = path.exists(), path.parent.is_dir()
    except OSError as error:
        raise InputError(f"cannot write to '{path}' ({error.strerror}); choose another --out") from error
    if exists:
        raise InputError(f"'{path}' already exists; choose another --out or delete it")
    if not has_folder:
        raise InputError(f"--out needs a file in an existing folder, but '{path.parent}' is not one; create it first")


def _details(flops: "Costs", latency: "Latency") -> dict[str, Any]:
    """Measurements beyond the costs themselves, as JSON values."""
    from dataclasses import asdict

    from oracle.store import versions

    groups = [
        {
            "name": _name(group.part, group.layers),
            "units": list(group.units),
            "flops": flops.units[group.units[0]],
            "ms": asdict(spread),
        }
        for group, spread in zip(latency.groups, latency.spreads, strict=True)
    ]
    return {
        "groups": groups,
        "overhead_ms": asdict(latency.overhead),
        "whole_ms": asdict(latency.whole),
        "tokens_per_second": _tokens_per_second(latency),
        "parts_to_whole": latency.parts_to_whole,
        "rounds": latency.rounds,
        "versions": versions(),
    }


def _name(part: int, layers: tuple[int, ...]) -> str:
    from oracle.allocations import compact

    return f"{PARTS[part]} {compact(layers)}"


def _tokens_per_second(latency: "Latency") -> float:
    """Rate at which the untouched model generates, all sequences of the batch together."""
    return 1000 * latency.costs.batch / latency.whole.median


def _show(flops: "Costs", latency: "Latency", table: "Table", processor: str) -> None:
    """Prints one line per group of equal units, then the overhead that every allocation pays."""
    from analysis.formatting import between, counted, quality
    from oracle.cli.tables import console, show_line, show_table

    costs, out = latency.costs, console()
    where = costs.device if processor in costs.device else f"{costs.device} ({processor})"
    out.print()
    show_line(
        f"{costs.model}: one generated token at context {costs.context}, batch {costs.batch}, {costs.dtype}, "
        f"{where}; the untouched model: {_tokens_per_second(latency):.1f} tokens/s"
    )
    out.print()
    show_table(table)
    out.print()
    show_line(
        f"Keys and values of a skipped layer, where still computed: {max(flops.states) / 1e6:.2f} MFLOPs, "
        f"{max(costs.states):.3f} ms"
    )
    show_line(
        f"Times are medians of {counted(latency.rounds, 'round')}; units of equal shapes share one. The parts add up "
        f"to {latency.parts_to_whole:.2f} of a whole token of the untouched model ({latency.whole.median:.3f} ms, "
        f"quartiles {between(latency.whole.low, latency.whole.high, quality)})."
    )
    if abs(latency.parts_to_whole - 1) > MAX_DEVIATION:
        show_line("This is far from 1, as on a busy machine; measure again when it is idle.")


def _table(flops: "Costs", latency: "Latency") -> "Table":
    from analysis.formatting import between
    from oracle.cli.tables import Column, Table, counts, decimal, shares, words

    counted, measured = flops.total, latency.costs.total
    groups = [
        (_name(group.part, group.layers), len(group.units), flops.units[group.units[0]], spread)
        for group, spread in zip(latency.groups, latency.spreads, strict=True)
    ]
    rows = [
        {
            "units": name,
            "count": count,
            "mflops": each / 1e6,
            "flops_share": count * each / counted,
            "ms": spread.median,
            "ms_low": spread.low,
            "ms_high": spread.high,
            "ms_share": count * spread.median / measured,
        }
        for name, count, each, spread in [*groups, ("embedding, final norm, head", 1, flops.overhead, latency.overhead)]
    ]
    whole = {
        "count": None,
        "mflops": counted / 1e6,
        "flops_share": 1.0,
        "ms": measured,
        "ms_low": None,
        "ms_high": None,
    }
    columns = [
        words("Units", "units"),
        counts("count", "count"),
        decimal("MFLOPs each", "mflops", 2),
        shares("share", "flops_share"),
        decimal("ms each", "ms", 3),
        Column(heading="quartiles", text=lambda row: between(row["ms_low"], row["ms_high"])),
        shares("share", "ms_share"),
    ]
    return Table(name="units", rows=[*rows, {"units": "whole token", **whole, "ms_share": 1.0}], columns=columns)
