"""Arguments of chat templates and controllers, given as `NAME=VALUE`."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from oracle.errors import InputError

__all__ = ["RESERVED", "parse_arguments", "settings_text"]

RESERVED = (
    "messages",
    "conversation",
    "conversations",
    "tools",
    "documents",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "sanitize_control_tokens",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
)
"""Names that mean something else where templates are applied."""

EXAMPLES = {"--template-arg": "enable_thinking=false", "--setting": "speedup=2"}

Value = bool | int | float | str | None


def parse_arguments(given: Iterable[str], option: str = "--template-arg") -> dict[str, Value]:
    """Argument values by name.

    A value that is `true`, `false`, `null` or a finite number in JSON's notation is that; any other is text as it
    stands, quotes and brackets included.

    Args:
        given: the arguments.
        option: the option that they are given with; a chat template's have reserved names.

    Raises:
        InputError: if one is not `NAME=VALUE`, is given twice, or has a reserved name.
    """
    found: dict[str, Value] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"{option} needs NAME=VALUE, such as {EXAMPLES[option]}, not '{one}'")
        if option == "--template-arg" and name in RESERVED:
            raise InputError(f"{option} cannot set '{name}', which the prompt itself decides; omit it")
        if name in found:
            raise InputError(f"{option} {name} is given twice; give it once")
        found[name] = _value(value)
    return found


def _value(text: str) -> Value:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if value is None or isinstance(value, bool):
        return value
    return value if isinstance(value, int | float) and math.isfinite(value) else text


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings of a controller as text, such as `speedup=2.0`."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())
