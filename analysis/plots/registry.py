"""The figures by name, and drawing them into a folder."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any

from analysis.experiment import InputError
from analysis.plots.controllers import controllers
from analysis.plots.depth_right_wrong import depth_right_wrong
from analysis.plots.drafts import drafts
from analysis.plots.files import save
from analysis.plots.layer_use import layer_use
from analysis.plots.luck_curve import luck_curve
from analysis.plots.minimal_budgets import minimal_budgets
from analysis.plots.oracle_quality import oracle_quality
from analysis.plots.rarity import rarity
from analysis.plots.skip_against_exit import skip_against_exit
from analysis.plots.source import Drawn, MissingError, Source
from analysis.plots.static_masks import static_masks
from analysis.plots.strategies import strategies
from analysis.plots.throughput import throughput
from oracle.utils.validation import check_list

__all__ = ["COMPARISONS", "FIGURES", "NAMES", "Picture", "draw_all"]

FIGURES: dict[str, Callable[[Source], Drawn]] = {
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
"""Figures of one run by file name; none changes matplotlib's global state."""

COMPARISONS: dict[str, Callable[[Sequence[Source]], Drawn]] = {"strategies": strategies}
"""Figures of one run or several side by side."""

NAMES = (*FIGURES, *COMPARISONS)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure, drawn or skipped.

    Attributes:
        name: of the figure, after that of its run if there are several.
        files: PNG, PDF and CSV; none if it was skipped.
        skipped: reason, if it was skipped.
    """

    name: str
    files: list[Path]
    skipped: str | None = None


def draw_all(sources: Sequence[Source], out: Path | str, *, names: Sequence[str] = NAMES) -> Iterator[Picture]:
    """Draws figures of runs into a folder, one by one, with their numbers and provenance.

    Args:
        sources: the runs. Each of several gets a folder of its own, by its name; comparisons are written next to these.
        out: folder; created if missing.
        names: some of `NAMES`.

    Returns:
        The pictures as they are drawn. A figure whose table is missing in a run is skipped, with the reason.

    Raises:
        InputError: if a name is unknown or a file cannot be written.
    """
    check_list(names, "names")
    if isinstance(sources, Source):
        raise InputError("sources must be a list of sources, not a single one: write [source]")
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise InputError(f"unknown figure {unknown[0]!r}; available: {', '.join(NAMES)}")
    return _draw_all(list(zip(_folders(sources), sources, strict=True)), Path(out), names)


def _draw_all(sources: list[tuple[str, Source]], out: Path, names: Sequence[str]) -> Iterator[Picture]:
    for name in names:
        if name in FIGURES:
            for folder, source in sources:
                yield _draw(f"{folder}{name}", partial(FIGURES[name], source), out, dict(source.experiment.provenance))
        else:
            runs = [source for _, source in sources]
            origins = [dict(source.experiment.provenance) for source in runs]
            origin = origins[0] if len(runs) == 1 else {"runs": origins}
            yield _draw(name, partial(COMPARISONS[name], runs), out, origin)


def _draw(name: str, draw: Callable[[], Drawn], out: Path, origin: dict[str, Any]) -> Picture:
    try:
        table, figure = draw()
    except MissingError as missing:
        return Picture(name=name, files=[], skipped=str(missing))
    if "provenance" in table.attrs:
        origin["measured"] = table.attrs["provenance"]
    drawn = {"figure": name.rpartition("/")[2], "drawn_by": f"matplotlib {version('matplotlib')}"}
    return Picture(name=name, files=save(table, figure, out / name, {**origin, **drawn}))


def _folders(sources: Sequence[Source]) -> list[str]:
    """Folder of each run, empty for a single run; numbers distinguish equal names."""
    if len(sources) == 1:
        return [""]
    folders: list[str] = []
    for source in sources:
        tries = chain([f"{source.name}/"], (f"{source.name}-{n}/" for n in count(2)))
        folders.append(next(folder for folder in tries if folder not in folders))
    return folders
