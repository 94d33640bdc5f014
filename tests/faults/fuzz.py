"""Random inputs: whatever comes, the answer is a run or one line, and nothing half done that looks complete."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from tiny import jsonl

from faults import child
from faults.ground import Fault, Ground, Tries
from faults.inputs import changes, commands, files
from oracle.cli import main
from oracle.errors import InputError
from oracle.models import load_model
from oracle.store import Run
from oracle.store.index import index_all

__all__ = ["FAULTS"]

SMALL = ["--max-new-tokens", "2", "--evaluations", "3", "--prove", "50", "--limit", "2", "--quiet", "--no-figures"]

FILES, CONFIGS, LINES = "fuzzed files of sequences", "fuzzed configs", "fuzzed command lines"

AFAR = ("model", "data", "evaluations", "max_new_tokens", "cost", "study", "seconds")
"""Settings that may ask for hours, or for what is not on this machine: runs with others are asked, not resumed."""


@contextmanager
def quick(ground: Ground) -> Iterator[None]:
    """Here, offline, with the model at hand: what is tried is the input."""
    loaded: dict[str, Any] = {}

    def load(name: str, **how: Any) -> Any:
        if Path(name) != ground.model:
            return load_model(name, **how)
        return loaded.setdefault(repr(how), loaded.get(repr(how)) or load_model(name, **how))

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(ground.place()):
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        patch.setattr("oracle.pipeline.setup.load_model", load)
        yield


def tell(ground: Ground, command: list[str], out: Path) -> str | None:
    """Runs a command; what is wrong with what it says, or leaves in the folder."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())), contextlib.redirect_stderr(errors):
        try:
            code = main(command)
        except SystemExit as left:  # --help
            code = int(left.code or 0)
        except BaseException as error:
            return f"{type(error).__name__}: {str(error)[:200]} after {command}"
    ground.codes[code] += 1
    said = [line for line in errors.getvalue().splitlines() if line.startswith("oracle: error: ")]
    if code not in (0, 1, 2) or len(said) != (code == 2):
        return f"exit code {code} after {command}: {errors.getvalue()[-300:]}"
    if not (out / "summary.json").exists():
        return None
    try:
        run = Run.open(out)
        ended = len(run.certificates()) == len(run.sequences()) and len(run.evaluations()) > 0
    except InputError as error:
        return f"{error} after {command}"
    return None if code == 0 and ended else f"exit code {code} of a run that looks complete after {command}"


def fuzz(
    name: str, inputs: st.SearchStrategy, times: int, ground: Ground, attempt: Callable[[Any], str | None]
) -> Tries:
    """A number of random inputs."""
    found: list[str | None] = []
    ground.codes.clear()

    @hypothesis.seed(ground.random.randrange(2**32))
    @settings(
        max_examples=times,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(inputs)
    def once(value: Any) -> None:
        found.append(attempt(value))

    with quick(ground):
        once()
    ground.notes[name] = f"{ground.codes[0]} answered, {ground.codes[2]} refused"
    yield from found


def sequences_files(ground: Ground, times: int) -> Tries:
    """Files of sequences, searched."""

    def attempt(value: tuple[str, bytes]) -> str | None:
        place = ground.place()
        data = place / f"data{value[0]}"
        data.write_bytes(value[1])
        search = ["search", "--model", str(ground.model), "--data", str(data), *SMALL, "--out", str(place / "run")]
        return tell(ground, search, place / "run")

    return fuzz(FILES, files, times, ground, attempt)


def configs(ground: Ground, times: int) -> Tries:
    """Manifests of runs, asked and resumed."""
    whole, _ = ground.whole()
    original = json.dumps(whole.manifest)

    def attempt(value: list[tuple[tuple[str, ...], Any]]) -> str | None:
        manifest, out = json.loads(original), ground.place() / "run"
        for place, new in value:
            inner = manifest if len(place) == 1 else manifest[place[0]]
            if isinstance(inner, dict):
                inner[place[-1]] = new
        for name in child.PARTS:
            (out / name).mkdir(parents=True)
        (out / "manifest.json").write_text(json.dumps(manifest))
        (out / "sequences.parquet").write_bytes((whole.folder / "sequences.parquet").read_bytes())
        index_all(out)
        near = all(place[0] != "config" or place[-1] not in ("config", *AFAR) for place, _ in value)
        lost = tell(ground, ["query", str(out)], out)
        return lost or (
            tell(ground, ["search", "--resume", str(out), "--quiet", "--no-figures"], out) if near else None
        )

    return fuzz(CONFIGS, changes(whole.manifest), times, ground, attempt)


def command_lines(ground: Ground, times: int) -> Tries:
    """Options with values that may or may not suit them."""
    whole, _ = ground.whole()
    data = jsonl(ground.folder / "two.jsonl", *({"prompt": text, "references": [text]} for text in "ab"))

    def attempt(value: tuple[list[str], list[str]]) -> str | None:
        place = ground.place()
        out = place / "run"
        there = {"RUN": whole.folder, "DATA": data, "MODEL": ground.model, "OUT": out, "OUT-hidden": place / "hidden"}
        command, rest = ([str(there.get(word, word)) for word in words] for words in value)
        if command == ["search"]:
            command += ["--model", str(ground.model), "--data", data, *SMALL, "--out", str(out)]
        return tell(ground, [*command, *rest], out)

    return fuzz(LINES, commands, times, ground, attempt)


FAULTS = [
    Fault(name=FILES, tries=sequences_files, times=800, quick=10),
    Fault(name=CONFIGS, tries=configs, times=500, quick=8),
    Fault(name=LINES, tries=command_lines, times=700, quick=10),
]
