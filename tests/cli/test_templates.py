"""Chat templates on the command line: what is refused in one line, and what options do."""

from collections.abc import Callable
from pathlib import Path

import pytest
from templates import DEMANDING, THINKING, TURNS, save_model
from tiny import jsonl

from oracle.store import Run

Command = Callable[..., tuple[int, str, str]]

MODELS = {
    "thinking": THINKING,
    "named": {"short": "S" + TURNS, "long": "L" + TURNS},
    "demanding": DEMANDING,
    "broken": "{% for m in messages %}{{ m.content }}",
    "failing": "{{ messages[0].nothing.at.all }}",
    "none": None,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {name: save_model(folder / name, template) for name, template in MODELS.items()}


@pytest.fixture
def search(models: dict[str, str], command: Command, tmp_path: Path) -> Command:
    data = jsonl(tmp_path / "d.jsonl", *({"prompt": f"Hi {i}", "references": ["x"]} for i in range(2)))
    small = ["--max-new-tokens", 2, "--evaluations", 2, "--strategy", "spread", "--quiet", "--no-figures", "--no-cache"]
    common = ["--data", data, "--out", tmp_path / "run", "--device", "cpu", *small]

    def run(model: str, *options: object) -> tuple[int, str, str]:
        return command("search", "--model", models[model], *common, *options)

    return run


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("named", [], "has the chat templates long, short and no default; choose one with --chat-template NAME"),
        ("named", ["--chat-template", "shrt"], "nearest: 'short'"),
        ("demanding", [], "a system turn comes first); if it demands a system turn, give one with --system TEXT"),
        ("broken", [], "is no valid jinja template (TemplateSyntaxError"),
        ("failing", [], "UndefinedError"),
        ("none", ["--system", "x"], "--system needs a chat template, but the tokenizer has none"),
        ("none", ["--template-arg", "a=1"], "--template-arg needs a chat template"),
        ("thinking", ["--chat-template", "missing.jinja"], "'missing.jinja' (No such file or directory)"),
    ],
)
def test_what_cannot_be_rendered_is_one_line_with_the_remedy(
    search: Command, tmp_path: Path, model: str, options: list[str], message: str
) -> None:
    code, _, said = search(model, *options)
    assert (code, said.count("\n")) == (2, 1)
    assert message in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "options", "rendered"),
    [
        ("named", ["--chat-template", "long"], "L<user>Hi 0"),
        ("named", ["--no-chat-template"], "Hi 0"),
        ("demanding", ["--system", "Be brief."], "<system>Be brief.<user>Hi 0"),
        ("thinking", ["--template-arg", "enable_thinking=false"], "<user>Hi 0<assistant><none>"),
        ("thinking", ["--system", "S", "--template-arg", "enable_thinking=true"], "<system>S<user>Hi 0<assistant>"),
        ("broken", ["--no-chat-template"], "Hi 0"),
    ],
)
def test_options_decide_what_the_model_reads(
    search: Command, tmp_path: Path, model: str, options: list[str], rendered: str
) -> None:
    code, _, said = search(model, *options)
    assert (code, said) == (0, "")
    run = Run.open(tmp_path / "run")
    assert run.sequences()["rendered"][0] == rendered
    assert run.summary()["verified"] == run.summary()["verified_of"]


def test_a_template_in_a_file_is_recorded(search: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("M" + TURNS)
    code, _, said = search("none", "--chat-template", tmp_path / "mine.jinja", "--system", "S")
    assert (code, said) == (0, "")
    manifest = Run.open(tmp_path / "run").manifest
    assert (manifest["config"]["chat_template"], manifest["config"]["system"]) == (str(tmp_path / "mine.jinja"), "S")
    assert manifest["prompts"]["template"] == f"the chat template in '{tmp_path / 'mine.jinja'}'"
    assert len(manifest["prompts"]["template_digest"]) == 16
