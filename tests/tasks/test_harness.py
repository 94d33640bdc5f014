"""Task files are data: their code runs only if it is allowed, and their templates call nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from harness_tasks import ARC, task_file

pytest.importorskip("lm_eval.api", reason="the extra lm-eval is not installed")

Command = Callable[..., tuple[int, str, str]]

CODE = {
    "process_docs: !function evil.boom": "!function evil.boom",
    "doc_to_text: !function os.system": "!function os.system",
    "metric_list: [{metric: !function evil.boom}]": "!function evil.boom",
    "metric_list: [{metric: of_the_hub}]": "metric of_the_hub",
    "metric_list: [{metric: exact_match, hf_evaluate: true}]": "hf_evaluate",
    "include: ../other/more.yaml": "!function evil.boom",
}

TEMPLATE = """\
task: own
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
output_type: generate_until
test_split: test
doc_to_text: "{text}"
doc_to_target: "x"
{line}
"""


@pytest.fixture
def own_task(tmp_path: Path) -> Callable[..., Path]:
    """Writes a task file with a module that leaves a mark when it is imported."""

    def write(line: str = "", text: str = "{{question}}") -> Path:
        folder = tmp_path / "own"
        other = tmp_path / "other"
        for place in (folder, other):
            place.mkdir(exist_ok=True)
        task_file(folder, "data", "arc/arc_easy.yaml", {"test": ARC})
        (folder / "data.yaml").unlink()
        mark = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef boom(docs): return docs\n"
        for place in (folder, other):
            (place / "evil.py").write_text(mark)
        (other / "more.yaml").write_text("process_docs: !function evil.boom\n")
        values = {"data": folder / "data-test.jsonl", "cache": tmp_path / "cache", "text": text, "line": line}
        (folder / "own.yaml").write_text(TEMPLATE.format(**values))
        return folder

    return write


@pytest.mark.parametrize(("line", "named"), CODE.items())
def test_code_of_task_files_needs_consent(
    own_task: Callable[..., Path], command: Command, roomy: Path, tmp_path: Path, line: str, named: str
) -> None:
    folder = own_task(line)
    code, _, error = command("data", "lm-eval:own", "--include-path", folder, "--model", roomy)
    assert code == 2 and named in error and f"add --trust-code '{folder}'" in error
    assert not (tmp_path / "ran").exists()


def test_code_that_is_allowed_runs(
    own_task: Callable[..., Path], command: Command, roomy: Path, tmp_path: Path
) -> None:
    folder = own_task("process_docs: !function evil.boom")
    given = ("lm-eval:own", "--include-path", folder, "--model", roomy, "--max-new-tokens", 4)
    code, _, error = command("data", *given, "--trust-code", folder)
    assert (code, error) == (0, "")
    assert (tmp_path / "ran").exists()


def test_templates_cannot_call_python(own_task: Callable[..., Path], command: Command, roomy: Path) -> None:
    folder = own_task(text="{{ ''.__class__.__mro__[1].__subclasses__() }}")
    code, _, error = command("data", "lm-eval:own", "--include-path", folder, "--model", roomy)
    assert code == 2 and "unsafe" in error and "Traceback" not in error


def test_bad_places_are_one_line(command: Command, roomy: Path, tmp_path: Path) -> None:
    code, _, error = command("data", "lm-eval:x", "--include-path", tmp_path / "none", "--model", roomy)
    assert code == 2 and "needs a folder with task files" in error
    (tmp_path / "lost.yaml").write_text(
        TEMPLATE.format(data="/nowhere.jsonl", cache=tmp_path / "cache", text="{{q}}", line="").replace("own", "lost")
    )
    code, _, error = command("data", "lm-eval:lost", "--include-path", tmp_path, "--model", roomy)
    assert code == 2 and "needs the data set 'json'" in error and "--include-path" in error


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_code_that_the_model_writes_is_refused(command: Command, roomy: Path, name: str) -> None:
    code, _, error = command("data", f"lm-eval:{name}", "--model", roomy)
    assert code == 2 and "runs code that the model writes" in error
