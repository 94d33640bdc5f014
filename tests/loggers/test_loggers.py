"""Loggers: the calls of a search, against fakes and, where they are installed, the packages themselves."""

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import analysis
from oracle.errors import Interrupted
from oracle.loggers import Logger, Loggers, TensorBoardLogger, WandbLogger
from oracle.store import Run

Search = Callable[..., Run]
Command = Callable[..., tuple[int, str, str]]


class Recorder(Logger):
    """Keeps its calls."""

    def __init__(self, fails: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails

    def _call(self, name: str, *values: Any) -> None:
        if name == self.fails:
            raise OSError("no space")
        self.calls.append((name, *values))

    def begin(self, run: Path, config: Mapping[str, Any]) -> None:
        self._call("begin", run, config)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._call("scalars", step, values)

    def end(self, summary: Mapping[str, float]) -> None:
        self._call("end", summary)


@pytest.fixture
def searched(tiny_folder: Path, sequences_file: Path, tmp_path: Path) -> Callable[..., Run]:
    from oracle.config import SearchConfig
    from oracle.pipeline.run import run_search

    config = SearchConfig(
        model=str(tiny_folder), data=str(sequences_file), max_new_tokens=4, evaluations=8, device="cpu", dtype="float32"
    )
    return lambda **how: run_search(config, tmp_path / "run", **how)


def test_a_search_tells_its_numbers(searched: Search, tmp_path: Path) -> None:
    one = Recorder()
    run = searched(loggers=[one])
    (begin, *_), *middle, (end, summary) = one.calls
    assert (begin, end) == ("begin", "end")
    assert one.calls[0][1] == tmp_path / "run" and one.calls[0][2]["evaluations"] == 8
    steps = [call[1] for call in middle]
    assert steps == sorted(steps) and steps[-1] == len(run.evaluations())
    last = middle[-1][2]
    assert last["evaluations"] == len(run.evaluations()) and last["sequences_ended"] == 6
    assert last["sequences_set_aside"] == 0 and last["evaluations_per_second"] > 0
    whole = run.summary()
    assert last["mean_budget"] == pytest.approx(analysis.budgets(run)["upper"].mean() / run.units)
    assert summary["per_sequence_fraction"] == whole["per_sequence_fraction"]
    assert all(isinstance(value, float) for value in summary.values())


@pytest.mark.parametrize("fails", ["begin", "scalars", "end"])
def test_a_logger_that_fails_ends_the_logging_not_the_search(fails: str, searched: Search) -> None:
    one, other = Recorder(fails), Recorder()
    run = searched(loggers=[one, other])
    assert run.complete and [call[0] for call in other.calls][:: len(other.calls) - 1] == ["begin", "end"]
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    [entry] = [line for line in lines if line["event"] == "logger failed"]
    assert (entry["level"], entry["logger"], entry["error"]) == ("warning", "Recorder", "OSError: no space")


def test_an_interrupted_search_ends_without_a_summary_and_goes_on(searched: Search, tmp_path: Path) -> None:
    from oracle.pipeline.run import resume_search

    one, asked = Recorder(), iter([False, True])
    with pytest.raises(Interrupted):
        searched(loggers=[one], stop=lambda: next(asked, True))
    assert one.calls[-1] == ("end", {})
    before = max(call[1] for call in one.calls if call[0] == "scalars")
    other = Recorder()
    run = resume_search(tmp_path / "run", loggers=[other])
    steps = [call[1] for call in other.calls if call[0] == "scalars"]
    assert min(steps) >= before and steps[-1] == len(run.evaluations())


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, module)


