"""What faults happen to: a tiny model, sequences, and searches in processes of their own."""

import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import transformers
from tiny import jsonl, tiny_llama, tiny_tokenizer

from faults import child
from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import load_model
from oracle.store import Run
from oracle.utils.text import printable

__all__ = ["Fault", "Ground", "Process", "Tries", "difference"]

PATIENCE = 300.0
"""Seconds after which a process hangs."""

SETTINGS = {"strategy": "auto", "evaluations": 40, "max-new-tokens": 8, "criterion": "chrf", "unit": "sublayer"}

Tries = Iterator[str | None]
"""For each time that a fault was tried: what was lost, or None if it was survived."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: what happens.
        tries: makes it happen a number of times.
        times: how many are enough.
        quick: how many in the short form; 0 to leave it out there.
    """

    name: str
    tries: "Callable[[Ground, int], Tries]"
    times: int
    quick: int


class Process:
    """The command line in a process of its own, forked from one that has loaded the libraries."""

    def __init__(self, arguments: list[str], place: Path, breaking: Callable[[], None] | None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["faults.child"])
        self._output, self._count = place / "output", place / "computed"
        self._count.unlink(missing_ok=True)
        self._process = context.Process(target=child.play, args=(arguments, self._output, self._count, breaking))
        self._process.start()

    def kill(self) -> None:
        """SIGKILL: nothing is told of it."""
        self._process.kill()
        self._process.join()

    def wait(self) -> int:
        """Its exit code, -9 after too long a time."""
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self.kill()
        return int(self._process.exitcode or 0)

    @property
    def output(self) -> str:
        """All that it printed."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    @property
    def computed(self) -> int:
        """How many outputs it decoded."""
        return sum(map(int, self._count.read_text().split())) if self._count.exists() else 0


@dataclass(kw_only=True)
class Ground:
    """Where faults happen.

    Attributes:
        folder: for everything that is written.
        random: of every random choice.
        notes: what the table should say besides, by the name of the fault.
        codes: how often which exit code came, where that is of interest.
    """

    folder: Path
    random: random.Random
    notes: dict[str, str] = field(default_factory=dict)
    codes: Counter[int] = field(default_factory=Counter)
    _whole: dict[str, tuple[Run, float]] = field(default_factory=dict)
    _places: int = 0

    def __post_init__(self) -> None:
        # Both have to be there before the process that others are forked from starts.
        os.environ.update({"OMP_NUM_THREADS": "1", "LAYER_ORACLE_HIDDEN": str(self.folder / "hidden")})
        tests = str(Path(__file__).parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
        self.model = self.folder / "tiny"
        transformers.utils.logging.disable_progress_bar()
        tiny_llama().save_pretrained(self.model)
        tiny_tokenizer().save_pretrained(self.model)
        engine = Engine(load_model(str(self.model)), SearchConfig(max_new_tokens=8))
        prompts = [f"Question {number}?" for number in range(10)]
        outputs = [engine.alone(engine.open(prompt), tuple(range(engine.units.count))) for prompt in prompts]
        # References that a random model meets as far as it is run: so there is something to search.
        texts = [printable(engine.model.text(output)) for output in outputs]
        rows = [{"id": p[9:-1], "prompt": p, "references": [text, "?"]} for p, text in zip(prompts, texts, strict=True)]
        self.data = jsonl(self.folder / "sequences.jsonl", *rows)

    def place(self) -> Path:
        """A new folder."""
        self._places += 1
        place = self.folder / "places" / str(self._places)
        place.mkdir(parents=True)
        return place

    def search(self, out: Path, **settings: object) -> list[str]:
        """The command that searches."""
        chosen = {"model": self.model, "data": self.data, **SETTINGS, **settings}
        options = [word for name, value in chosen.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return ["search", "--out", str(out), *options, "--no-figures"]

    def start(self, arguments: list[str], breaking: Callable[[], None] | None = None, *, quiet: bool = True) -> Process:
        """Begins a command, with `--quiet` where it has that; `breaking` is called in its process first."""
        return Process([*arguments, *["--quiet"] * quiet], self.place(), breaking)

    def whole(self, **settings: object) -> tuple[Run, float]:
        """The run of a search that nothing went wrong with, and the seconds that it takes."""
        key = repr(sorted(settings.items()))
        if key not in self._whole:
            # The first process of all waits until the libraries are loaded.
            self.start(["search", "--help"]).wait()
            out, began = self.place() / "run", time.monotonic()
            process = self.start(self.search(out, **settings))
            if process.wait() != 0:
                raise RuntimeError(f"the search fails without any fault: {process.output}")
            self._whole[key] = Run.open(out), time.monotonic() - began
        return self._whole[key]

    def resumed(
        self, out: Path, *options: str, breaking: Callable[[], None] | None = None, **settings: object
    ) -> str | None:
        """What is lost once a run, whatever happened to it, is resumed, here or (with options) elsewhere."""
        whole, _ = self.whole(**settings)
        before = parts(out)
        there = rows(before)
        process = self.start(["search", "--no-figures", "--resume", str(out), *options], breaking)
        code = process.wait()
        if not (out / "manifest.json").exists():
            return one_line(process, code) or ("rows without a manifest" if before else None)
        if code != 0:
            return f"--resume exits with {code}: {process.output[-500:]}"
        after = parts(out)
        if not set(before.items()) <= set(after.items()):
            return "a part that was there is another one now"
        run = Run.open(out)
        total = len(run.evaluations())
        # Otherwise the computed evaluations are not counted.
        computed = total - there if options else process.computed
        if not run.complete or computed != total - there or rows(after) != total:
            return f"of {total} rows {there} were there, but {computed} were computed and {rows(after)} written"
        return difference(run, whole)

    def compared(self, out: Path, whole: Run) -> str | None:
        """What is wrong with a run that should be complete and equal to another."""
        run = Run.open(out)
        return difference(run, whole) if run.complete else "the run is not complete"


def one_line(process: Process, code: int) -> str | None:
    """What is wrong with a refusal: it has to be one line, with exit code 2."""
    output = process.output
    said = [line for line in output.splitlines() if not line.startswith("oracle: warning: ")]
    fine = code == 2 and len(said) == 1 and said[0].startswith("oracle: error: ")
    return None if fine else f"exit code {code}: {output[-500:]}"


def parts(out: Path) -> dict[Path, bytes]:
    """Every part that is whole."""
    if not (out / "manifest.json").exists():
        return {path: path.read_bytes() for path in out.glob("*/part-*.parquet")}
    run = Run.open(out)
    bad = {path for name in child.PARTS for path, _ in run.damaged(name)}
    return {
        path: path.read_bytes()
        for name in child.PARTS
        for path in (out / name).glob("part-*.parquet")
        if path not in bad
    }


def rows(files: dict[Path, bytes]) -> int:
    """Evaluations in parts."""
    return sum(len(pd.read_parquet(path)) for path in files if path.parent.name == "evaluations")


def difference(run: Run, whole: Run) -> str | None:
    """How the final evaluations of two runs differ, beyond rounding; margins are rounding."""
    try:
        mine, theirs = (one.evaluations().drop(columns="margin") for one in (run, whole))
    except InputError as error:
        return str(error)
    if list(mine) != list(theirs) or len(mine) != len(theirs):
        return f"{len(mine)} evaluations rather than {len(theirs)}"
    for name in mine:
        if pd.api.types.is_float_dtype(mine[name]):
            same = np.isclose(mine[name], theirs[name], rtol=1e-6, atol=1e-6, equal_nan=True)
        else:
            same = (mine[name].map(repr) == theirs[name].map(repr)).to_numpy()
        if not same.all():
            return f"{name} differs in {int((~same).sum())} evaluations"
    return None if numbers(run) == numbers(whole) else "the summaries differ"


def numbers(run: Run) -> dict[str, Any]:
    """The summary but for times and sizes."""
    measured = {"seconds", "search_seconds", "peak_memory_mib", "memory_above_model_mib", "hidden_states"}
    return {name: value for name, value in run.summary().items() if name not in measured}
