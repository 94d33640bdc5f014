"""Writing the report of a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.experiment import Experiment, InputError, as_experiment
from analysis.formatting import FEW, counted, metric_label, percent
from analysis.luck.held_out_saving import luck_adjusted
from analysis.report.curves import lines_of, use_by_part
from analysis.report.extras import extras_of
from analysis.report.facts import Fact, facts, finding
from analysis.report.page import page
from analysis.report.parts import Part, parts_of, task_names
from analysis.report.rows import details, table
from analysis.summary import informative
from analysis.unfinished import unfinished
from oracle.store.files import make_folder, write_text
from oracle.types import RunPath

__all__ = ["write_report"]

SUBJECT = (("model", "id"), ("data", "source"))

CHUNK = 100
"""Sequences whose outputs are unpacked together when one of them is expanded."""


def write_report(
    folder: RunPath,
    out: Path | str | None = None,
    *,
    experiment: Experiment | None = None,
    verified: pd.DataFrame | None = None,
    advance: Callable[[int, str], None] = lambda steps, name: None,
) -> Path:
    """Writes one HTML file with all results of a run; it loads nothing and needs no network.

    Equal runs give equal bytes.

    Args:
        folder: the run.
        out: the file; None for `report.html` in the run's folder. Missing folders are created.
        experiment: the run as read by `analysis.load`, if under another criterion or cost than its own.
        verified: which reported allocations agree with plain generation: `sequence`, `number`, `agrees`.
        advance: called with 1 and the name of each finished step.

    Returns:
        The file.

    Raises:
        InputError: if the run cannot be read or the file cannot be written.
    """
    experiment = experiment or as_experiment(folder)
    folder = Path(folder)
    parts = parts_of(experiment, advance=advance)
    blocks = _blocks(experiment, parts, verified, extras_of(folder, experiment.layers))
    agrees = (int(verified["agrees"].sum()), len(verified)) if verified is not None and len(verified) else None
    adjusted = luck_adjusted(informative(experiment)) if parts[0].told is not None else None
    known, whole = experiment.provenance, facts(parts[0], adjusted=adjusted, verified=agrees)
    used = [one["use"] for one in blocks["index"]["parts"]]
    stated = [whole, *map(facts, parts[1:])]
    text = page(
        blocks,
        name=folder.resolve().name,
        parts=[_shown(*one) for one in zip(parts, stated, used, strict=True)],
        experiment=experiment,
        unfinished=unfinished(experiment),
        few=FEW,
        few_tasks=any(part.told and 1 < part.told.sequences < FEW for part in parts[1:]),
        criterion=metric_label(experiment.metric),
        subject=[known[name][key] for name, key in SUBJECT if key in known.get(name, {})],
        origin=_origin(experiment),
        provenance=json.dumps(known, indent=1, sort_keys=True, default=str),
    )
    target = Path(out) if out else folder / "report.html"
    _save(text, target)
    advance(1, "page")
    return target


def _save(text: str, target: Path) -> None:
    try:
        make_folder(target.parent)
        # The name of a folder may hold bytes that are no text, which become question marks.
        write_text(target, text)
    except OSError as error:
        raise InputError(f"cannot write the report to '{target}' ({error.strerror}); give another file") from error


def _shown(part: Part, stated: list[Fact], use: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": part.name,
        "summary": part.summary,
        "facts": stated,
        "finding": finding(part),
        "counted": counted(part.summary.sequences),
        "told": counted(part.summary.informative_sequences),
        "over_all": percent(part.summary.per_sequence_fraction),
        "untold": part.summary.told_nothing,
        "used": counted(use["n"]),
    }


def _blocks(
    experiment: Experiment, parts: list[Part], verified: pd.DataFrame | None, extras: dict[str, Any]
) -> dict[str, Any]:
    summary = parts[0].summary
    names = [part.name for part in parts]
    number = task_names(experiment.sequences).map({name: n for n, name in enumerate(names)})
    use = use_by_part(experiment, summary, names)
    index = {
        "layers": experiment.layers,
        "unit": experiment.unit,
        "measure": experiment.measure,
        "metric": metric_label(experiment.metric),
        "chunk": CHUNK,
        "parts": [
            {"name": part.name, "n": part.summary.sequences, "use": used, **lines_of(part)}
            for part, used in zip(parts, use, strict=True)
        ],
        "rows": table(experiment, summary, number, verified),
        "extras": extras,
    }
    opened = details(experiment, summary)
    chunks = {f"rows-{n // CHUNK}": opened[n : n + CHUNK] for n in range(0, len(opened), CHUNK)}
    return {"index": index, **chunks}


def _origin(experiment: Experiment) -> list[tuple[str, str]]:
    """Origin of the numbers, as names and values."""
    known = experiment.provenance
    model, data, config, machine = (known.get(name) or {} for name in ("model", "data", "config", "machine"))
    found = {
        "model": model.get("id"),
        "fingerprint": model.get("fingerprint"),
        "data": data.get("source"),
        "scope": experiment.scope,
        "strategy": config.get("strategy"),
        "seed": known.get("seed"),
        "hardware": _hardware(machine),
        "version": known.get("versions", {}).get("layer-oracle"),
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]


def _hardware(machine: dict[str, Any]) -> str | None:
    """The machine of a search as text; None for runs that do not say."""
    if not machine:
        return None
    what = [machine.get("gpu") or " ".join(filter(None, (machine.get("processor"), machine.get("instructions"))))]
    return f"{machine.get('device')}: {', '.join(filter(None, [*what, machine.get('dtype')]))}"
