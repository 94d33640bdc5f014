"""Presets: the bundled table over rows in the form of the real data sets, and files of the user's own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features

import oracle
from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.pipeline.data import read_sequences
from oracle.presets import preset_config, read_presets
from oracle.store import Run

Command = Callable[..., tuple[int, str, str]]

ARC = {
    "id": "Mercury_1",
    "question": "What melts?",
    "choices": {"text": ["ice", "iron ore", "sand"], "label": ["1", "2", "3"]},
    "answerKey": "1",
}
SUMMARY = "Two met."
ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "1,000 + 1?", "answer": "1,000 + 1 = <<1000+1=1001>>1001\n#### 1,001"},
    "mmlu": {"question": "Blood?", "subject": "anatomy", "choices": ["O", "B", "A", "AB"], "answer": 3},
    "arc": ARC,
    "arc_easy": ARC,
    "hellaswag": {
        "ind": 4,
        "activity_label": "Ice",
        "ctx_a": "A man",
        "ctx_b": "he",
        "ctx": "A man. He",
        "endings": ["runs.", "sits.", "1", "3"],
        "source_id": "a~1",
        "split": "val",
        "split_type": "indomain",
        "label": "3",
    },
    "squad": {
        "id": "57",
        "title": "Rome",
        "context": "Rome is old.",
        "question": "What is old?",
        "answers": {"text": ["Rome", "The city"], "answer_start": [0, 0]},
    },
    "cnn_dailymail": {"article": "Long.", "highlights": SUMMARY, "id": "c1"},
    "xsum": {"document": "Long.", "summary": SUMMARY, "id": "x1"},
    "wmt22-de-en": {"de-en": {"de": "Guten Tag", "en": "Good day"}},
    "alpaca": {"instruction": "Name a colour.", "input": "", "output": "Red", "text": "..."},
    "samsum": {"id": "13", "dialogue": "A: hi\r\nB: hi", "summary": SUMMARY},
}
EXPECTED: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...], int | None]] = {
    "gsm8k": ("00000", "Question: 1,000 + 1?\nAnswer:", ("1001",), (), None),
    "mmlu": ("00000", "Blood?\nA. O\nB. B\nC. A\nD. AB\nAnswer:", (), ("A", "B", "C", "D"), 3),
    "arc": ("Mercury_1", "Question: What melts?\nAnswer:", (), ("ice", "iron ore", "sand"), 0),
    "arc_easy": ("Mercury_1", "Question: What melts?\nAnswer:", (), ("ice", "iron ore", "sand"), 0),
    "hellaswag": ("00000", "Ice: A man. He", (), ("runs.", "sits.", "1", "3"), 3),
    "squad": (
        "57",
        "Rome is old.\n\nQuestion: What is old?\nAnswer in a few words of the text:",
        ("Rome", "The city"),
        (),
        None,
    ),
    "cnn_dailymail": ("c1", "Long.\n\nSummarize the article in three sentences.", (SUMMARY,), (), None),
    "xsum": ("x1", "Long.\n\nSummarize the article in one sentence.", (SUMMARY,), (), None),
    "wmt22-de-en": (
        "00000",
        "Translate from German to English.\nGerman: Guten Tag\nEnglish:",
        ("Good day",),
        (),
        None,
    ),
    "alpaca": ("00000", "Name a colour.", ("Red",), (), None),
    "samsum": ("13", "A: hi\r\nB: hi\n\nSummarize the dialogue in one or two sentences.", (SUMMARY,), (), None),
}


def saved(folder: Path, name: str, split: str) -> Path:
    """One row as the data set has it, saved with its features."""
    rows = Dataset.from_list([ROWS[name]])
    if name == "mmlu":
        rows = rows.cast(Features({**rows.features, "answer": ClassLabel(names=["A", "B", "C", "D"])}))
    DatasetDict({split: rows, "other": rows}).save_to_disk(folder)
    return folder


def test_every_preset_is_tested() -> None:
    assert list(read_presets()) == list(ROWS) == list(EXPECTED)


@pytest.mark.parametrize("name", ROWS)
def test_a_preset_reads_rows_of_its_data_set(name: str, tmp_path: Path) -> None:
    preset = read_presets()[name]
    folder = saved(tmp_path / "set", name, preset.settings["data"].rpartition(":")[2])
    config = preset_config(f"{name}:{folder}")
    loaded = read_sequences(config)
    [one] = loaded.sequences
    assert (one.id, one.prompt, one.references, one.choices, one.answer) == EXPECTED[name]
    assert config.criterion == preset.settings["criterion"]
    assert (config.scope == "decode-last") == bool(one.choices)  # a choice of one token is else the full model's


def test_answers_of_mmlu_as_numbers_or_letters(tmp_path: Path) -> None:
    for place, answer in enumerate((3, "D")):
        file = tmp_path / f"{place}.jsonl"
        row = ROWS["mmlu"] | {"answer": answer, "choices": ["O", "B", "A", "D type"]}
        file.write_text(json.dumps(row) + "\n")
        [one] = read_sequences(preset_config(f"mmlu:{file}")).sequences
        assert (one.answer, one.task) == (3, "anatomy")


def test_a_folder_with_the_configuration_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "gsm8k"
    (folder / "main").mkdir(parents=True)
    (folder / "socratic").mkdir()
    for config in ("main", "socratic"):
        row = ROWS["gsm8k"] | {"question": config}
        Dataset.from_list([row]).to_parquet(folder / config / "test-00000-of-00001.parquet")
    listed = "\n".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/test-*"
        for name in ("main", "socratic")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{listed}\n---\n")
    config = preset_config(f"gsm8k:{folder}")
    assert config.data == f"{folder}:main:test"
    assert [one.prompt for one in read_sequences(config).sequences] == ["Question: main\nAnswer:"]


def test_the_hub_is_asked_for_the_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(*names: object, **options: object) -> DatasetDict:
        calls.append((names, options))
        return DatasetDict({"test": Dataset.from_list([ROWS["xsum"]])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [one.id for one in read_sequences(preset_config("xsum")).sequences] == ["x1"]
    assert calls == [(("EdinburghNLP/xsum", None), {"streaming": False, "revision": "refs/convert/parquet"})]


def test_without_a_network_the_error_names_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(InputError) as caught:
        read_sequences(preset_config("mmlu"))
    line = str(caught.value)
    assert "hf download cais/mmlu --repo-type dataset --local-dir FOLDER" in line
    assert "--data FOLDER:all:test (of a preset: --data preset:NAME:FOLDER)" in line
    assert f"the folder cais___mmlu of that machine's datasets cache into {tmp_path / 'cache'}" in line


@pytest.fixture
def own(tmp_path: Path) -> Path:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"q": f"Question {i}?", "a": f"{i}"}) + "\n" for i in range(3)))
    file = tmp_path / "own.yaml"
    file.write_text(
        f"mine:\n  about: own rows\n  data: {data}\n  template: 'Q: {{q}}\\nA:'\n  reference_column: a\n"
        "  criterion: contains\n  max-new-tokens: 3\n  stop: ';'\n"
        "mine2:\n  base: mine\n  columns: {template: '{q}'}\n"
    )
    return file


def test_options_win_over_a_preset_of_ones_own(own: Path, command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    wanted = ("--preset-file", own, "--model", tiny_folder, "--device", "cpu", "--evaluations", 4, "--no-figures")
    out = tmp_path / "run"
    code, _, err = command("search", "--data", "preset:mine", *wanted, "--criterion", "rougeL", "--out", out)
    assert code == 0 and "Settings of preset:mine: data" in err and "criterion" not in err.partition("\n")[0]
    config = SearchConfig.from_dict(Run.open(out).manifest["config"])
    assert config.data == str(own.parent / "rows.jsonl") and config.columns.references == ("a",)
    assert (config.criterion, config.max_new_tokens, config.stop) == ("rougeL", 3, (";",))
    assert Run.open(out).sequences()["prompt"][0] == "Q: Question 0?\nA:"
    code, shown, _ = command("data", "preset:mine2", "--preset-file", own, "--model", tiny_folder, "--json")
    assert code == 0 and json.loads(shown)["rows"][0]["prompt"] == "Question 0?"


def test_presets_are_listed(own: Path, command: Command) -> None:
    code, out, _ = command("data", "--presets", "--preset-file", own)
    assert code == 0
    assert all(name in out for name in (*ROWS, "mine2", "presets.yaml"))
    code, out, _ = command("data", "--presets", "mmlu", "--json")
    assert json.loads(out)["mmlu"]["choices-as"] == "letters"
    assert command("data", "--presets", "mmul")[::2] == (
        2,
        f"oracle: error: --data preset:NAME needs one of {', '.join(ROWS)}, not 'mmul'; nearest: 'mmlu'\n",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {data: x, templat: y}", "preset 'a' of .*unknown key 'templat'; nearest: 'template'"),
        ("a: {base: gsm8}", "unknown base 'gsm8'; nearest: 'gsm8k'"),
        ("a: {template: '{q}'}", "needs data"),
        ("a: 3", "a mapping of settings"),
        ("- a", "must hold settings as 'key: value', not list"),
        ("a: {data: x, trust-remote-code: true}", "cannot set trust-remote-code: give it on the command line"),
        ("a: {data: x}\na: {data: y}", "key 'a' stands in lines 1 and 2"),
        ("a: {", "cannot read .*ParserError"),
    ],
)
def test_a_faulty_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_presets(file)
    assert "\n" not in str(caught.value)


def test_a_preset_in_a_config_is_an_error() -> None:
    with pytest.raises(InputError, match=r"use oracle.preset_config\('gsm8k', ...\)"):
        SearchConfig(data="preset:gsm8k")
    assert oracle.preset_config("gsm8k", limit=3).limit == 3


def test_letters_need_at_most_26_choices(tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text(json.dumps({"question": "?", "subject": "s", "choices": [str(i) for i in range(27)], "answer": 1}))
    with pytest.raises(InputError, match="needs at most 26 choices, not 27"):
        read_sequences(preset_config(f"mmlu:{file}"))
    with pytest.raises(InputError, match="--choices-as needs one of texts, letters, not 'letter'; nearest: 'letters'"):
        oracle.Columns(choices_as="letter")  # type: ignore[arg-type]
