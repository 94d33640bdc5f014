"""`oracle profile`: what the units of a model cost, counted and measured."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.cli.parsing import Settings, add_device, add_dtype, add_quiet, add_trust, command, loading
from oracle.errors import InputError
from oracle.utils.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from oracle.costs import Costs
    from oracle.costs.latency import Latency

__all__ = ["add_profile"]

FAR = 0.25
"""How far the parts may be from a whole token before the measurement is doubted."""

PARTS = ("layers", "attention of layers", "MLP of layers")
"""By `oracle.models.layer_call.Part`."""


def add_profile(commands: Any) -> None:
    """Adds `oracle profile`."""
    parser = command(
        commands,
        "profile",
        _run_profile,
        "What each layer costs per generated token: FLOPs from the model's shapes, milliseconds on this machine.",
    )
    from oracle.config import SearchConfig
    from oracle.costs import Conditions

    settings, defaults = Settings(parser, SearchConfig()), Conditions()
    settings.add("--model", help="hub id, local folder, GGUF file, or the embedded model")
    parser.add_argument("--unit", default=defaults.unit, help="layer, or sublayer: attention and MLP apart")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="sequences that are decoded together")
    parser.add_argument(
        "--context", type=int, default=defaults.context, help="tokens that a generated token attends to, with itself"
    )
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="how often everything is timed")
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

    from oracle.costs.flops import count_flops
    from oracle.costs.latency import measure_latency
    from oracle.models import load_model
    from oracle.utils.progress import note, silent, terminal

    watch = silent if arguments.quiet else terminal
    model = load_model(
        config.model, dtype=config.dtype, device=config.device, trust_remote_code=config.trust_remote_code
    )
    flops = count_flops(model, conditions)
    note(watch, model.headline())
    latency = measure_latency(model, conditions, watch=watch)
    costs, more = [flops, latency.costs], _details(flops, latency) | {"machine": model.machine.to_dict()}
    if arguments.out is not None:
        write_costs(arguments.out, costs, **more)
    if arguments.json:
        print(json.dumps({"costs": [each.to_dict() for each in costs], **more}))
    else:
        _show(flops, latency)
        if arguments.out is not None:
            print(f"Written: {printable(str(arguments.out))}")


def _check_free(path: Path) -> None:
    """Before anything is computed: whether a new file can be there."""
    try:
        taken, homeless = path.exists(), not path.parent.is_dir()
    except OSError as error:
        raise InputError(f"cannot write to '{path}' ({error.strerror}); give another --out") from error
    if taken:
        raise InputError(f"'{path}' is there already and is left as it is; give another --out or remove it")
    if homeless:
        raise InputError(f"--out needs a file in a folder that is there, but '{path.parent}' is none; make it first")


def _details(flops: "Costs", latency: "Latency") -> dict[str, Any]:
    """What was measured beside the costs themselves, as plain values."""
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
        "parts_to_whole": latency.parts_to_whole,
        "rounds": latency.rounds,
        "versions": versions(),
    }


def _name(part: int, layers: tuple[int, ...]) -> str:
    from oracle.allocations import compact

    return f"{PARTS[part]} {compact(layers)}"


def _show(flops: "Costs", latency: "Latency") -> None:
    """A line a group of equal units, then what every allocation pays."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)  # nothing is wrapped in a file or a pipe
    costs = latency.costs
    print(
        f"\n{printable(costs.model)}: one generated token at context {costs.context}, batch {costs.batch}, "
        f"{costs.dtype}, {costs.device}\n"
    )
    console.print(_table(flops, latency))
    print(
        f"\nA skipped layer's keys and values, where they are still computed: {max(flops.states) / 1e6:.2f} MFLOPs, "
        f"{max(costs.states):.3f} ms\n"
        f"Times are medians of {latency.rounds} rounds; units of equal shapes share one. The parts add up to "
        f"{latency.parts_to_whole:.2f} of a whole token of the untouched model ({latency.whole.median:.3f} ms, "
        f"quartiles {latency.whole.low:.3f} - {latency.whole.high:.3f})."
    )
    if abs(latency.parts_to_whole - 1) > FAR:
        print("That is far from 1: a busy machine does not measure evenly; measure again when it is idle.")


def _table(flops: "Costs", latency: "Latency") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Units", overflow="fold")
    for heading in ("count", "MFLOPs each", "share", "ms each", "quartiles", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    counted, measured = flops.total, latency.costs.total
    rows = [
        (_name(group.part, group.layers), len(group.units), flops.units[group.units[0]], spread)
        for group, spread in zip(latency.groups, latency.spreads, strict=True)
    ]
    for name, count, each, spread in [*rows, ("embedding, final norm, head", 1, flops.overhead, latency.overhead)]:
        table.add_row(
            Text(name),
            str(count),
            f"{each / 1e6:.2f}",
            f"{100 * count * each / counted:.1f} %",
            f"{spread.median:.3f}",
            f"{spread.low:.3f} - {spread.high:.3f}",
            f"{100 * count * spread.median / measured:.1f} %",
        )
    table.add_row("whole token", "", f"{counted / 1e6:.2f}", "100.0 %", f"{measured:.3f}", "", "100.0 %")
    return table
