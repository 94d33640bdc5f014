"""Studies of optuna are named by all that the value of a trial depends on."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from templates import TURNS
from tiny import jsonl, tiny_llama, tiny_tokenizer

from oracle.errors import InputError
from oracle.pipeline.run import resume_search
from oracle.store import Run

Search = Callable[..., Run]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('studies')}/trials.db"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [{"id": f"s{i}", "prompt": f"Question {i}?", "references": [f"{i}"]} for i in range(2)]
    return jsonl(tmp_path_factory.mktemp("data") / "d.jsonl", *rows)


@pytest.fixture(scope="module")
def sample(search: Search, storage: str, data: str) -> Callable[..., Run]:
    def run(**changes: object) -> Run:
        settings = {"strategy": "tpe", "evaluations": 3, "max_new_tokens": 3, "data": data, "limit": 1}
        return search(**{**settings, "study": storage, **changes})

    return run


def names(storage: str) -> list[str]:
    import optuna

    with warnings.catch_warnings(action="ignore"):
        return sorted(optuna.get_all_study_names(storage))


@pytest.fixture(scope="module")
def first(sample: Callable[..., Run]) -> Run:
    return sample()


@pytest.mark.parametrize(
    "changes",
    [
        {"criterion": "chrf"},
        {"tolerance": 0.1},
        {"scope": "sequence"},
        {"unit": "sublayer"},
        {"cost": "flops"},
        {"max_new_tokens": 4},
        {"strategy": "motpe"},
        {"prune": True},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
def test_another_setting_has_a_study_of_its_own(first: Run, sample, storage: str, changes: dict[str, object]) -> None:
    before = names(storage)
    sample(**changes)
    assert len(set(names(storage)) - set(before)) == 1


def test_another_model_prompt_reference_or_template_has_a_study_of_its_own(
    first: Run, sample, storage: str, tmp_path: Path
) -> None:
    before = names(storage)
    tiny_llama(seed=1).save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    (tmp_path / "mine.jinja").write_text(TURNS)
    rows = [
        {"id": "s0", "prompt": "Question 0?", "references": ["0"]},
        {"id": "s1", "prompt": "x", "references": ["1"]},
    ]
    other_prompt = jsonl(tmp_path / "p.jsonl", {**rows[0], "prompt": "Question 9?"}, rows[1])
    other_reference = jsonl(tmp_path / "r.jsonl", {**rows[0], "references": ["9"]}, rows[1])
    for changes in (
        {"model": str(tmp_path / "other")},
        {"chat_template": str(tmp_path / "mine.jinja")},
        {"chat_template": str(tmp_path / "mine.jinja"), "system": "Be brief."},
        {"data": other_prompt},
        {"data": other_reference},
    ):
        sample(**changes)
    new = set(names(storage)) - set(before)
    assert len(new) == 5
    assert all(name.startswith("s0 ") for name in new)


def test_the_same_search_continues_its_study_whatever_its_effort(
    first: Run, sample, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(storage)
    sample(evaluations=5, seed=3, batch_rows=7)
    (first.folder / "summary.json").unlink()
    with pytest.raises(InputError, match=r"add --study 'sqlite:.*' to confirm that"):
        resume_search(first.folder)
    resume_search(first.folder, settings={"study": storage})
    assert names(storage) == before
    sample(limit=2)
    assert [name.split()[0] for name in set(names(storage)) - set(before)] == ["s1"]
