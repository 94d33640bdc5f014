"""Chat templates, a clock to move, and models with templates."""

from datetime import datetime
from pathlib import Path

import pytest
from tiny import tiny_llama, tiny_tokenizer

__all__ = ["DATED", "THINKING", "move_clock", "save_model"]

TURNS = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
START = "{% if add_generation_prompt %}<assistant>{% endif %}"

DATED = "{{ strftime_now('%A %d %B %Y') }}" + TURNS + START
"""Writes the day, as the templates of Llama 3.x, Granite and gpt-oss do."""

THINKING = TURNS + START + "{% if enable_thinking is defined and not enable_thinking %}<none>{% endif %}"
"""Has a switch, as that of Qwen3."""

DEMANDING = "{% if messages[0].role != 'system' %}{{ raise_exception('a system turn comes first') }}{% endif %}" + TURNS


def move_clock(patch: pytest.MonkeyPatch, day: int) -> None:
    """Sets the clock of chat templates to a day of May 2031; days differ in the length of their text too."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime(2031, 5, day)

    patch.setattr("transformers.utils.chat_template_utils.datetime", Clock)


def save_model(folder: Path, template: str | dict[str, str] | None) -> str:
    """The tiny Llama with a chat template; returns its folder."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tiny_llama().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
