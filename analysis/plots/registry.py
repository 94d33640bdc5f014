"""The figures by name, and drawing them into a folder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any

from analysis.experiment import InputError
from analysis.formatting import metric_label
from analysis.plots.drawings.controllers import controllers
from analysis.plots.drawings.depth_right_wrong import depth_right_wrong
from analysis.plots.drawings.drafts import drafts
from analysis.plots.drawings.layer_use import layer_use
from analysis.plots.drawings.luck_curve import luck_curve, luck_curve_of_runs
from analysis.plots.drawings.minimal_budgets import minimal_budgets, minimal_budgets_of_runs
from analysis.plots.drawings.oracle_quality import oracle_quality, oracle_quality_of_runs
from analysis.plots.drawings.rarity import rarity
from analysis.plots.drawings.skip_against_exit import skip_against_exit
from analysis.plots.drawings.static_masks import static_masks
from analysis.plots.drawings.strategies import strategies
from analysis.plots.drawings.throughput import throughput
from analysis.plots.files import save, without_paths
from analysis.plots.layout import compose
from analysis.plots.source import Drawing, Group, MissingError, Source, labelled
from analysis.plots.style import FigureConfig
from analysis.unfinished import unfinished
from oracle.utils.text import nearest_hint, printable
from oracle.utils.validation import check_list

__all__ = ["COMPARISONS", "FIGURES", "NAMES", "Picture", "check_names", "draw_all", "drawing_of", "picture_count"]

FIGURES: dict[str, Callable[[Source], Drawing]] = {
    "oracle_quality": oracle_quality,
    "minimal_budgets": minimal_budgets,
    "layer_use": layer_use,
    "luck_curve": luck_curve,
    "rarity": rarity,
    "depth_right_wrong": depth_right_wrong,
    "skip_against_exit": skip_against_exit,
    "throughput": throughput,
    "controllers": controllers,
    "static_masks": static_masks,
    "drafts": drafts,
}
"""Figures of one run by file name."""

COMPARISONS: dict[str, Callable[[Sequence[Group]], Drawing]] = {
    "oracle_quality": oracle_quality_of_runs,
    "minimal_budgets": minimal_budgets_of_runs,
    "luck_curve": luck_curve_of_runs,
    "strategies": strategies,
}
"""Figures of several runs on one axis by file name."""

NAMES = (*FIGURES, *(name for name in COMPARISONS if name not in FIGURES))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure, drawn or skipped.

    Attributes:
        name: of the figure, after that of its run if there are several.
        files: pictures, then numbers (CSV), caption (text) and provenance (JSON); none if it was skipped.
        skipped: reason, if it was skipped.
    """

    name: str
    files: list[Path]
    skipped: str | None = None


def drawing_of(name: str, groups: Sequence[Group]) -> Drawing:
    """The figure of that name, of one run or of several.

    Raises:
        InputError: if the name is unknown.
        MissingError: if it cannot be drawn of these runs.
    """
    check_names([name])
    sources = [source for group in groups for source in group.sources]
    if name in FIGURES and len(sources) == 1:
        drawing = FIGURES[name](sources[0])
    elif name not in COMPARISONS:
        several = ", ".join(COMPARISONS)
        raise MissingError(f"figure {name!r} is of one run, give one; figures of several runs: {several}")
    else:
        drawing = COMPARISONS[name](groups)
    detail = "; ".join(filter(None, [_preliminary(sources), drawing.detail]))
    return replace(drawing, detail=detail, origin="; ".join(filter(None, [_origin(sources), _settings(groups)])))


def _preliminary(sources: Sequence[Source]) -> str:
    """Words on searches that have not ended; empty if all have."""
    reached = [(source, far) for source in sources if (far := unfinished(source.experiment))]
    if not reached:
        return ""
    if len(sources) == 1:
        return f"preliminary, the search has not ended ({reached[0][1]})"
    names = ", ".join(f"{source.name} ({far})" for source, far in reached)
    return f"preliminary, searches that have not ended: {names}"


def _origin(sources: Sequence[Source]) -> str:
    """Models, data and criteria, without local paths."""
    found: dict[str, dict[str, None]] = {"model": {}, "data": {}, "criterion": {}}
    for source in sources:
        known = without_paths(source.experiment.provenance)
        for kind, key in (("model", "id"), ("data", "source")):
            if value := (known.get(kind) or {}).get(key):
                found[kind][str(value)] = None
        found["criterion"][metric_label(source.experiment.metric)] = None
    return "; ".join(f"{kind}: {' and '.join(names)}" for kind, names in found.items() if names)


