import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from oracle.errors import ForeignError, InputError
from oracle.sequences import load_sequences
from oracle.sequences.hub import HubName, looks_like_hub_name
from oracle.types import Sequence

TRAIN = datasets.Dataset.from_list([{"prompt": "p", "references": ["a", "b"]}, {"prompt": "q", "references": []}])
TEST = datasets.Dataset.from_list([{"prompt": "r", "references": ["c"]}])
SEQUENCES = [
    Sequence(id="00000", prompt="p", references=("a", "b")),
    Sequence(id="00001", prompt="q"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("squad", HubName(name="squad")),
        ("hf://allenai/ai2_arc:ARC-Easy", HubName(name="allenai/ai2_arc", config="ARC-Easy")),
        ("a/b:c:test", HubName(name="a/b", config="c", split="test")),
        ("a/b::test", HubName(name="a/b", split="test")),
    ],
)
def test_names_have_up_to_three_parts(text: str, expected: HubName) -> None:
    assert HubName.parse(text) == expected


@pytest.mark.parametrize("text", ["hf://", ":config", "a:b:c:d"])
def test_a_bad_name_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="must be name, name:config or name:config:split"):
        HubName.parse(text)


@pytest.mark.parametrize(
    ("text", "is_name"),
    [
        ("squad", True),
        ("allenai/ai2_arc:ARC-Easy:test", True),
        ("hf://org/set-v1.5", True),
        ("set.jsonl", False),
        ("data/set.csv", False),
        ("./squad", False),
        ("/squad", False),
        ("a/b/c", False),
        ("two words", False),
        ("x" * 97, False),
        ("http://host/set", False),
        ("", False),
    ],
)
def test_a_name_has_no_suffix_and_at_most_one_slash(text: str, is_name: bool) -> None:
    assert looks_like_hub_name(text) is is_name


def test_a_saved_data_set(tmp_path: Path) -> None:
    TRAIN.with_format("numpy").save_to_disk(tmp_path / "saved")
    assert load_sequences(str(tmp_path / "saved")) == SEQUENCES


def test_the_split_of_a_saved_data_set(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    datasets.DatasetDict({"train": TRAIN, "test": TEST}).save_to_disk(folder)
    assert load_sequences(f"{folder}::train") == SEQUENCES
    assert load_sequences(f"{folder}::test") == [Sequence(id="00000", prompt="r", references=("c",))]
    with pytest.raises(InputError, match=r"needs one of its splits train, test, not none: write .*::test"):
        load_sequences(folder)
    with pytest.raises(InputError, match=r"not 'tset'; nearest: 'test'"):
        load_sequences(f"{folder}::tset")
    with pytest.raises(InputError, match=r"without a configuration, not with 'easy'"):
        load_sequences(f"{folder}:easy")


def test_a_folder_of_data_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "files"
    folder.mkdir()
    with pytest.raises(InputError, match=r"cannot load data set .*: give a folder with data files"):
        load_sequences(str(folder))
    (folder / "train.jsonl").write_text('{"prompt": "p"}\n')
    assert load_sequences(str(folder)) == [Sequence(id="00000", prompt="p")]
    with pytest.raises(InputError, match=r"BuilderConfig 'easy' not found.*name:config"):
        load_sequences(f"{folder}:easy")


def test_no_code_of_a_data_set_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(*names: object, **options: object) -> datasets.DatasetDict:
        calls.append((names, options))
        return datasets.DatasetDict({"validation": TRAIN})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_sequences("org/set:easy") == SEQUENCES
    assert calls == [(("org/set", "easy"), {"streaming": False})]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DatasetNotFoundError("it\nis not there."), "'org/set': DatasetNotFoundError: it is not there: check the name"),
        (ConnectionError("no route"), "no route: if it should be a file"),
        (FileNotFoundError("no files"), "no files: give a folder"),
        (ValueError("Config name is missing"), "Config name is missing: name a configuration"),
        (RuntimeError("Dataset scripts are no longer supported"), "supported: export it"),
        (DatasetGenerationError("cast"), "cast: export it"),
        (PermissionError("denied"), "denied: export it"),
    ],
)
def test_what_goes_wrong_comes_with_a_remedy(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError) as caught:
        load_sequences("org/set")
    assert message in str(caught.value)


def test_importing_the_package_leaves_datasets_and_torch_out() -> None:
    program = "import sys, oracle.sequences; print(sorted({'datasets', 'torch'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_an_error_that_no_library_documents_is_one_line_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise KeyError("x" * 400 + "\ny")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ForeignError) as caught:
        load_sequences("org/set")
    line = str(caught.value)
    assert line.startswith("cannot load data set 'org/set': KeyError: 'xxx")
    assert line.endswith("...: export it to JSONL or Parquet and give that file")
    assert len(line) < 420 and isinstance(caught.value.__cause__, KeyError)


def test_a_folder_that_cannot_be_read_prints_nothing_but_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "files").mkdir()
    for place, row in enumerate(['{"prompt": "p"}', '{"other": [1]}']):
        (tmp_path / "files" / f"{place}.jsonl").write_text(row + "\n")
    before = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    with pytest.raises(InputError, match=r"cannot load data set .*: export it to JSONL"):
        load_sequences(str(tmp_path / "files"))
    assert capfd.readouterr() == ("", "")
    assert (datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()) == before
