"""Conversations as prompts: OpenAI messages (`role`, `content`) and ShareGPT turns (`from`, `value`)."""

from collections.abc import Mapping

from oracle.sequences.records import UnusableRow
from oracle.types import Message

__all__ = ["CONVERSATIONS", "as_messages", "prompt_and_answer", "transcript"]

CONVERSATIONS = ("messages", "conversations")
"""Columns that hold conversations by convention."""

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "observation": "tool",
}
"""Role in the data -> role of the chat template."""

_CALLS = ("tool_calls", "function_call")
"""Keys of turns that call tools."""

_FORMS = (("role", "content"), ("from", "value"))


def as_messages(value: object, where: str) -> tuple[Message, ...] | None:
    """The turns of a conversation; None if the value is none, which is a list of objects with a role and a text.

    Raises:
        UnusableRow: if it is a conversation with a role or content that cannot be used.
    """
    if isinstance(value, Mapping):  # how datasets 2 stores a list of turns
        columns = [(role, content) for role, content in _FORMS if set(value) >= {role, content}]
        lists = [value[name] for name in columns[0]] if columns else []
        if not lists or not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
            return None
        value = [dict(zip(columns[0], turn, strict=True)) for turn in zip(*lists, strict=True)]
    if not isinstance(value, list) or not value:
        return None
    _refuse_calls(value, where)
    for role, content in _FORMS:
        if all(isinstance(turn, Mapping) and turn.get(role) is not None and content in turn for turn in value):
            return tuple(
                Message(role=_role(turn[role], number, where), content=_content(turn[content], number, where))
                for number, turn in enumerate(value)
            )
    return None


def _refuse_calls(turns: list[object], where: str) -> None:
    """Raises `UnusableRow` if a turn calls tools: its text alone is not what was said."""
    for number, turn in enumerate(turns):
        if isinstance(turn, Mapping) and "role" in turn and any(turn.get(name) for name in _CALLS):
            raise UnusableRow(
                f"{where}: turn {number} of the conversation must be text, but it calls tools: only text can be used",
                "a turn that is not text",
            )


def _role(role: object, number: int, where: str) -> str:
    known = _ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise UnusableRow(
            f"{where}: turn {number} of the conversation must have one of the roles {', '.join(_ROLES)}, not {role!r}: "
            "rename it",
            "a turn with an unknown role",
        )
    return known


def _content(content: object, number: int, where: str) -> str:
    """Text of a turn; parts of text, as in OpenAI's form, are joined."""
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        texts = [part.get("text") for part in content]
        kinds = {part.get("type", "text" if _only_text(part) else None) for part in content}
        if kinds <= {"text", "input_text", "output_text"} and all(isinstance(text, str) for text in texts):
            content = "".join(str(text) for text in texts)
    if not isinstance(content, str):
        kind = "null" if content is None else type(content).__name__
        raise UnusableRow(
            f"{where}: turn {number} of the conversation must be text, not {kind}: only text can be used",
            "a turn that is not text",
        )
    try:
        content.encode("utf-8")
    except UnicodeEncodeError:
        raise UnusableRow(
            f"{where}: turn {number} of the conversation has half a surrogate pair, which is not text: correct or "
            "remove the row",
            "a turn that is not text",
        ) from None
    return content


def _only_text(part: Mapping[str, object]) -> bool:
    return all(name == "text" for name, value in part.items() if value is not None)


def prompt_and_answer(messages: tuple[Message, ...], where: str) -> tuple[tuple[Message, ...], str | None]:
    """The turns that are the prompt, and the assistant's last turn if the conversation ends with it.

    Raises:
        UnusableRow: if the prompt has no turn of the user, or does not end with one of the user or a tool.
    """
    answer = messages[-1].content if messages[-1].role == "assistant" else None
    asked = messages if answer is None else messages[:-1]
    if not any(turn.role == "user" and turn.content.strip() for turn in asked) or asked[-1].role in (
        "assistant",
        "system",
    ):
        raise UnusableRow(
            f"{where}: the conversation must ask something before the last answer, which needs a turn of the user: "
            "correct or remove the row",
            "a conversation without a question",
        )
    return asked, answer


def transcript(messages: tuple[Message, ...]) -> str:
    """The turns as one text, for tables and reports; what the model reads is made by its chat template."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in messages)
