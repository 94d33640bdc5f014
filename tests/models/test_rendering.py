"""Prompts as the model reads them: templates by name and file, system turns, arguments, special tokens."""

from collections.abc import Callable
from pathlib import Path

import pytest
from templates import DATED, DEMANDING, START, THINKING, TURNS, move_clock
from tiny import tiny_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.models.rendering import PromptFormat, render
from oracle.types import Message

User = Message(role="user", content="Hi")


def tokenizer_of(template: str | dict[str, str] | None) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def text(template: str | dict[str, str] | None, asked: object = "Hi", **settings: object) -> str:
    """The rendered prompt; its token ids are those of the bytes."""
    tokenizer = tokenizer_of(template)
    found = render(tokenizer, asked, SearchConfig(**settings))
    assert tokenizer.decode(found.ids) == found.text
    return found.text


def notes(template: str, prompts: tuple = ("Hi",), **settings: object) -> list[str]:
    return PromptFormat.of(tokenizer_of(template), SearchConfig(**settings)).notes(prompts)


def refusal(render: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        render()
    assert "\n" not in str(caught.value)
    return str(caught.value)


NAMED = {"short": "S" + TURNS, "tool_use": "T" + TURNS}


def test_a_template_is_the_tokenizers_own_or_chosen_by_name_or_file(tmp_path: Path) -> None:
    assert text(None) == "Hi"
    assert text(THINKING) == "<user>Hi<assistant>"
    assert text(THINKING, chat_template=False) == "Hi"
    assert text(NAMED, chat_template="short") == "S<user>Hi"
    assert text({**NAMED, "default": "D" + TURNS}) == "D<user>Hi"
    assert text(THINKING, chat_template="default") == text(THINKING)
    (tmp_path / "mine.jinja").write_text("M" + TURNS)
    for own in (None, THINKING, NAMED):
        assert text(own, chat_template=str(tmp_path / "mine.jinja")) == "M<user>Hi"


def test_named_templates_without_a_default_are_listed_with_the_option() -> None:
    said = refusal(lambda: text(NAMED))
    assert "the chat templates short, tool_use and no default; choose one with --chat-template NAME" in said
    assert "--no-chat-template" in said
    said = refusal(lambda: text(NAMED, chat_template="shrt"))
    assert "--chat-template needs one of the tokenizer's templates (short, tool_use)" in said
    assert said.endswith("nearest: 'short'")
    said = refusal(lambda: text(None, chat_template="none.jinja"))
    assert "(it has none) or a readable jinja file, not 'none.jinja' (No such file or directory)" in said


def test_a_file_that_is_no_text_or_no_template_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    assert "readable jinja file" in refusal(lambda: text(None, chat_template=str(tmp_path / "b")))
    assert "readable jinja file" in refusal(lambda: text(None, chat_template=str(tmp_path)))
    (tmp_path / "readme").write_text("You are a helpful assistant.")
    said = refusal(lambda: text(None, chat_template=str(tmp_path / "readme")))
    assert "does not read 'messages', so it would write the same text for every prompt" in said


def test_a_template_that_demands_a_system_turn_names_the_option() -> None:
    said = refusal(lambda: text(DEMANDING))
    assert "a system turn comes first" in said and "--system TEXT" in said and "--no-chat-template" in said
    assert text(DEMANDING, system="Be brief.") == "<system>Be brief.<user>Hi"


REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TURNS


def test_a_system_turn_that_a_template_refuses_or_drops_is_refused() -> None:
    assert "no system role" in (said := refusal(lambda: text(REFUSING, system="x"))) and "omit --system" in said
    dropping = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    assert text(dropping) == "Hi"
    assert "ignores the system turn, so --system would change nothing" in refusal(lambda: text(dropping, system="x"))
    assert "--system needs a chat template, but the tokenizer has none" in refusal(lambda: text(None, system="x"))
    said = refusal(lambda: text(None, template_args=("a=1",)))
    assert "--template-arg needs a chat template, but the tokenizer has none" in said
    assert "but --no-chat-template is given" in refusal(lambda: SearchConfig(chat_template=False, system="x"))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.content }}", "TemplateSyntaxError: Unexpected end of template"),
        ("{{ messages[0].content.nothing.more }}", "UndefinedError"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ messages | length // 0 }}", "ZeroDivisionError"),
        ("{{ messages[0].content | nofilter }}", "TemplateAssertionError|TemplateRuntimeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}{{ messages }}", "RecursionError"),
        ("{{ messages.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_a_broken_template_is_one_line_with_the_remedy(template: str, reason: str) -> None:
    said = refusal(lambda: text(template))
    assert any(one in said for one in reason.split("|"))
    assert "--no-chat-template" in said and "--chat-template NAME|FILE" in said


def test_arguments_reach_the_template_and_unread_ones_are_named() -> None:
    assert text(THINKING, template_args=("enable_thinking=false",)) == "<user>Hi<assistant><none>"
    assert text(THINKING, template_args=("enable_thinking=true",)) == "<user>Hi<assistant>"
    assert notes(THINKING, template_args=("enable_thinking=false",)) == []
    [note] = notes(THINKING, template_args=("enable_thinkin=false", "x=1"))
    assert "--template-arg enable_thinkin, x changes nothing" in note
    assert "it reads enable_thinking; nearest: 'enable_thinking'" in note
    [note] = notes(TURNS, template_args=("x=1",))
    assert note.endswith("it reads no arguments")


def test_arguments_are_found_where_the_library_adds_to_jinja() -> None:
    template = (
        "{% for m in messages %}{% generation %}{{ m.content }}{{ date }}{% endgeneration %}{% break %}{% endfor %}"
    )
    assert text(template, template_args=("date=5 May",)) == "Hi5 May"
    assert notes(template, template_args=("date=5 May",)) == []
    llama = "{% if messages[0].role == 'system' %}{% set messages = messages[1:] %}{% endif %}" + TURNS
    assert text(llama) == "<user>Hi"


def test_conversations_keep_their_turns_and_their_own_system_turn() -> None:
    history = (User, Message(role="assistant", content="Hello"), Message(role="user", content="Why?"))
    assert text(THINKING, history) == "<user>Hi<assistant>Hello<user>Why?<assistant>"
    own = (Message(role="system", content="mine"), User)
    assert text(THINKING, own, system="other") == "<system>mine<user>Hi<assistant>"
    assert notes(THINKING, (own, "Hi"), system="other") == [
        "--system is not used for 1 of 2 prompts, which have a system turn"
    ]
    begun = (User, Message(role="assistant", content="The answer"))
    assert text(THINKING, begun) == "<user>Hi<assistant>The answer"
    assert text(None, (User,)) == "Hi"
    said = refusal(lambda: text(None, history))
    assert "a conversation of 3 turns needs a chat template, but the tokenizer has none" in said


def test_special_tokens_are_never_doubled() -> None:
    tokenizer = tokenizer_of("{{ bos_token }}" + TURNS + START)
    tokenizer.bos_token = "</s>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 256)])
    bos, hi = 256, tuple(tokenizer("Hi", add_special_tokens=False)["input_ids"])
    plain = SearchConfig(chat_template=False)
    assert render(tokenizer, "Hi", plain).ids == (bos, *hi)
    assert render(tokenizer, "</s>Hi", plain).ids == (bos, *hi), "a prompt that was rendered elsewhere"
    templated = render(tokenizer, "Hi", SearchConfig())
    assert templated.ids.count(bos) == 1 and templated.ids[0] == bos
    assert list(templated.ids) == tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_dict=False
    )
    tokenizer.chat_template = TURNS
    assert bos not in render(tokenizer, "Hi", SearchConfig()).ids, "as the library does"


def test_a_tokenizer_that_fails_is_one_line() -> None:
    class Failing(PreTrainedTokenizerFast):
        def __call__(self, *args: object, **kwargs: object) -> None:
            raise AssertionError("piece 7\nis missing")

    tokenizer = Failing(tokenizer_object=tiny_tokenizer().backend_tokenizer)
    said = refusal(lambda: render(tokenizer, "Hi", SearchConfig()))
    assert "the tokenizer cannot encode a prompt (AssertionError: piece 7 is missing)" in said
    with pytest.raises(InputError, match="at least one token"):
        render(tiny_tokenizer(), "", SearchConfig())


def test_a_format_is_fixed_when_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("1" + TURNS)
    prompts = PromptFormat.of(tiny_tokenizer(), SearchConfig(chat_template=str(path)))
    path.write_text("2" + TURNS)
    assert prompts.render("Hi").text == "1<user>Hi"
    move_clock(monkeypatch, 3)
    assert text(DATED) == "Saturday 03 May 2031<user>Hi<assistant>"
