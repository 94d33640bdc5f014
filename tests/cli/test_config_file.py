"""`--config`: options from a YAML file or a run."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from oracle.cli import parsers
from oracle.cli.search import search_parser
from oracle.config import SearchConfig
from oracle.store import Run
from oracle.utils.option_names import OPTIONS

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(tiny_folder: Path, sequences_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: {tiny_folder}\ndata: {sequences_file}\nmax_new_tokens: 4\nevaluations: 6\nlimit: 2\ndevice: cpu\n"
        f"stop: ['x', '\\n']\nno-figures: true\ngeneration-config: false\nchat-template: false\n"
        f"columns:\n  id: id\ntolerance: 0.1\nmetrics: [contains]\nout: {tmp_path / 'a'}\n"
    )
    return path


def test_what_runs_is_the_file_with_the_options_on_the_command_line(
    file: Path, command: Command, tmp_path: Path
) -> None:
    code, _, err = command("search", "--config", file, "--evaluations", 5, "--stop", "y", "--quiet")
    assert (code, err) == (0, "")
    run = Run.open(tmp_path / "a")
    config = SearchConfig.from_dict(run.manifest["config"])
    assert (config.evaluations, config.stop) == (5, ("y",))  # a list is replaced, not appended to
    assert (config.limit, config.max_new_tokens, config.tolerance) == (2, 4, 0.1)
    assert (config.generation_config, config.chat_template, config.metrics) == (False, False, ("contains",))
    assert config.columns.id == "id"
    assert not (tmp_path / "a" / "figures").exists()
    for given in (run.folder, run.folder / "manifest.json"):
        out = tmp_path / f"again-{given.name}"
        code, _, err = command("search", "--config", given, "--quiet", "--no-figures", "--out", out)
        assert (code, err) == (0, "")
        assert Run.open(out).manifest["config"] == run.manifest["config"]
        assert Run.open(out).summary()["per_sequence_fraction"] == run.summary()["per_sequence_fraction"]
    code, _, _ = command("search", "--config", run.folder, "--limit", 1, "--quiet", "--no-figures", "--out", out / "x")
    assert SearchConfig.from_dict(Run.open(out / "x").manifest["config"]).limit == 1


def test_one_option_of_an_exclusive_group_on_the_command_line_replaces_the_file_s(
    file: Path, command: Command, tmp_path: Path
) -> None:
    assert command("search", "--config", file, "--quiet")[0] == 0
    code, out, err = command("search", "--config", file, "--resume", tmp_path / "a", "--quiet")
    assert code == 0 and "nothing was left to do" in err and "Run:" in out


def test_data_are_shown_as_the_search_of_a_file_reads_them(file: Path, command: Command) -> None:
    code, out, _ = command("data", "--config", file, "--json")
    assert code == 0 and json.loads(out)["sequences"] == 2
    code, out, _ = command("data", "--config", file, "--limit", 3, "--json")
    assert json.loads(out)["sequences"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evaluation: 3", "unknown key 'evaluation'; nearest: 'evaluations'"),
        ("columns: {promt: q}", "unknown key 'columns: promt'"),
        ("evaluations: many", "evaluations needs int, not 'many'"),
        ("evaluations: 3.5", "evaluations needs int, not 3.5"),
        ("limit: [1, 2]", r"limit needs one value, not \[1, 2\]"),
        ("prune: 1", "prune needs true or false, not 1"),
        ("criterion: yes", "criterion needs a value, not true: put a text in quotes"),
        ("max-new-tokens: 3\nmax_new_tokens: 4", "'max_new_tokens' is given twice, by two names"),
        ("limit: 1\nlimit: 2", "key 'limit' stands in lines 1 and 2"),
        ("out: a\nresume: b", "out and resume exclude each other"),
        ("trust-remote-code: true", "cannot give trust-remote-code: consent"),
        ("trust_code: [a]", "cannot give trust_code: consent"),
        ("criterion: os:getcwd", "--trust-code 'os:getcwd'"),
        ("a", "must hold settings as 'key: value', not str"),
        ("", "must hold settings as 'key: value', not NoneType"),
        ('{"schema_version": 1, "config": {}}', "is the manifest of a run outside its folder"),
    ],
)
def test_a_faulty_file_is_one_line(text: str, message: str, tmp_path: Path, command: Command) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    code, out, err = command("search", "--config", file)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(message, err), err


def test_a_missing_file_is_one_line(command: Command, tmp_path: Path) -> None:
    code, _, err = command("search", "--config", tmp_path / "none.yaml")
    assert code == 2 and "cannot read" in err and "give a YAML file of settings" in err


def test_a_run_s_settings_are_named_once(command: Command, file: Path, tmp_path: Path) -> None:
    assert command("search", "--config", file, "--quiet")[0] == 0
    code, _, err = command("search", "--config", tmp_path / "a", "--from", tmp_path / "a")
    assert code == 2 and "give only one of them" in err
    code, _, err = command("search", "--config", tmp_path / "a", "--trust-remote-code")
    assert code == 2 and "--trust-remote-code needs --model too" in err


def test_the_names_of_settings_are_those_of_options() -> None:
    options = {
        name.removeprefix("--"): action.dest for action in search_parser()._actions for name in action.option_strings
    }
    assert {name: options[name] for name in OPTIONS} == OPTIONS


def test_commands_that_take_a_file() -> None:
    having = {name for name, one in parsers().items() if any(a.dest == "config_file" for a in one._actions)}
    assert {"search", "data", "demo", "skiplayer", "eval", "measure", "static", "draft", "profile"} <= having


def test_another_command_takes_its_options_from_a_file(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(f"model: {tiny_folder}\nrounds: 2\ncontext: 8\ndevice: cpu\nout: {tmp_path / 'costs.json'}\n")
    code, _, err = command("profile", "--config", file, "--rounds", 1, "--quiet")
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "costs.json").read_text())
    assert (found["rounds"], found["costs"][0]["context"]) == (1, 8)
    (tmp_path / "manifest.json").write_text("{}")
    code, _, err = command("profile", "--config", tmp_path)
    assert code == 2 and "is a run" in err and "give a file" in err
