"""Every error is one line; what foreign code raised is kept in a file, or shown with --debug."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_llama, tiny_tokenizer

from oracle.cli import FAULT
from oracle.errors import ForeignError, InputError, Interrupted, door

Command = Callable[..., tuple[int, str, str]]
KEPT = re.compile(r" \(traceback: (\S+), or --debug\)\n$")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The current folder, with a model and data in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    tiny_llama().save_pretrained("model")
    tiny_tokenizer().save_pretrained("model")
    Path("data.jsonl").write_text('{"prompt": "Question?", "references": ["Answer"]}\n')
    capsys.readouterr()  # the library shows its progress
    return tmp_path


SEARCH = (
    "search",
    "--model",
    "model",
    "--data",
    "data.jsonl",
    "--out",
    "run",
    "--max-new-tokens",
    "4",
    "--device",
    "cpu",
)

TEMPLATES = {
    "a template that demands a system turn": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('A system turn\nis required') }}{% endif %}",
        "fails on turns of the roles user (TemplateError: A system turn is required); if it demands a system turn",
        True,
    ),
    "a template that adds up texts and numbers": (
        "{{ messages[0].content + 1 }}",
        "fails on turns of the roles user (TypeError: can only concatenate str",
        True,
    ),
    "a template of what a message has not": (
        "{{ messages[0].parts[0].text }}",
        "fails on turns of the roles user (UndefinedError",
        True,
    ),
    "a template that is broken": ("{% for message in messages %}{{ message.content }", "is no valid jinja", False),
    "named templates without a default": (
        {"tool_use": "{{ messages[0].content }}", "rag": "{{ messages[0].content }}"},
        "has the chat templates rag, tool_use and no default; choose one with --chat-template NAME",
        False,
    ),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_a_chat_template_that_fails_is_one_line_with_the_remedy(case: str, command: Command, place: Path) -> None:
    template, why, raised = TEMPLATES[case]
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained("model")
    code, out, err = command(*SEARCH)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert why in err and "--chat-template" in err and "--no-chat-template" in err
    assert not Path("run").exists()
    kept = KEPT.search(err)
    assert (kept is not None) == raised and (not kept or "Traceback" in Path(kept[1]).read_text())
    assert command(*SEARCH, "--no-chat-template", "--evaluations", 4, "--quiet", "--no-figures")[0] == 0


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise LookupError("beyond\n\x1b[31mthe end")

    monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaMLP.forward", fail)


@pytest.mark.parametrize("where", ["before", "after"])
def test_debug_shows_the_traceback(where: str, command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    arguments = ("--debug", *SEARCH) if where == "before" else (*SEARCH, "--debug")
    code, _, err = command(*arguments)
    *lines, last = err.splitlines()
    assert code == 2 and lines[0].startswith("Traceback") and "in fail" in err
    assert last.startswith("oracle: error: a pass of LlamaForCausalLM over three tokens failed (LookupError: beyond")
    assert "\x1b" not in err and "traceback:" not in last
    assert not list((place / "temporary").iterdir())


@pytest.mark.parametrize(
    "arguments",
    [SEARCH, ("profile", "--model", "model"), ("measure", "run"), ("compare", "run", "--controllers", "unified")],
    ids=["search", "profile", "measure", "compare"],
)
def test_a_model_that_fails_is_one_line_in_every_command(
    arguments: tuple[str, ...], command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "run" in arguments and arguments[0] != "search":
        assert command(*SEARCH, "--evaluations", 6, "--quiet", "--no-figures")[0] == 0
    broken(monkeypatch)
    code, out, err = command(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("oracle: error: a pass of LlamaForCausalLM over three tokens failed (LookupError: beyond")
    kept = KEPT.search(err)
    assert kept and "in fail" in Path(kept[1]).read_text()


def test_a_fault_that_no_check_foresaw_is_one_line_too(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ArithmeticError("one\ntoo many")

    monkeypatch.setattr("oracle.pipeline.run.Setup.load", fail)
    code, out, err = command(*SEARCH)
    assert (code, out, err.count("\n")) == (FAULT, "", 1)
    assert "a fault in this program or in the model's code: ArithmeticError: one too many; please report" in err
    kept = KEPT.search(err)
    assert kept and "in fail" in Path(kept[1]).read_text()


@pytest.mark.parametrize("error", [AttributeError("no cache"), ZeroDivisionError(), KeyError("x"), OSError("a\nb")])
def test_a_door_names_step_reason_and_remedy(error: Exception) -> None:
    with pytest.raises(ForeignError) as found, door("rendering the prompt of 'x'", "use --no-chat-template"):
        raise error
    line = str(found.value)
    assert line.startswith(f"rendering the prompt of 'x' failed ({type(error).__name__}")
    assert line.endswith("; use --no-chat-template") and "\n" not in line
    assert found.value.__cause__ is error


def test_a_door_lets_our_own_errors_and_interrupts_pass() -> None:
    for error in (InputError("ours"), Interrupted("run"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as found, door("a step", "a remedy"):
            raise error
        assert found.value is error