SETTINGS = ("scope", "unit", "strategy", "evaluations", "max_new_tokens", "tolerance")
"""Settings of searches that a caption names where they differ."""


def _settings(groups: Sequence[Group]) -> str:
    """The settings in which runs differ, by label; empty if they differ in none."""
    configs = [
        (group.label, source.experiment.provenance.get("config", {})) for group in groups for source in group.sources
    ]
    differing = [name for name in SETTINGS if len({str(config.get(name)) for _, config in configs}) > 1]
    if not differing:
        return ""
    named = {name: name.replace("_", " ") for name in differing}
    of_each = [
        f"{label} has {', '.join(f'{words} {config.get(name)}' for name, words in named.items())}"
        for label, config in configs
    ]
    return "; ".join(dict.fromkeys(of_each))


def check_names(names: Iterable[str]) -> None:
    """Raises `InputError` if a figure of that name does not exist."""
    for name in names:
        if name not in NAMES:
            hint = nearest_hint(name, NAMES)
            raise InputError(f"unknown figure {printable(name)!r}{hint}; available: {', '.join(NAMES)}")


def draw_all(
    sources: Sequence[Source],
    out: Path | str,
    *,
    names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    config: FigureConfig | None = None,
) -> Iterator[Picture]:
    """Draws figures of runs into a folder, one by one, with their numbers, captions and provenance.

    Args:
        sources: the runs. Of several, the figures of `COMPARISONS` are drawn of all together into `out`, the others of
            each into a folder of its name.
        out: folder; created if missing.
        names: some of `NAMES`; None for all that can be drawn of so many runs.
        labels: of the runs in figures of several; equal labels are repetitions, such as seeds. None for the folders'
            names.
        config: size, formats and style.

    Returns:
        The pictures as they are drawn. A figure whose table is missing in a run is skipped, with the reason.

    Raises:
        InputError: if a name is unknown, the numbers of runs and labels differ, or a file cannot be written.
    """
    if names is not None:
        check_list(names, "names")
    if isinstance(sources, Source):
        raise InputError("sources must be a list of sources, not a single one: write [source]")
    check_names(names or ())
    groups = labelled(sources, labels)
    single = len(sources) == 1
    chosen = [name for name in NAMES if not single or name in FIGURES] if names is None else list(names)
    return _draw_all(groups, list(zip(_folders(sources), sources, strict=True)), Path(out), chosen, config)


def picture_count(runs: int, names: Sequence[str] | None) -> int:
    """Number of pictures that `draw_all` yields for a number of runs."""
    if runs == 1:
        return len(FIGURES if names is None else names)
    return sum(1 if name in COMPARISONS else runs for name in (NAMES if names is None else names))


def _draw_all(
    groups: list[Group],
    sources: list[tuple[str, Source]],
    out: Path,
    names: Sequence[str],
    config: FigureConfig | None,
) -> Iterator[Picture]:
    for name in names:
        if name in COMPARISONS and (len(sources) > 1 or name not in FIGURES):
            origins = [
                {"label": group.label, **source.experiment.provenance} for group in groups for source in group.sources
            ]
            yield _draw(name, partial(drawing_of, name, groups), out, {"runs": origins}, config)
            continue
        for folder, source in sources:
            origin = dict(source.experiment.provenance)
            yield _draw(f"{folder}{name}", partial(drawing_of, name, labelled([source])), out, origin, config)


def _draw(
    name: str, draw: Callable[[], Drawing], out: Path, origin: dict[str, Any], config: FigureConfig | None
) -> Picture:
    try:
        drawing = draw()
    except MissingError as missing:
        return Picture(name=name, files=[], skipped=str(missing))
    table = drawing.table
    if "provenance" in table.attrs:
        origin["measured"] = table.attrs["provenance"]
    drawn = {"figure": name.rpartition("/")[2], "drawn_by": f"matplotlib {version('matplotlib')}"}
    figure, provenance = compose(drawing, config), {**origin, **drawn}
    files = save(table, figure, out / name, provenance, caption=drawing.caption, config=config)
    return Picture(name=name, files=files)


def _folders(sources: Sequence[Source]) -> list[str]:
    """Folder of each run, empty for a single run; numbers distinguish equal names."""
    if len(sources) == 1:
        return [""]
    folders: list[str] = []
    for source in sources:
        tries = chain([f"{source.name}/"], (f"{source.name}-{n}/" for n in count(2)))
        folders.append(next(folder for folder in tries if folder not in folders))
    return folders
