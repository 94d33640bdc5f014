"""Errors name the nearest of what exists, and what to write instead; nothing is taken for something else."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_runs import UNITS, complete_run, random_outcomes
from tiny import jsonl

from oracle.cli import parsers
from oracle.errors import InputError
from oracle.store import Run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two runs, the second of which has not ended."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("demo", "int"):
        complete_run(Path("runs") / name, {f"facts-00{n}": random_outcomes(rng, 8) for n in range(3)})
    for name in ("summary.json", "minimal_budgets.parquet", "assignment.parquet"):
        (Path("runs/int") / name).unlink()
    jsonl(tmp_path / "own.jsonl", {"prompt": "Question?", "refs": "Answer"})
    Path("empty").mkdir()
    return tmp_path


HINTS = {
    # abbreviations, and other words for options
    "search --metric exact_match": "arguments: --metric exact_match; nearest: '--criterion' or '--metrics'",
    "figures runs/demo --font 8": "unrecognized arguments: --font 8; nearest: '--font-size'",
    "query runs/demo --by task": "unrecognized arguments: --by task; nearest: '--by-task'",
    "query runs/demo --metric rougeL": "nearest: '--criterion'",
    "search --sequences 4": "unrecognized arguments: --sequences 4; nearest: '--limit'",
    "export runs/demo --form hf --out x": "unrecognized arguments: --form hf; nearest: '--format'",
    "cache prune --al": "unrecognized arguments: --al; nearest: '--all'",
    # words without an option, and options that need none
    "search own.jsonl": "unrecognized arguments: own.jsonl; write --data own.jsonl",
    "query runs/demo facts-001": "unrecognized arguments: facts-001; write --sequence facts-001",
    "data --data own.jsonl": "unrecognized arguments: --data; give FILE without --data",
    "query --run runs/demo": "unrecognized arguments: --run; give RUN without --run",
    # values
    "figures runs/demo --width 3.25in": "--width needs a number, not '3.25in'; write 3.25; see",
    "query runs/demo --at-most 30%": "--at-most needs a number, not '30%'; write 0.3; see",
    "search --limit 1,000": "--limit needs a whole number, not '1,000'; write 1000; see",
    "search --limit 2.5": "--limit needs a whole number, not '2.5'; see",
    "search --resume": "--resume needs a value, but none follows it: write --resume RUN; 'oracle runs' lists the runs",
    "search --resume=": "--resume needs a path, not an empty text",
    "search --limit": "--limit needs a value, but none follows it: write --limit N",
    "query runs/demo --by-task --summary": "--summary and --by-task exclude each other: give only one of them",
    # runs
    "query runs/dem": "a run folder is required, but 'runs/dem' does not exist; nearest: 'runs/demo'",
    "query demo": "a run folder is required, but 'demo' does not exist; nearest: 'runs/demo'",
    "figures runs/demmo": "nearest: 'runs/demo'",
    "report runs/dem": "nearest: 'runs/demo'",
    "query runs/dem --sql FROM\xa0sequences": "'runs/dem' does not exist; nearest: 'runs/demo'",
    "query runs/xyzzy": "'runs/xyzzy' does not exist; 'oracle runs runs' lists those that do",
    "query runs": "'runs' is a folder of runs; 'oracle runs runs' lists them",
    "query empty": "'empty' has no manifest.json; give a folder written by 'oracle search'",
    "query runs/demo/summary.json": "'runs/demo/summary.json' is a file; give its folder 'runs/demo'",
    "search --data own.jsonl --out runs/int": "already exists; continue the unfinished run with --resume runs/int",
    "search --data own.jsonl --out runs/demo": "'runs/demo' already exists; choose another --out or delete it",
    "measure runs/dem": "nearest: 'runs/demo'",
    "compare runs/dem": "nearest: 'runs/demo'",
    "export runs/dem --format hf --out x": "nearest: 'runs/demo'",
    "eval runs/dem --tasks x": "nearest: 'runs/demo'",
    "static runs/dem": "nearest: 'runs/demo'",
    "query runs/demo --against runs/dem": "nearest: 'runs/demo'",
    "search --from runs/dem": "nearest: 'runs/demo'",
    "search --resume runs/dem": "nearest: 'runs/demo'",
    "runs run": "a folder is required, but 'run' is none; nearest: 'runs'",
    "figures runs/demo oracle_quality --out x": "'oracle_quality', which is a figure; write --only oracle_quality",
    # files
    "data owm.jsonl": "no such file 'owm.jsonl'; nearest: 'own.jsonl'",
    "search --config own.jsom": "nearest: 'own.jsonl'",
    "profile --model ./emty": "no such folder './emty'; nearest: 'empty'",
    # sequences, figures, metrics, data
    "query runs/demo --sequence fact-001": "no sequence 'fact-001'; nearest: 'facts-001'; 'oracle query runs/demo'",
    "export runs/demo --format layer-map --out x --sequence fact-001": "nearest: 'facts-001'",
    "figures runs/demo --only oracle_qualty": "nearest: 'oracle_quality'",
    "search --criterion mymetric.good": "named MODULE:FUNCTION; write mymetric:good",
    "search --criterion mymetric.py": "write mymetric:FUNCTION",
    "search --criterion ./own/mymetric.py:good": "write own.mymetric:good",
    "search --criterion rouge.L": "nearest: 'rougeL'",
    "static runs/demo --by qualty": "--by must be one of kl, quality, not 'qualty'; nearest: 'quality'",
    "profile --unit layers": "nearest: 'layer'",
    "search --executor lokal": "nearest: 'local'",
    # budgets
    "query runs/demo --budget 3": f"not 3; 3 of {UNITS} layers is 0.6, 3 % is 0.03",
    "query runs/demo --at-most 50": "not 50; 50 % is 0.5",
    "query runs/demo --kept 50": "--kept needs a fraction of the layers from 0 to 1, not 50; 50 % is 0.5",
    "query runs/demo --kept 0.5 4": f"not 4; 4 of {UNITS} layers is 0.8",
    "export runs/demo --format layer-map --out x --budget 0.4": "is 2; find one with: oracle static runs/demo --bud",
    # a run or data
    "static": "either a RUN or --data is required, but neither is given; give one of them",
    "static runs/demo --data own.jsonl": "but both are given ('runs/demo' and 'own.jsonl')",
    "draft runs/demo --data own.jsonl": "but both are given ('runs/demo' and 'own.jsonl')",
    "static runs/demo --cost flops": "--cost is for data to run the full model on first, but 'runs/demo' is a run",
    "draft runs/demo --reference-column refs --out x": "--out, --reference-column is for data to run the full model on",
    "static runs/demo --budget 0.5": f"0.5 of {UNITS} layers is 2.5",
    # files
    "figures runs/demo --style own.jsnl": "cannot read the style sheet 'own.jsnl' (No such file or directory); nearest",
    "check runs/dem": "a run folder is required, but 'runs/dem' does not exist; nearest: 'runs/demo'",
    # commands
    "help serach": "nearest: 'search'",
}


@pytest.mark.parametrize("words", HINTS)
def test_an_error_says_what_to_write(words: str, command: Command, place: Path) -> None:
    code, out, err = command(*(word.replace("\xa0", " ") for word in words.split(" ")))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert HINTS[words] in err
    assert len(err) < 420, "short enough to be read"


@pytest.mark.parametrize("name", parsers())
def test_no_command_takes_an_abbreviation(name: str) -> None:
    parser = parsers()[name]
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    for option in options:
        if (cut := option[:-1]) not in options and len(cut) > 3:
            with pytest.raises(InputError):
                parser.parse_args([cut])
            assert cut not in parser._option_string_actions and not parser.allow_abbrev


def test_figure_scripts_take_no_abbreviation(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "figures"))
    monkeypatch.setattr("sys.argv", ["oracle_quality.py", "nowhere", "--out", "x", "--font", "8"])
    from script import main

    with pytest.raises(SystemExit):
        main("oracle_quality")
    assert "unrecognized arguments: --font" in capsys.readouterr().err


@pytest.mark.parametrize("json_wanted", [False, True])
def test_help_and_version_are_commands_too(json_wanted: bool, command: Command, capsys: Any) -> None:
    for words, option in (("help", "--help"), ("version", "--version"), ("help query", "query --help")):
        shown = []
        for line in (words, option):
            with pytest.raises(SystemExit) as left:
                command(*(["--debug"] if json_wanted else []), *line.split())
            assert left.value.code == 0
            shown.append(capsys.readouterr().out)
        assert shown[0] == shown[1] != ""


def test_references_that_lack_come_with_the_columns(command: Command, place: Path, tiny_folder: Path) -> None:
    Path("own.csv").write_text("prompt,refs\nQuestion?,Answer\n")
    code, _, err = command("search", "--data", "own.csv", "--model", tiny_folder, "--out", "new")
    assert code == 2
    assert "name their column with --reference-column (available columns: prompt, refs), leave such rows out" in err
    code, out, _ = command("data", "own.csv", "--model", tiny_folder)
    assert code == 1 and "available columns: prompt, refs" in " ".join(out.split())


def test_the_nearest_bundled_data_is_named_before_the_hub(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    code, _, err = command("data", "instrct")
    assert code == 2 and "cannot load data set 'instrct'" in err
    assert "nearest: 'instruct'" in err and len(err) < 250


def test_numbers_of_an_unfinished_run_are_said_to_be_so(command: Command, place: Path) -> None:
    said = (
        "oracle: note: the search of 'runs/int' has not ended after 3 of 3 sequences: numbers are of what is stored so "
        "far; continue with: oracle search --resume runs/int\n"
    )
    for words in ("query", "query --json", "query --sql FROM\xa0sequences", "report", "figures --only luck_curve"):
        name, *options = (word.replace("\xa0", " ") for word in words.split(" "))
        code, _, err = command(name, "runs/int", *options)
        assert code == 0 and err.endswith(said) and err.count("note:") == 1
        assert "has not ended" not in command(name, "runs/demo", *options)[2]
    assert said in command("query", "runs/demo", "--against", "runs/int")[2]
    # A command that refuses the run says so on its one line.
    code, _, err = command("query", "runs/int", "--summary")
    assert (code, err.count("\n")) == (2, 1)


def test_a_figure_that_is_asked_for_and_not_drawn_is_a_failure_with_the_run(command: Command, place: Path) -> None:
    zero = [(tuple(range(UNITS)), 0.0), ((0, 1), 0.0)]
    complete_run(Path("runs/zero"), {"facts-000": zero, "facts-001": zero})
    code, out, err = command("figures", "runs/zero", "--only", "oracle_quality", "--out", "pictures")
    assert (code, out) == (1, "") and "oracle_quality: no sequence of 'zero' can tell something: " in err
    code, out, err = command("figures", "runs/demo", "runs/zero", "--only", "oracle_quality", "--out", "pictures")
    assert code == 1 and "no sequence of 'zero' can tell something" in err
    code, out, _ = command("figures", "runs/zero", "--only", "oracle_quality", "--out", "pictures", "--json")
    assert code == 1 and set(json.loads(out)["skipped"]) == {"oracle_quality"}
    assert command("figures", "runs/demo", "--only", "luck_curve", "--out", "pictures")[0] == 0


def small(tiny_folder: Path, data: Path) -> list[object]:
    return ["--model", tiny_folder, "--data", data, "--max-new-tokens", 4, "--evaluations", 8, "--device", "cpu"]


def test_a_resumed_search_keeps_to_no_figures_and_names_what_is_older(
    command: Command, tiny_folder: Path, sequences_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert command("search", *small(tiny_folder, sequences_file), "--no-figures", "--out", run, "--quiet")[0] == 0
    for name in ("summary.json", "minimal_budgets.parquet"):
        (run / name).unlink()
    (run / "report.html").write_text("of the unfinished run")
    code, out, err = command("search", "--resume", run, "--quiet")
    assert code == 0 and not (run / "figures").exists() and "Figures:" not in out
    assert err == (
        f"oracle: note: '{run / 'report.html'}' is older than the end of the search; write it anew with: "
        f"oracle report {run}\n"
    )
    code, out, err = command("search", "--resume", run, "--quiet")
    assert (code, err) == (0, f"oracle: note: the search of '{run}' had already ended: nothing was left to do\n")
    assert not (run / "figures").exists()


def test_resuming_a_complete_run_draws_nothing_anew(
    command: Command, tiny_folder: Path, sequences_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert command("search", *small(tiny_folder, sequences_file), "--out", run, "--quiet")[0] == 0
    drawn = {path.name: path.stat().st_mtime_ns for path in (run / "figures").iterdir()}
    assert drawn
    code, out, err = command("search", "--resume", run, "--quiet", "--json")
    assert code == 0 and json.loads(out)["run"] == str(run) and "nothing was left to do" in err
    assert {path.name: path.stat().st_mtime_ns for path in (run / "figures").iterdir()} == drawn


def test_masks_of_new_prompts_need_no_references_and_say_what_they_drop(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text("question,topic\n" + "".join(f"Question {n}?,t{n % 2}\n" for n in range(8)))
    columns = ["--prompt-column", "question", "--task-column", "topic", "--criterion", "agreement"]
    how = ["--budget", "3", "--methods", "unified,influence", "--no-timing", "--out", tmp_path / "run", "--quiet"]
    shown = ["static", "--data", file, "--model", tiny_folder, "--max-new-tokens", 4, "--device", "cpu"]
    code, out, err = command(*shown, *columns, *how)
    assert (code, err) == (0, "")
    assert set(Run.open(tmp_path / "run").sequences()["task"]) == {"t0", "t1"}
    lines = dict(line.split() for line in io.StringIO(out) if line.startswith(("  layers ", "  dropped ")))
    from oracle.allocations import parse

    assert sorted(parse(lines["layers"]) + parse(lines["dropped"])) == list(range(5))