def test_calls_of_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[Any, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            calls.append(("open", folder))

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *values: calls.append((name, *values))

    fake(monkeypatch, "tensorboard")
    fake(monkeypatch, "torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    logger = TensorBoardLogger(tmp_path / "tb")
    logger.begin(tmp_path / "runs" / "a", {"seed": 3})
    logger.scalars(7, {"mean_budget": 0.5})
    logger.end({"seconds": 2.0})
    assert calls == [
        ("open", str(tmp_path / "tb" / "a")),
        ("add_text", "config", "    seed: 3"),
        ("add_scalar", "search/mean_budget", 0.5, 7),
        ("add_scalar", "summary/seconds", 2.0, 0),
        ("close",),
    ]


def test_calls_of_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[Any, ...]] = []

    class OneRun:
        summary: dict[str, float]

        def __init__(self) -> None:
            self.summary = {}

        def log(self, values: dict[str, float], step: int) -> None:
            calls.append((values, step))

        def finish(self, exit_code: int) -> None:
            calls.append((self.summary, exit_code))

    given: list[dict[str, Any]] = []

    def init(**settings: Any) -> OneRun:
        given.append(settings)
        return OneRun()

    fake(monkeypatch, "wandb", init=init, Settings=dict)
    for summary in ({"seconds": 2.0}, {}):
        logger = WandbLogger("depth")
        logger.begin(tmp_path / "a", {"seed": 3})
        logger.scalars(7, {"mean_budget": 0.5})
        logger.end(summary)
    assert calls == [({"search/mean_budget": 0.5}, 7), ({"seconds": 2.0}, 0), ({"search/mean_budget": 0.5}, 7), ({}, 1)]
    first, second = given
    assert first == second  # a resumed search continues the same run
    assert (first["project"], first["name"], first["resume"], first["config"]) == ("depth", "a", "allow", {"seed": 3})
    assert first["settings"] == {"console": "off", "save_code": False, "silent": True}


@pytest.mark.parametrize(("option", "package"), [("--tensorboard", "tensorboard"), ("--wandb", "wandb")])
def test_a_missing_package_is_named_before_the_search(
    option: str, package: str, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(f"oracle.loggers.{package}.find_spec", lambda name: None)
    code, _, err = command("search", option, "x", "--out", tmp_path / "run")
    assert (code, err) == (
        2,
        f"oracle: error: {option} needs {package}; install it with: pip install 'layer-oracle[{package}]'\n",
    )
    assert not (tmp_path / "run").exists()


def missing(name: str) -> bool:
    return importlib.util.find_spec(name) is None


def arguments(folder: Path, data: Path, out: Path) -> list[object]:
    small = ["--max-new-tokens", 4, "--evaluations", 8, "--device", "cpu", "--quiet", "--no-figures"]
    return ["search", "--model", folder, "--data", data, *small, "--out", out]


@pytest.mark.skipif(missing("tensorboard"), reason="tensorboard is not installed")
@pytest.mark.filterwarnings("default")
def test_tensorboard_itself(command: Command, tiny_folder: Path, sequences_file: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "a"
    code, _, err = command(*arguments(tiny_folder, sequences_file, out), "--tensorboard", tmp_path / "tb")
    assert code == 0, err
    events = EventAccumulator(str(tmp_path / "tb" / "a"))
    events.Reload()
    summary = Run.open(out).summary()
    [value] = events.Scalars("summary/per_sequence_fraction")
    assert value.value == pytest.approx(summary["per_sequence_fraction"])
    assert events.Scalars("search/evaluations")[-1].step == len(Run.open(out).evaluations())


@pytest.mark.skipif(missing("wandb"), reason="wandb is not installed")
@pytest.mark.filterwarnings("default")
def test_wandb_itself_offline(
    command: Command, tiny_folder: Path, sequences_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MODE", "offline"), ("DIR", tmp_path), ("CONFIG_DIR", tmp_path), ("CACHE_DIR", tmp_path)):
        monkeypatch.setenv(f"WANDB_{name}", str(value))
    code, _, err = command(*arguments(tiny_folder, sequences_file, tmp_path / "a"), "--wandb", "depth")
    assert code == 0, err
    [file] = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    content = file.read_bytes()
    assert b"search/mean_budget" in content and b"per_sequence_fraction" in content
    assert "logger failed" not in (tmp_path / "a" / "log.jsonl").read_text()


def test_no_loggers_are_called_without_any() -> None:
    Loggers([], lambda name, why: pytest.fail(name)).end({"x": 1.0})
