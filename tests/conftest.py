"""The fixtures that most tests share. What takes long to import is imported where it is used."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from oracle.utils import consent

if TYPE_CHECKING:
    from oracle.models import LanguageModel
    from oracle.store import Run

# A busy machine is no fault of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def hidden_states_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hidden states that tests keep are not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYER_ORACLE_HIDDEN", str(tmp_path_factory.mktemp("hidden")))
        yield


@pytest.fixture(autouse=True)
def consent_of_one_test() -> Iterator[None]:
    """What a test allows to run, other tests do not, nor do their hints name it."""
    before = set(consent._ALLOWED)
    yield
    consent._ALLOWED.clear()
    consent._ALLOWED.update(before)


@pytest.fixture(scope="session")
def tiny_model() -> "LanguageModel":
    """The tiny Llama, in memory."""
    from tiny import tiny_llama, tiny_tokenizer

    from oracle.models import LanguageModel

    return LanguageModel(name="tiny", network=tiny_llama(), tokenizer=tiny_tokenizer())


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama, saved as a user's model would be."""
    from tiny import tiny_llama, tiny_tokenizer

    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def sequences_file(tmp_path: Path) -> Path:
    """Six short sequences of two tasks."""
    path = tmp_path / "sequences.jsonl"
    lines = [
        f'{{"id": "s{i}", "task": "{"ab"[i % 2]}", "prompt": "Question {i}?", "references": ["Answer {i}", "{i}"]}}'
        for i in range(6)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def search(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> "Callable[..., Run]":
    """Searches six short sequences into a new folder."""
    from tiny import jsonl

    from oracle.config import SearchConfig
    from oracle.pipeline.run import run_search

    rows = [{"id": f"s{i}", "prompt": f"Question {i}?", "references": [f"Answer {i}", f"{i}"]} for i in range(6)]
    data = jsonl(tmp_path_factory.mktemp("data") / "sequences.jsonl", *rows)

    def run(*, out: Path | None = None, **changes: Any) -> "Run":
        how = {name: changes.pop(name) for name in ("prior", "watch", "workers") if name in changes}
        if callable(changes.get("stop")):  # asked after every batch; otherwise the texts at which outputs end
            how["stop"] = changes.pop("stop")
        settings = {"model": str(tiny_folder), "data": data, "max_new_tokens": 6, "evaluations": 20}
        # What a test expects does not depend on whether there is a GPU.
        config = SearchConfig(**{**settings, "device": "cpu", "strategy": "spread", **changes})
        return run_search(config, out or tmp_path_factory.mktemp("runs") / "run", **how)

    return run


@pytest.fixture(scope="session")
def embedded_model() -> "LanguageModel":
    """SmolLM2-135M-Instruct, converted once into the user's cache."""
    from oracle.models import load_model

    return load_model(device="cpu")


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Task files of the harness on local data."""
    from harness_tasks import write_tasks

    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with room for the prompts of tasks: a context of 512 tokens; saved."""
    from tiny import tiny_llama, tiny_tokenizer

    folder = tmp_path_factory.mktemp("roomy") / "model"
    tiny_llama(max_position_embeddings=512).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def roomy_model(roomy: Path) -> "LanguageModel":
    """The same, loaded."""
    from oracle.models import load_model

    return load_model(str(roomy), device="cpu")


@pytest.fixture(scope="session")
def by_hf(roomy_model: "LanguageModel", tasks: Path) -> Callable[..., Any]:
    """Results of the harness's own `hf` model on tasks, as `simple_evaluate` returns them."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)

    def evaluate(*names: str, network: Any = None, **how: Any) -> Any:
        lm = HFLM(pretrained=network or roomy_model.network, tokenizer=roomy_model.tokenizer, batch_size=1)
        return simple_evaluate(
            model=lm, tasks=list(names), task_manager=manager, bootstrap_iters=0, **{"limit": 6, **how}
        )

    return evaluate


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: exit code, standard output, standard error."""
    from oracle.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run
