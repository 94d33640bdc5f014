"""Conversations in OpenAI's and ShareGPT's form, and how a model without a chat template takes them."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from oracle.errors import InputError
from oracle.sequences import Columns, Layout, LoadedData, data_hash, read_data
from oracle.types import Message, Sequence


def turn(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def said(who: str, value: str) -> dict[str, str]:
    return {"from": who, "value": value}


def turns(*pairs: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role=role, content=content) for role, content in pairs)


def read(path: Path, *rows: dict[str, Any], cells: str = "auto", **columns: Any) -> LoadedData:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_data(str(path), columns=Columns(**columns), layout=Layout(cells=cells))  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "d.jsonl"


SYSTEM = [turn("system", "One word."), turn("user", "Capital of Italy?"), turn("assistant", "Rome")]
HISTORY = [turn("user", "France?"), turn("assistant", "Paris"), turn("user", "And Spain?"), turn("assistant", "Madrid")]


def test_openai_messages_with_a_system_turn_and_a_history(file: Path) -> None:
    data = read(file, {"messages": SYSTEM}, {"messages": HISTORY})
    assert data.sequences == [
        Sequence(
            id="00000",
            prompt="system: One word.\n\nuser: Capital of Italy?",
            references=("Rome",),
            messages=turns(("system", "One word."), ("user", "Capital of Italy?")),
        ),
        Sequence(
            id="00001",
            prompt="user: France?\n\nassistant: Paris\n\nuser: And Spain?",
            references=("Madrid",),
            messages=turns(("user", "France?"), ("assistant", "Paris"), ("user", "And Spain?")),
        ),
    ]
    rules = [entry["rule"] for entry in data.decisions]
    assert rules == [
        "the prompts are the conversations in column 'messages' (--prompt-column decides)",
        "the last answer of a conversation is its reference",
    ]


def test_sharegpt_conversations_have_the_roles_of_chat_templates(file: Path) -> None:
    chat = [
        said("system", "Brief."),
        said("human", "Italy?"),
        said("gpt", "Rome"),
        said("human", "Peru?"),
        said("gpt", "Lima"),
    ]
    [one] = read(file, {"id": "x1", "conversations": chat}).sequences
    assert (one.id, one.references) == ("x1", ("Lima",))
    assert [message.role for message in one.messages] == ["system", "user", "assistant", "user"]


def test_one_turn_of_the_user_is_an_ordinary_prompt(file: Path) -> None:
    [one] = read(file, {"conversations": [said("human", "Italy?"), said("gpt", "Rome")]}).sequences
    assert one == Sequence(id="00000", prompt="Italy?", references=("Rome",))
    assert data_hash([one]) == data_hash([Sequence(id="00000", prompt="Italy?", references=("Rome",))])
    [asked] = read(file, {"prompt": [turn("user", "Italy?")], "references": ["Rome"]}).sequences
    assert asked == one


def test_references_of_their_own_column_win_and_it_is_said(file: Path) -> None:
    data = read(file, {"messages": SYSTEM, "references": ["Roma"]})
    assert data.sequences[0].references == ("Roma",)
    assert "not the last answer of the conversation" in str(data.decisions)
    completion = {"prompt": [turn("user", "Italy?")], "completion": [turn("assistant", "Rome")]}
    assert read(file, completion, references=("completion",)).sequences[0].references == ("Rome",)


def test_a_system_column_is_the_system_turn_and_it_is_said(file: Path) -> None:
    chat = [said("human", "Italy?"), said("gpt", "Rome")]
    data = read(file, {"conversations": chat, "system": "Brief."}, {"messages": SYSTEM, "system": "no", "prompt": None})
    assert data.sequences[0].messages == turns(("system", "Brief."), ("user", "Italy?"))
    assert data.sequences[1].messages == turns(("system", "One word."), ("user", "Capital of Italy?"))
    assert "the text in column 'system' is the system turn" in str(data.decisions)


def test_a_conversation_that_ends_with_a_question_has_no_reference(file: Path) -> None:
    [one] = read(file, {"messages": HISTORY[:3]}).sequences
    assert one.references == () and len(one.messages) == 3


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([turn("user", "a"), turn("narrator", "b")], "turn 1 .* must have one of the roles .*, not 'narrator'"),
        ([turn("user", None)], "turn 0 .* must be text, not null"),
        ([turn("user", [{"type": "image_url", "image_url": "x"}])], "turn 0 .* must be text, not list"),
        ([turn("user", "\ud800")], "half a surrogate pair"),
        ([turn("system", "a"), turn("assistant", "b")], "needs a turn of the user"),
        ([turn("assistant", "b")], "needs a turn of the user"),
        ([turn("user", " "), turn("assistant", "b")], "needs a turn of the user"),
        ([turn("user", "a"), turn("system", "b")], "needs a turn of the user"),
    ],
)
def test_what_cannot_be_asked_is_refused_or_left_out(file: Path, messages: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"line 2: .*{message}"):
        read(file, {"messages": SYSTEM}, {"messages": messages})
    data = read_data(str(file), skip_unusable=True)
    assert len(data.sequences) == 1 and list(data.skipped.values()) == [1]


def test_parts_of_text_are_joined(file: Path) -> None:
    parts = [{"type": "text", "text": "Capital "}, {"type": "text", "text": "of Italy?"}]
    assert read(file, {"messages": [turn("user", parts)]}).sequences[0].prompt == "Capital of Italy?"


def test_conversations_in_csv_cells(tmp_path: Path) -> None:
    cell = json.dumps(SYSTEM).replace('"', '""')
    (tmp_path / "d.csv").write_text(f'messages\n"{cell}"\n')
    [one] = read_data(str(tmp_path / "d.csv")).sequences
    assert one.references == ("Rome",) and len(one.messages) == 2
    python = str(SYSTEM).replace('"', '""')
    (tmp_path / "d.csv").write_text(f'messages\n"{python}"\n')
    assert read_data(str(tmp_path / "d.csv")).sequences == [one]


def test_a_text_that_holds_a_conversation_is_refused_with_both_readings(file: Path) -> None:
    row = {"prompt": json.dumps(SYSTEM)}
    with pytest.raises(
        InputError, match=r"as a conversation of 3 turns or as a text: decide with --cells lists or --cells"
    ):
        read(file, row)
    assert len(read(file, row, cells="lists").sequences[0].messages) == 2
    assert read(file, row, cells="text").sequences[0].prompt == row["prompt"]


def test_conversations_of_saved_data(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"messages": SYSTEM}]).save_to_disk(tmp_path / "saved")
    [one] = read_data(str(tmp_path / "saved")).sequences
    assert one.references == ("Rome",) and len(one.messages) == 2
    lists = {"from": ["human", "gpt"], "value": ["Italy?", "Rome"]}
    datasets.Dataset.from_list([{"conversations": lists}]).save_to_disk(tmp_path / "old")
    assert read_data(str(tmp_path / "old")).sequences == [Sequence(id="00000", prompt="Italy?", references=("Rome",))]


@pytest.mark.parametrize("spoken", [{"content": ""}, {"content": None}, {"content": "Let me see."}, {}])
@pytest.mark.parametrize("call", ["tool_calls", "function_call"])
def test_turns_that_call_tools_are_refused_however_they_are_written(file: Path, spoken: Any, call: str) -> None:
    calls = {"role": "assistant", call: [{"name": "f"}], **spoken}
    messages = [turn("user", "What?"), calls, turn("tool", "7"), turn("assistant", "Seven")]
    with pytest.raises(InputError, match="turn 1 of the conversation must be text, but it calls tools"):
        read(file, {"messages": messages})
    with pytest.raises(InputError, match="turn 1 of the conversation must be text, but it calls tools"):
        read(file, {"messages": [*messages[:1], calls]})


def test_turns_without_calls_may_say_so(file: Path) -> None:
    messages = [turn("user", "What?") | {"tool_calls": None}, turn("assistant", "Seven") | {"tool_calls": []}]
    assert read(file, {"messages": messages}).sequences[0].references == ("Seven",)


def test_parts_of_a_turn_that_are_not_text_are_refused_without_a_type_too(file: Path) -> None:
    with pytest.raises(InputError, match="must be text, not list"):
        read(file, {"messages": [turn("user", [{"text": "What?", "image": "x.png"}])]})
    parts = [{"text": "What", "image": None}, {"text": "?"}]
    assert read(file, {"messages": [turn("user", parts)]}).sequences[0].prompt == "What?"


def test_a_column_system_beside_plain_prompts_is_said_to_be_left_out(file: Path) -> None:
    found = read(file, {"prompt": "What?", "system": "Be brief."})
    assert found.sequences[0].prompt == "What?"
    assert "column 'system' is no part of the prompts" in found.lines()[0]
    assert not read(file, {"prompt": "What?", "system": "Be brief."}, template="{system} {prompt}").lines()
    assert not read(file, {"system": "Be brief."}, prompt="system").lines()


def test_several_answers_in_a_row_are_references_each(file: Path) -> None:
    answers = [turn("assistant", "Rome"), turn("assistant", "Roma")]
    data = read(file, {"prompt": "Italy?", "references": answers})
    assert data.sequences[0].references == ("Rome", "Roma")
    assert "each of several answers in a row is a reference" in str(data.decisions)


def test_a_conversation_as_reference_is_its_last_answer_or_refused(file: Path) -> None:
    data = read(file, {"prompt": "Spain?", "references": HISTORY})
    assert data.sequences[0].references == ("Madrid",)
    assert "the last answer of a conversation is the reference" in str(data.decisions)
    with pytest.raises(InputError, match=r"'references' must end with a turn of the assistant, not of the user"):
        read(file, {"prompt": "Spain?", "references": HISTORY[:3]}, {"prompt": "a", "references": ["b"]})
