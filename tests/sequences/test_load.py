import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle.sequences.load
from oracle.errors import InputError
from oracle.metrics import get_metric
from oracle.sequences import bundled_path, check_sequences, data_hash, load_sequences, select
from oracle.types import Sequence


def named(tasks: str) -> list[Sequence]:
    return [Sequence(id=str(n), prompt="p", task=task) for n, task in enumerate(tasks)]


def ids(sequences: list[Sequence]) -> str:
    return "".join(sequence.id for sequence in sequences)


def test_select_keeps_the_order_and_the_tasks_asked_for() -> None:
    assert ids(select(named("abcab"))) == "01234"
    assert ids(select(named("abcab"), ("b", "a"))) == "0134"


@pytest.mark.parametrize(
    ("tasks", "limit", "taken"),
    [
        ("aaabbbccc", 6, "013467"),
        ("aaab", 3, "013"),
        ("aaab", 9, "0123"),
        ("baab", 3, "013"),
        ("aaa", 2, "01"),
    ],
)
def test_a_limit_is_spread_over_the_tasks(tasks: str, limit: int, taken: str) -> None:
    assert ids(select(named(tasks), limit=limit)) == taken


@given(st.text(alphabet="abcd", max_size=20), st.integers(1, 20))
def test_a_limit_takes_from_every_task_in_turn(tasks: str, limit: int) -> None:
    chosen = select(named(tasks), limit=limit)
    assert len(chosen) == min(limit, len(tasks))
    assert [int(sequence.id) for sequence in chosen] == sorted(int(sequence.id) for sequence in chosen)
    counts = {task: sum(sequence.task == task for sequence in chosen) for task in tasks}
    most = max(counts.values(), default=0)
    assert all(count >= min(most - 1, tasks.count(task)) for task, count in counts.items())


def test_an_unknown_task_lists_those_there() -> None:
    with pytest.raises(InputError, match=r"unknown task 'fact': the tasks are 'facts', 'code'; nearest: 'facts'"):
        select([Sequence(id="0", prompt="p", task="facts"), Sequence(id="1", prompt="p", task="code")], ("fact",))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_an_error(limit: int) -> None:
    with pytest.raises(InputError, match="limit must be at least 1"):
        select(named("a"), limit=limit)


def test_load_selects(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text("prompt,task\na,x\nb,x\nc,y\nd,z\n")
    chosen = load_sequences(str(file), tasks=("x", "y"), limit=2)
    assert [(sequence.id, sequence.prompt) for sequence in chosen] == [("00000", "a"), ("00002", "c")]


def test_a_missing_file_names_the_nearest_and_what_could_be_given(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("")
    with pytest.raises(InputError) as caught:
        load_sequences(str(tmp_path / "promts.jsonl"))
    message = str(caught.value)
    assert message.startswith(f"no such file '{tmp_path}/promts.jsonl'; nearest: '{tmp_path}/prompts.jsonl'; give")
    assert message.endswith("or 'instruct'")


@pytest.mark.parametrize("data", ["", "no/such/folder/x.jsonl", "x" * 5000, "a\0b", "a:b:c:d"])
def test_what_is_no_file_and_no_name_is_an_error(data: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_sequences(data)


def test_a_missing_reference_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.de").write_text("a\n")
    with pytest.raises(InputError, match=r"no such file .*a\.en'; nearest: '.*/a\.de'"):
        load_sequences(str(tmp_path / "a.de"), reference_files=(str(tmp_path / "a.en"),))


def test_the_bundled_set_is_usable() -> None:
    sequences = load_sequences("instruct")
    assert sequences == load_sequences(str(bundled_path()))
    check_sequences(sequences, get_metric("rougeL"))


def test_the_bundled_set_in_a_wheel_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, checkout = tmp_path / "_data", tmp_path / "data"
    monkeypatch.setattr(oracle.sequences.load, "_FOLDERS", (wheel, checkout))
    with pytest.raises(InputError, match=re.escape(f"must be in {wheel} or {checkout}")):
        bundled_path()
    for folder in (checkout, wheel):
        folder.mkdir()
        (folder / "instruct.jsonl").write_text("")
        assert bundled_path() == folder / "instruct.jsonl"


def test_an_unknown_bundled_set_is_an_error() -> None:
    with pytest.raises(InputError, match="unknown bundled data set 'other': available: instruct"):
        bundled_path("other")


FULL = Sequence(id="f", prompt="p", references=("", "a"), choices=("x", "y"), answer=0, task="t")
BARE = Sequence(id="g", prompt="p", references=(" ",), choices=("x", "y"), task="u")


@pytest.mark.parametrize(
    ("metric", "needed", "option"),
    [
        ("rougeL", "a reference that is not empty", "--reference-column"),
        ("log_likelihood", "a reference that is not empty", "--reference-column"),
        ("choice_accuracy", "choices and an answer", "--answer-column"),
    ],
)
def test_sequences_must_have_what_the_metric_needs(metric: str, needed: str, option: str) -> None:
    check_sequences([FULL], get_metric(metric))
    with pytest.raises(InputError) as caught:
        check_sequences([FULL, BARE, dataclasses.replace(BARE, id="h")], get_metric(metric))
    message = str(caught.value)
    assert f"metric '{metric}' needs {needed}" in message
    assert "2 of 3 have none, the first with id 'g'" in message
    assert option in message and message.endswith("--tasks t")


def test_agreement_needs_nothing() -> None:
    check_sequences([BARE], get_metric("agreement"))


def test_the_hash_changes_with_every_field_and_the_order() -> None:
    changed = [
        dataclasses.replace(FULL, **change)
        for change in (
            {"id": "x"},
            {"prompt": "é"},
            {"references": ("a", "")},
            {"choices": ("x",)},
            {"answer": None},
            {"task": ""},
        )
    ]
    hashes = [data_hash([sequence]) for sequence in (FULL, *changed)]
    hashes += [data_hash([FULL, BARE]), data_hash([BARE, FULL]), data_hash([])]
    assert len(set(hashes)) == len(hashes)
    assert data_hash([FULL, BARE]) == data_hash(iter([FULL, dataclasses.replace(BARE)]))


def test_the_hash_is_over_canonical_json() -> None:
    # sha256sum of this line and its line feed
    # {"answer":null,"choices":[],"id":"0","prompt":"\u00e9","references":[],"task":""}
    assert (
        data_hash([Sequence(id="0", prompt="é")]) == "20d2ce2725a41b768165215c3e0c9bc07f1eccfb74ce8b10b9360eb36dd86161"
    )


@pytest.mark.parametrize("data", [Path("d.jsonl"), [{"prompt": "p"}], None])
def test_data_are_named_by_a_text(data: object) -> None:
    with pytest.raises(InputError, match=r"data needs a text .* as str\(path\), rows as a file"):
        load_sequences(data)  # type: ignore[arg-type]
