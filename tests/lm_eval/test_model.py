"""The model `layer-oracle`: the full model and cut models score what the harness's own `hf` model scores."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import LAYERS

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.models import LanguageModel
from oracle.pipeline.run import run_search
from oracle.store import Run
from oracle.tasks import TaskOptions

pytest.importorskip("lm_eval.api", reason="the extra lm-eval is not installed")

TASKS = ("gsm_like", "gsm_truncated", "arc_like", "lambada_like", "wikitext_like", "wikitext_long")
ONE_OF_EACH = ("gsm_like", "arc_like", "lambada_like", "wikitext_like")
EVERY = tuple(range(LAYERS))


@pytest.fixture(scope="module")
def run(roomy: Path, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search over six documents of a task."""
    config = SearchConfig(
        model=str(roomy),
        data="lm-eval:arc_like",
        criterion="lm-eval",
        task_options=TaskOptions(include_path=(str(tasks),)),
        limit=6,
        evaluations=12,
        device="cpu",
    )
    return run_search(config, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def ours(roomy_model: LanguageModel, tasks: Path) -> Callable[..., dict[str, Any]]:
    """Results of the model `layer-oracle` on tasks."""
    from oracle.lm_eval import LayerOracle, evaluate_tasks

    def evaluate(*names: str, limit: int = 6, options: dict[str, Any] | None = None, **how: Any) -> dict[str, Any]:
        lm = LayerOracle(model=roomy_model, **how)
        wanted = TaskOptions(include_path=(str(tasks),), **(options or {}))
        return evaluate_tasks(lm, names, wanted, limit=limit, bootstrap=0, samples=True)

    return evaluate


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every score, and every document's outputs and metrics."""
    assert found["results"].keys() == expected["results"].keys()
    for task, values in expected["results"].items():
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        assert {name: found["results"][task][name] for name in numbers} == pytest.approx(numbers, rel=1e-4), task
        ours, theirs = found["samples"][task], expected["samples"][task]
        assert [one["arguments"] for one in ours] == json.loads(json.dumps([one["arguments"] for one in theirs]))
        for one, other in zip(ours, theirs, strict=True):
            for response, wanted in zip(one["resps"], other["resps"], strict=True):
                for value, right in zip(response, wanted, strict=True):
                    if isinstance(right, tuple):
                        assert value[0] == pytest.approx(right[0], rel=1e-4) and value[1] == right[1]
                    elif isinstance(right, str):
                        assert value == right
                    else:
                        assert value == pytest.approx(right, rel=1e-4)


def cut(network: Any, layers: tuple[int, ...]) -> Any:
    """A copy of a model that really has those layers only."""
    from torch import nn

    shorter = copy.deepcopy(network)
    kept = [shorter.model.layers[layer] for layer in layers]
    for place, layer in enumerate(kept):
        layer.self_attn.layer_idx = place
    shorter.model.layers = nn.ModuleList(kept)
    shorter.config.num_hidden_layers = len(kept)
    return shorter


def test_the_full_model_is_the_harness_s_hf_model(
    ours: Callable[..., dict[str, Any]], by_hf: Callable[..., Any]
) -> None:
    found = ours(*TASKS)
    assert_equal(found, by_hf(*TASKS))
    cost = found["layer_oracle"]["cost"]
    assert cost["loglikelihood"]["executed_fraction"] == cost["generate_until"]["executed_fraction"] == 1
    assert cost["generate_until"]["truncated"] == 6, "contexts that leave no room for 400 tokens are cut, as there"
    assert cost["generate_until"]["requests"] == 12 and cost["generate_until"]["tokens_per_second"] > 0


@pytest.mark.parametrize("layers", [(0, 2, 4), (1,)], ids=str)
def test_an_allocation_of_all_tokens_is_the_cut_model(
    ours: Callable[..., dict[str, Any]],
    by_hf: Callable[..., Any],
    roomy_model: LanguageModel,
    layers: tuple[int, ...],
) -> None:
    written = "+".join(map(str, layers))
    found = ours(*ONE_OF_EACH, scope="sequence", allocation=written)
    assert_equal(found, by_hf(*ONE_OF_EACH, network=cut(roomy_model.network, layers)))
    for spent in found["layer_oracle"]["cost"].values():
        assert spent["executed_fraction"] == spent["end_to_end_fraction"] == pytest.approx(len(layers) / LAYERS)
    assert found["layer_oracle"]["policy"] == "allocation " + ",".join(map(str, layers))


def test_examples_and_templates_are_the_same(
    ours: Callable[..., dict[str, Any]], by_hf: Callable[..., Any], roomy_model: LanguageModel
) -> None:
    roomy_model.tokenizer.chat_template = (
        "{% for one in messages %}<{{ one.role }}>{{ one.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    try:
        options = {"num_fewshot": 1, "fewshot_seed": 5, "apply_chat_template": True}
        how = {"num_fewshot": 1, "fewshot_random_seed": 5, "apply_chat_template": True, "fewshot_as_multiturn": True}
        found = ours("gsm_like", "arc_like", options=options, limit=3)
        assert_equal(found, by_hf("gsm_like", "arc_like", limit=3, **how))
        assert "<assistant>" in found["samples"]["gsm_like"][0]["arguments"][0][0]
    finally:
        roomy_model.tokenizer.chat_template = None


def test_the_oracle_replays_the_run(ours: Callable[..., dict[str, Any]], run: Run) -> None:
    found = ours("arc_like", run=run.folder, oracle="minimal")
    minimal, spent = run.table("minimal_budgets").set_index("sequence"), found["layer_oracle"]["cost"]["loglikelihood"]
    # Weighted by the tokens of each document's choices, which are as many for each.
    assert spent["executed_fraction"] == pytest.approx(minimal["upper"].mean() / LAYERS)
    best = run.evaluations().merge(minimal.reset_index()[["sequence", "number"]], on=["sequence", "number"])
    assert found["results"]["arc_like"]["acc,none"] == pytest.approx(best["lm-eval:acc"].mean())
    with pytest.raises(InputError, match="one of the 6 prompts of the oracle's run is required"):
        ours("lambada_like", run=run.folder, oracle=True)


CONTROLLERS = [
    ({"controller": "unified", "speedup": 2.0}, 0.4),
    ({"controller": "d3", "alpha": 0.95}, None),
    ({"controller": "static", "layers": 4}, None),
]


@pytest.mark.parametrize(("how", "fraction"), CONTROLLERS, ids=lambda one: str(one)[:30])
def test_controllers_decide(
    ours: Callable[..., dict[str, Any]], run: Run, how: dict[str, Any], fraction: float | None
) -> None:
    found = ours("arc_like", "gsm_like", run=run.folder, limit=3, **how)["layer_oracle"]
    for spent in found["cost"].values():
        assert spent["executed_fraction"] < 1
        assert spent["executed_fraction"] < spent["end_to_end_fraction"] < 1
        assert fraction is None or spent["executed_fraction"] == pytest.approx(fraction)
    assert found["trained_on_the_run"] == (how["controller"] == "static")


BAD = [
    ({"controller": "unified"}, "'unified' needs other settings than none.*speedup=1.25"),
    ({"controller": "unified", "layers": 3}, "needs other settings than layers=3"),
    ({"controller": "unifed", "speedup": 2}, "nearest: 'unified'"),
    ({"allocation": "0-9"}, "0"),
    ({"allocation": "0-2", "oracle": True}, "exclude each other"),
    ({"speedup": 2}, "speedup=2 need a controller"),
    ({"controller": "static", "layers": 4}, "'static' needs a run"),
]


@pytest.mark.parametrize(("how", "message"), BAD, ids=lambda one: str(one)[:40])
def test_bad_choices_are_one_line(ours: Callable[..., dict[str, Any]], how: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ours("arc_like", **how)


def test_rolling_texts_need_another_scope_than_decode_last(ours: Callable[..., dict[str, Any]]) -> None:
    assert ours("arc_like", scope="decode-last", allocation="0+1")["layer_oracle"]["scope"] == "decode-last"
    with pytest.raises(InputError, match=r"at least 2 tokens.*--scope sequence"):
        ours("wikitext_like", scope="decode-last")


def test_the_command_writes_scores_with_what_they_cost(
    run: Run, tasks: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    given = ("eval", run.folder, "--tasks", "arc_like", "--include-path", tasks, "--limit", 3, "--quiet")
    code, out, error = command(*given, "--controller", "unified", "--setting", "speedup=2", "--json")
    assert (code, error) == (0, "") and json.loads(out)["policy"] == "unified speedup=2"
    path = run.folder / "lm_eval" / "arc_like-unified-speedup=2-decode.json"
    results = json.loads(path.read_text())
    assert results["layer_oracle"]["cost"]["loglikelihood"]["executed_fraction"] == pytest.approx(0.4)
    assert results["results"]["arc_like"]["sample_len"] == 3 and "samples" not in results
    code, out, error = command(*given, "--allocation", "0-2,4")
    assert (code, error) == (0, "")
    assert "allocation 0-2,4" in out and "80.0 % of the layers" in out and "acc_norm" in out
    code, out, _ = command(*given, "--oracle", "--csv")
    assert code == 0 and out.splitlines()[0] == "task,metric,filter,value,stderr,documents"
    code, out, _ = command("check", run.folder)
    assert code == 0, out
    for extra, message in (
        (("--setting", "speedup=2"), "needs --controller NAME"),
        (("--tasks", "arc_lik"), "nearest: 'arc_"),
        (("--limit", 0), "--limit needs at least 1"),
        (("--oracle", "best"), "the policy must be one of"),
    ):
        code, _, error = command(*given, *extra)
        assert code == 2 and message in error


@pytest.mark.slow
def test_the_harness_s_own_command_line_knows_the_model(run: Run, tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = f"run={run.folder},controller=unified,speedup=2"
    options = {"--model": "layer-oracle", "--model_args": arguments, "--tasks": "arc_like", "--limit": "3"}
    options |= {"--include_path": str(tasks), "--output_path": str(out)}
    done = subprocess.run(
        [sys.executable, "-m", "oracle.lm_eval", "run", *(word for pair in options.items() for word in pair)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [path] = out.rglob("results*.json")
    results = json.loads(path.read_text())
    spent = results["config"]["layer_oracle"]["cost"]["loglikelihood"]
    assert spent["executed_fraction"] == pytest.approx(0.4)
    assert results["results"]["arc_like"]["acc,none"] >= 0
