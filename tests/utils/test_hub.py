import datasets
import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError

from oracle.utils.hub import quick_hub


def offline() -> tuple[bool, bool]:
    return constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


def answer(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[object]:
    asked: list[object] = []

    def repo_info(self: object, name: str, *, repo_type: str, timeout: float) -> None:
        asked.append((name, repo_type, timeout))
        if error:
            raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)
    return asked


def test_a_hub_that_does_not_answer_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, OSError("no route"))
    with quick_hub("org/set", "dataset"):
        assert offline() == (True, True)
    assert offline() == (False, False)
    with pytest.raises(KeyError), quick_hub("org/model", "model"):
        assert offline() == (True, False)
        raise KeyError
    assert offline() == (False, False)
    assert asked == [("org/set", "dataset", 5.0), ("org/model", "model", 5.0)]


@pytest.mark.parametrize("error", [None, HFValidationError("no such name")])
def test_a_hub_that_answers_is_used(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    asked = answer(monkeypatch, error)
    with quick_hub("org/set", "dataset"):
        assert offline() == (False, False)
    assert len(asked) == 1


def test_local_names_and_offline_mode_ask_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    asked = answer(monkeypatch, OSError("no route"))
    with quick_hub(str(tmp_path), "model"):
        assert offline() == (False, False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with quick_hub("org/model", "model"):
        assert offline() == (True, False)
    assert asked == []
