"""`oracle data`, and what a search does with the options about data."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import jsonl, tiny_llama, tiny_tokenizer

from oracle.metrics import answer_in, score_text
from oracle.store import Run

Command = Callable[..., tuple[int, str, str]]

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"

CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Italy?"},
        {"role": "assistant", "content": "Rome"},
    ]
}
PLAIN = {"messages": [{"role": "user", "content": "Spain?"}, {"role": "assistant", "content": "Madrid"}]}


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "chat"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tiny_llama().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer_alone(chat_folder: Path, tmp_path: Path) -> Path:
    """A model without its weights."""
    folder = tmp_path / "alone"
    folder.mkdir()
    for path in chat_folder.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_data_are_shown_as_the_model_sees_them(command: Command, tokenizer_alone: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "d.jsonl", {**CHAT, "task": "geo"}, PLAIN, {"messages": []})
    code, out, err = command("data", file, "--model", tokenizer_alone, "--skip-unusable", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["rows"] == [
        {
            "id": "00000",
            "task": "geo",
            "prompt": "[system]Be brief.[user]Italy?[assistant]",
            "prompt_tokens": 40,
            "references": ["Rome"],
            "choices": [],
            "answer": None,
        },
        {
            "id": "00001",
            "task": "",
            "prompt": "[user]Spain?[assistant]",
            "prompt_tokens": 23,
            "references": ["Madrid"],
            "choices": [],
            "answer": None,
        },
    ]
    assert found["prompt_tokens"] == {"least": 23, "median": 31.5, "most": 40}
    assert (found["sequences"], found["tasks"], found["problems"]) == (2, {"geo": 1, "": 1}, [])
    assert found["skipped"] == {"prompt 'messages' is list": 1}
    assert "the last answer of a conversation is its reference" in [entry["rule"] for entry in found["decisions"]]


def test_the_right_choice_is_marked(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "d.jsonl", {"prompt": "Pick\none", "choices": ["red", "blue"], "answer": "B", "task": "t"})
    code, out, _ = command("data", file, "--model", tiny_folder, "--criterion", "choice_accuracy")
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert lines[lines.index("choice:") + 1] == "red" and lines[lines.index("right choice:") + 1] == "blue"
    assert lines[lines.index("prompt (8 tokens):") + 1 :][:2] == ["Pick", "one"]


def test_what_a_search_would_refuse_is_shown_with_exit_code_1(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    file = jsonl(tmp_path / "d.jsonl", {"prompt": "x" * 250, "id": "long"}, {"prompt": "p", "references": ["a"]})
    code, out, _ = command("data", file, "--model", tiny_folder, "--json")
    problems = json.loads(out)["problems"]
    assert code == 1 and len(problems) == 2
    assert "1 of 2 have none, the first with id 'long'" in problems[0]
    assert problems[1].startswith("1 prompt and 32 new tokens do not fit the model's context of 256 tokens")
    code, out, _ = command("data", file, "--model", tiny_folder)
    assert code == 1 and "A search would refuse this: metric 'rougeL' needs a reference" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cells", "lits"], "--cells needs one of auto, lists, text, not 'lits'; nearest: 'lists'"),
        (["--format", "jsn"], "nearest: 'json'"),
        (["--separator", "::"], "--separator needs one character"),
        (["--answer-as", "indx"], "nearest: 'index'"),
        (["--choice-score", "acc_byte"], "nearest: 'acc_bytes'"),
        (["--extract", "gsm"], "nearest: 'gsm8k'"),
        (["--extract", "("], "--extract needs a valid regular expression"),
        (["--records", "data"], "--records is for JSON, not for"),
        (["--separator", ";"], "--separator is for CSV, not for"),
        (["--prompt-column", "q"], "has no column 'q': name another with --prompt-column"),
        (["--choices-column", "q"], "name another with --choices-column"),
        (["--answer-column", "q"], "name another with --answer-column"),
        (["--reference-column", "q"], "name another with --reference-column"),
        (["--template", "{q}"], "name another with --template"),
    ],
)
@pytest.mark.parametrize("name", ["data", "search"])
def test_bad_values_die_before_a_model_is_loaded(
    command: Command, tmp_path: Path, name: str, options: list[str], message: str
) -> None:
    file = jsonl(tmp_path / "d.jsonl", {"prompt": "p", "references": ["a"]})
    arguments = ["data", file] if name == "data" else ["search", "--data", file, "--out", tmp_path / "run"]
    code, out, err = command(*arguments, "--model", tmp_path / "no-model", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "run").exists()


def test_pruning_does_not_go_with_extraction(command: Command, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "d.jsonl", {"prompt": "p", "references": ["7"]})
    code, _, err = command("search", "--data", file, "--out", tmp_path / "run", "--extract", "number", "--prune")
    assert code == 2 and "--prune bounds the quality of unfinished outputs" in err


def test_the_number_of_rows_is_checked(command: Command) -> None:
    assert command("data", "instruct", "--rows", "-1") == (2, "", "oracle: error: --rows needs at least 0, not -1\n")


def quick(folder: Path, file: str, out: Path) -> list[object]:
    effort = ["--evaluations", 6, "--max-new-tokens", 4, "--strategy", "spread", "--device", "cpu", "--no-figures"]
    return ["search", "--model", folder, "--data", file, "--out", out, *effort]


def test_unusable_rows_are_left_out_and_counted(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    squad = [
        {"id": "1", "question": "What is Rome?", "answers": {"text": ["a city", "city"]}},
        {"id": "2", "question": "How old is it?", "answers": {"text": []}},
        {"id": "3", "question": None, "answers": {"text": ["x"]}},
        {"id": "4", "question": " ", "answers": {"text": ["x"]}},
        {"id": "5", "answers": {"text": ["x"]}},
        {"id": "6", "question": "Where is it?", "answers": {"text": ["Italy"]}},
    ]
    file, out = jsonl(tmp_path / "squad.jsonl", *squad), tmp_path / "run"
    options = [*quick(tiny_folder, file, out), "--prompt-column", "question", "--reference-column", "answers.text"]
    code, _, err = command(*options)
    assert code == 2 and "line 3: prompt 'question' must be text, not null" in err
    assert err.endswith("; --skip-unusable leaves such rows out\n")
    code, printed, err = command(*options, "--skip-unusable", "--json")
    assert code == 0
    skipped = {
        "prompt 'question' is null": 1,
        "the prompt is empty": 1,
        "no column 'question'": 1,
        "rougeL needs a reference that is not empty": 1,
    }
    run = Run.open(out)
    assert list(run.sequences()["sequence"]) == ["1", "6"]
    assert run.manifest["data"]["skipped"] == skipped
    assert json.loads(printed)["data"]["skipped"] == skipped
    assert "Data: left out 1 row: the prompt is empty" in err
    assert run.manifest["config"]["skip_unusable"] is True
    resumed = command("search", "--resume", out, "--no-figures")
    assert resumed[0] == 0 and "Rows left out: 1 (prompt 'question' is null)" in resumed[1]


def test_nothing_usable_is_an_error_with_the_counts(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "d.jsonl", {"prompt": "p"}, {"prompt": "q"})
    code, _, err = command(*quick(tiny_folder, file, tmp_path / "run"), "--skip-unusable")
    assert code == 2 and "at least one usable sequence, not none (2 rows: rougeL needs a reference" in err


def test_decisions_are_printed_and_recorded(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt;references\nItaly?;['Rome', 'Roma']\nSpain?;['Madrid']\n")
    code, printed, err = command(*quick(tiny_folder, str(path), tmp_path / "run"), "--json")
    decisions = Run.open(tmp_path / "run").manifest["data"]["decisions"]
    assert code == 0 and json.loads(printed)["data"]["decisions"] == decisions
    assert [entry["rows"] for entry in decisions] == [0, 2]
    assert "Data: the cells are separated by semicolon, not by comma" in err
    assert "Data: column 'references': texts in Python notation are lists" in err


def test_answers_are_extracted_from_references_and_outputs(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    solutions = [{"question": f"{n}+4?", "answer": f"{n}+4=<<{n}+4={n + 4}>>{n + 4}\n#### {n + 4}"} for n in range(3)]
    file, out = jsonl(tmp_path / "g.jsonl", *solutions), tmp_path / "run"
    pattern = r"[a-z]|\d+$"
    options = [*quick(tiny_folder, file, out), "--prompt-column", "question", "--reference-column", "answer"]
    code, _, err = command(*options, "--extract", pattern, "--criterion", "chrf")
    assert code == 0, err
    run = Run.open(out)
    assert [list(found) for found in run.sequences()["references"]] == [["4"], ["5"], ["6"]]
    rows = run.evaluations().merge(run.sequences()[["sequence", "references"]], on="sequence")
    for row in rows.to_dict("records"):
        extracted = answer_in(row["text"], pattern)
        assert extracted in row["text"] and len(extracted) <= 2
        for metric in ("chrf", "rougeL", "exact_match"):
            assert row[metric] == score_text(metric, extracted, tuple(row["references"]))
    from analysis import load

    experiment = load(out)
    assert experiment.score is not None
    text = rows["text"].iloc[0]
    assert experiment.score(text, ("a",)) == score_text("chrf", answer_in(text, pattern), ("a",))


def test_the_bundled_arithmetic_is_scored_by_its_number(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    """The command of the README; other tasks have no numbers to extract, and are not read."""
    options = "--tasks arithmetic --extract number --reference-column references.0 --criterion exact_match --limit 3"
    code, _, err = command(*quick(tiny_folder, "instruct", tmp_path / "run"), *options.split())
    assert code == 0, err
    run = Run.open(tmp_path / "run")
    assert [list(found) for found in run.sequences()["references"]] == [["8"], ["17"], ["24"]]
    assert run.summary()["criterion"] == "exact_match"


@pytest.mark.parametrize(("name", "stored"), [("acc_bytes", "acc_bytes"), ("per-byte", "acc_bytes")])
def test_how_choices_are_scored_is_stored(
    command: Command, tiny_folder: Path, tmp_path: Path, name: str, stored: str
) -> None:
    rows = [{"prompt": f"{n}?", "choices": ["да", "no", "maybe"], "answer": n} for n in range(2)]
    options = ["--criterion", "choice_accuracy", "--choice-score", name, "--target-delimiter", r"\n"]
    file, out = jsonl(tmp_path / "c.jsonl", *rows), tmp_path / "run"
    code, _, err = command(*quick(tiny_folder, file, out), *options)
    assert code == 0, err
    config = Run.open(out).manifest["config"]
    assert (config["choice_score"], config["target_delimiter"]) == (stored, "\n")
    assert Run.open(out).sequences()["choice_tokens"].tolist() == [6, 6], "the delimiter and the five letters of maybe"


def test_a_reference_without_an_answer_is_refused_or_left_out(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    file = jsonl(
        tmp_path / "g.jsonl", {"prompt": "p", "references": "no number"}, {"prompt": "q", "references": "#### 7"}
    )
    code, _, err = command("data", file, "--model", tiny_folder, "--extract", "gsm8k")
    assert code == 2 and "--extract gsm8k finds nothing in the reference 'no number'" in err
    code, out, _ = command("data", file, "--model", tiny_folder, "--extract", "gsm8k", "--skip-unusable", "--json")
    found = json.loads(out)
    assert (code, found["rows"][0]["references"]) == (0, ["7"])
    assert found["skipped"] == {"--extract gsm8k finds nothing in the references": 1}


def test_conversations_are_searched_verified_and_replayed(command: Command, chat_folder: Path, tmp_path: Path) -> None:
    from oracle import OracleController

    file, out = jsonl(tmp_path / "d.jsonl", CHAT, PLAIN), tmp_path / "run"
    code, printed, err = command(*quick(chat_folder, file, out), "--json")
    assert code == 0, err
    summary: dict[str, Any] = json.loads(printed)
    run = Run.open(out)
    assert list(run.sequences()["prompt_tokens"]) == [40, 23]
    assert list(run.sequences()["prompt"]) == ["system: Be brief.\n\nuser: Italy?", "Spain?"]
    assert summary["verified"] == summary["verified_of"] >= 2
    controller = OracleController.from_run(out)
    chosen = run.table("assignment").set_index("sequence")
    stored = run.evaluations().set_index(["sequence", "number"])["text"]
    for row in run.sequences().to_dict("records"):
        [replayed] = controller.generate([row["prompt"]])
        assert replayed.text == stored[row["sequence"], chosen.loc[row["sequence"], "number"]]
    assert command("search", "--resume", out, "--no-figures")[0] == 0


def test_the_help_shows_the_main_options_first(capsys: pytest.CaptureFixture[str]) -> None:
    from oracle.cli import main

    with pytest.raises(SystemExit):
        main(["search", "--help"])
    usage, text = capsys.readouterr().out.split("\n\n", 1)
    assert len(usage.splitlines()) <= 3 and all(f"[{option} " in usage for option in ("--model", "--data", "--out"))
    groups = re.findall(r"^(\w[^\n]*):$", text, flags=re.M)
    assert [group.partition(" (")[0].partition(",")[0] for group in groups] == [
        "options",
        "what to search",
        "criterion and cost",
        "how to search",
        "the run",
        "hardware and precision",
        "columns of the data",
        "how the data is read",
        "tasks of lm-evaluation-harness",
        "how prompts are rendered",
        "form of the tables",
        "strategies",
    ]
    assert "(default: True)" not in text
