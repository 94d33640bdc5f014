"""Arguments of chat templates: which values are what."""

import inspect

import pytest
from transformers import PreTrainedTokenizerBase

from oracle.errors import InputError
from oracle.utils.arguments import RESERVED, parse_arguments


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", False),
        ("true", True),
        ("null", None),
        ("20240726", 20240726),
        ("-0.5", -0.5),
        ("26 Jul 2024", "26 Jul 2024"),
        ("False", "False"),
        ("007", "007"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("[1]", "[1]"),
        ('"7"', '"7"'),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_json_literals_are_values_and_the_rest_is_text(text: str, value: object) -> None:
    found = parse_arguments([f"name={text}"])["name"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["enable_thinking"], "needs NAME=VALUE, such as enable_thinking=false, not 'enable_thinking'"),
        (["=false"], "needs NAME=VALUE"),
        (["a-b=1"], "needs NAME=VALUE"),
        (["a=1", "a=2"], "a is given twice"),
        (["messages=x"], "cannot set 'messages'"),
    ],
)
def test_what_is_no_argument_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_arguments(given)


def test_every_parameter_of_the_library_is_reserved() -> None:
    parameters = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    assert set(parameters) - {"self", "kwargs"} <= set(RESERVED)
