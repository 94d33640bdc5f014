"""The oracle as a controller gives back what its run recorded, token for token."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import LAYERS, jsonl, tiny_llama, tiny_tokenizer

from oracle.config import SearchConfig
from oracle.controllers import OracleController
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel, load_model
from oracle.store import Run
from oracle.store.index import index_all

TABLES = {"equal_quality": "assignment", "minimal": "minimal_budgets"}


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> LanguageModel:
    return load_model(str(tiny_folder), device="cpu")


@pytest.fixture(scope="module", params=["decode", "sequence"])
def run(request: pytest.FixtureRequest, search: Callable[..., Run]) -> Run:
    return search(criterion="agreement", tolerance=0.3, evaluations=32, scope=request.param)


def recorded(run: Run, policy: str) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], str]]:
    """For each prompt the layers chosen, and the tokens and the text that the search saw with them."""
    chosen = run.table(TABLES[policy])[["sequence", "number"]]
    rows = chosen.merge(run.evaluations(), on=["sequence", "number"]).merge(run.sequences(), on="sequence")
    return {
        row.prompt: (tuple(row.allocation.tolist()), tuple(row.tokens.tolist()), row.text) for row in rows.itertuples()
    }


@pytest.mark.parametrize("policy", TABLES)
def test_replay_gives_the_recorded_outputs_in_any_order_and_repeated(run: Run, policy, model: LanguageModel) -> None:
    expected = recorded(run, policy)
    assert len(expected) == 6
    assert len({allocation for allocation, _, _ in expected.values()}) > 1
    controller = OracleController.from_run(run.folder, policy=policy, model=model)
    names = list(expected)
    for prompts in (names, names[::-1], [*names[:3], *names[1:], names[0]], names[2:3], []):
        outcomes = controller.generate(prompts)
        assert [(o.allocation, o.tokens, o.text) for o in outcomes] == [expected[prompt] for prompt in prompts]
        assert all(outcome.family == "oracle" and outcome.cost == len(outcome.allocation) for outcome in outcomes)


def test_the_policies_differ(run: Run) -> None:
    assert recorded(run, "equal_quality") != recorded(run, "minimal")


def test_the_model_is_loaded_by_the_name_in_the_run(run: Run) -> None:
    controller = OracleController.from_run(str(run.folder))
    [prompt, *_] = recorded(run, "equal_quality")
    [outcome] = controller.generate([prompt])
    assert outcome.tokens == recorded(run, "equal_quality")[prompt][1]


def test_the_allocation_of_a_prompt_can_be_asked_for(run: Run, model: LanguageModel) -> None:
    controller = OracleController.from_run(run.folder, policy="minimal", model=model)
    for prompt, (allocation, _, _) in recorded(run, "minimal").items():
        assert controller.allocation(prompt) == allocation
        assert all(type(layer) is int for layer in controller.allocation(prompt))


def test_a_prompt_that_the_run_has_not_seen_is_refused(run: Run, model: LanguageModel) -> None:
    controller = OracleController.from_run(run.folder, model=model)
    for prompt in ("Question 7?", "", "Question 1? "):
        with pytest.raises(
            InputError, match=rf"one of the 6 prompts of .* is required, got '{prompt[:9]}.*search that"
        ):
            controller.generate(["Question 1?", prompt])


def test_of_sequences_that_share_a_prompt_the_first_counts(
    search: Callable[..., Run], model: LanguageModel, tmp_path: Path
) -> None:
    engine = Engine(model, SearchConfig(max_new_tokens=6))
    full = model.text(engine.alone(engine.open("Question 0?"), tuple(range(LAYERS))))
    rows = [{"id": name, "prompt": "Question 0?", "references": [text]} for name, text in (("a", full), ("b", "zzz"))]
    run = search(data=jsonl(tmp_path / "d.jsonl", *rows), criterion="chrf", evaluations=32)
    first, second = (tuple(allocation.tolist()) for allocation in run.table("minimal_budgets")["allocation"])
    assert first != second
    controller = OracleController.from_run(run.folder, policy="minimal", model=model)
    assert controller.allocation("Question 0?") == first


def test_the_same_architecture_with_other_weights_is_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    tiny_llama(seed=1).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    with pytest.raises(InputError, match=r"but '.*other' has .*; restore the run's model"):
        OracleController.from_run(run.folder, model=load_model(str(folder), device="cpu"))


def test_another_precision_is_refused(run: Run, tiny_folder: Path) -> None:
    with pytest.raises(InputError, match=r"but '.*tiny' has .*; restore the run's model"):
        OracleController.from_run(run.folder, model=load_model(str(tiny_folder), dtype="bfloat16", device="cpu"))


def test_an_unknown_policy_is_refused(run: Run, model: LanguageModel) -> None:
    with pytest.raises(InputError, match="one of equal_quality, minimal, not 'best'"):
        OracleController.from_run(run.folder, policy="best", model=model)  # type: ignore[arg-type]


def test_what_is_no_finished_run_is_refused(run: Run, model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a run folder is required"):
        OracleController.from_run(tmp_path, model=model)
    unfinished = shutil.copytree(run.folder, tmp_path / "run")
    (unfinished / "assignment.parquet").unlink()
    with pytest.raises(InputError, match="has no assignment: its file is missing"):
        OracleController.from_run(unfinished, model=model)


@pytest.mark.parametrize("change", [{"depth": 3}, {"columns": None}, {"columns": {"prompts": "x"}}])
def test_settings_of_another_version_are_refused(run: Run, model, tmp_path: Path, change: dict) -> None:
    other = shutil.copytree(run.folder, tmp_path / "run")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["config"].update(change)
    (other / "manifest.json").write_text(json.dumps(manifest))
    index_all(other)
    with pytest.raises(InputError, match="the run's settings do not fit this version of layer-oracle"):
        OracleController.from_run(other, model=model)
