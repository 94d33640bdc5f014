"""Tasks of the harness on local data, and a tiny model with room for their prompts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness_tasks import write_tasks
from tiny import tiny_llama, tiny_tokenizer

from oracle.models import LanguageModel


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of task files."""
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with a context of 512 tokens, saved."""
    folder = tmp_path_factory.mktemp("roomy") / "model"
    tiny_llama(max_position_embeddings=512).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def roomy_model(roomy: Path) -> LanguageModel:
    """The same, loaded."""
    from oracle.models import load_model

    return load_model(str(roomy), device="cpu")


@pytest.fixture(scope="session")
def by_hf(roomy_model: LanguageModel, tasks: Path) -> Callable[..., Any]:
    """Results of the harness's own `hf` model on tasks, as `simple_evaluate` returns them."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)

    def evaluate(*names: str, **how: Any) -> Any:
        lm = HFLM(pretrained=roomy_model.network, tokenizer=roomy_model.tokenizer, batch_size=1)
        return simple_evaluate(
            model=lm, tasks=list(names), task_manager=manager, bootstrap_iters=0, **{"limit": 6, **how}
        )

    return evaluate
