"""What is measured of a tiny model is what the library's own forward gives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import LAYERS
from transformers import DynamicCache

from analysis import measurements as measures
from oracle.allocations import unified
from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.measure import Sizes, measure_run
from oracle.measure.similarity import budget_grid
from oracle.metrics import score_text
from oracle.models import LanguageModel
from oracle.models.layer_call import Call
from oracle.models.truncate import truncated
from oracle.store import Run


@pytest.fixture(scope="module")
def measured(searched: dict[str, Run], tiny_model: LanguageModel, small: Sizes) -> dict[str, Path]:
    """Run folders by scope, with all their tables."""
    for run in searched.values():
        measure_run(run.folder, model=tiny_model, sizes=small)
    return {scope: run.folder for scope, run in searched.items()}


@pytest.fixture(params=["decode", "sequence"])
def scope(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def texts(folder: Path, model: LanguageModel) -> dict[str, tuple[list[int], list[int]]]:
    """Prompt and full output of each sequence, as token ids."""
    run = Run.open(folder)
    engine = Engine(model, SearchConfig.from_dict(run.manifest["config"]))
    full = run.evaluations().query("number == 0").set_index("sequence")["tokens"]
    prompts = run.sequences().set_index("sequence")["prompt"]
    return {name: (engine.encode(prompts[name]), full[name].tolist()) for name in prompts.index}


@torch.inference_mode()
def plain_states(model: LanguageModel, prompt: list[int], output: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """States after each layer, the last one normed, and logits, of one plain forward over prompt and output."""
    found = model.network(torch.tensor([[*prompt, *output]]), output_hidden_states=True)
    return torch.cat(found.hidden_states), found.logits[0]


@torch.inference_mode()
def cut_states(
    model: LanguageModel, prompt: list[int], output: list[int], kept: tuple[int, ...], scope: str
) -> torch.Tensor:
    """Last normed states of the library's own model of the kept layers, at the positions that predict the output."""
    cut = truncated(model.network, [Call(layer) for layer in kept])
    ids = torch.tensor([[*prompt, *output]])
    if scope == "sequence":
        return cut.model(ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
    full = DynamicCache(config=model.network.config)
    model.network(ids[:, : len(prompt)], cache=full, use_cache=True)
    cache = DynamicCache(config=cut.config)
    cache.layers = [full.layers[layer] for layer in kept]
    arguments = {"cache": cache} if kept else {"use_cache": False}
    return cut.model(ids[:, len(prompt) : -1], **arguments).last_hidden_state[0]


def test_at_full_depth_nothing_differs(measured: dict[str, Path], scope: str) -> None:
    table = measures.similarity(measured[scope])
    whole = table[table["budget"] == LAYERS]
    assert set(whole["kind"]) == {"skip", "exit"}
    assert whole["cosine"].to_numpy() == pytest.approx(1.0, abs=1e-12)
    assert (whole["relative_error"] == 0).all()
    assert whole["same_token"].all()
    assert (table.loc[table["budget"] < LAYERS, "relative_error"] > 0.01).all()


def test_budgets_and_positions_are_all_there(measured: dict[str, Path], scope: str, tiny_model: LanguageModel) -> None:
    table = measures.similarity(measured[scope])
    first = 1 if scope == "decode" else 0
    for name, (_, output) in texts(measured[scope], tiny_model).items():
        mine = table[table["sequence"] == name]
        expected = [
            (kind, budget, token)
            for budget in budget_grid(LAYERS, 3)
            for kind in ("skip", "exit")
            for token in range(first, len(output))
        ]
        assert [*mine[["kind", "budget", "token"]].itertuples(index=False, name=None)] == expected


@torch.inference_mode()
def test_exit_is_the_models_own_state_at_that_depth(
    measured: dict[str, Path], scope: str, tiny_model: LanguageModel
) -> None:
    table = measures.similarity(measured[scope]).query("kind == 'exit'")
    for name, (prompt, output) in texts(measured[scope], tiny_model).items():
        states, logits = plain_states(tiny_model, prompt, output)
        for budget, mine in table[table["sequence"] == name].groupby("budget"):
            places = len(prompt) - 1 + mine["token"].to_numpy()
            # The library's last state is normed already.
            state = states[budget] if budget == LAYERS else tiny_model.network.model.norm(states[budget])
            check(mine, state[places], states[-1][places])
            best = tiny_model.network.lm_head(state[places]).argmax(-1)
            assert mine["same_token"].tolist() == (best == logits[places].argmax(-1)).tolist()


def test_skipping_is_what_the_cut_model_computes(
    measured: dict[str, Path], scope: str, tiny_model: LanguageModel
) -> None:
    table = measures.similarity(measured[scope]).query("kind == 'skip'")
    for name, (prompt, output) in [*texts(measured[scope], tiny_model).items()][:2]:
        for budget, mine in table[table["sequence"] == name].groupby("budget"):
            if scope == "sequence" and budget == 0:
                continue
            ours = cut_states(tiny_model, prompt, output, unified(LAYERS, budget), scope)
            full, _ = plain_states(tiny_model, prompt, output)
            check(mine, ours, full[-1][len(prompt) - 1 + mine["token"].to_numpy()])


def check(mine: pd.DataFrame, ours: torch.Tensor, full: torch.Tensor) -> None:
    """Cosine and relative error by numpy, in double precision."""
    a, b = ours.double().numpy(), full.double().numpy()
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    assert mine["cosine"].to_numpy() == pytest.approx(cosine, abs=1e-5)
    error = np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)
    assert mine["relative_error"].to_numpy() == pytest.approx(error, abs=1e-5)


def test_features_are_those_of_one_plain_forward(
    measured: dict[str, Path], scope: str, tiny_model: LanguageModel
) -> None:
    table = measures.features(measured[scope]).set_index("sequence")
    for name, (prompt, output) in texts(measured[scope], tiny_model).items():
        states, logits = plain_states(tiny_model, prompt, output)
        logs = logits[len(prompt) - 1 : -1].double().log_softmax(-1)
        entropy = torch.distributions.Categorical(logits=logs).entropy()
        ordered = logs[0].exp().sort(descending=True).values
        mine = table.loc[name]
        assert (mine["prompt_tokens"], mine["output_tokens"]) == (len(prompt), len(output))
        gold = [float(logs[place, token]) for place, token in enumerate(output)]
        assert mine["log_likelihood"] == pytest.approx(np.mean(gold), abs=1e-5)
        assert mine["entropy"] == pytest.approx(float(entropy.mean()), abs=1e-5)
        assert mine["first_entropy"] == pytest.approx(float(entropy[0]), abs=1e-5)
        assert mine["first_gap"] == pytest.approx(float(ordered[0] - ordered[1]), abs=1e-5)
        middle = states[LAYERS // 2][: len(prompt)].mean(0).numpy()
        assert mine["prompt_state"] == pytest.approx(middle, abs=1e-5)


def test_throughput_names_policies_batches_and_their_quality(
    measured: dict[str, Path], scope: str, tiny_model: LanguageModel
) -> None:
    table = measures.throughput(measured[scope])
    assert [*table[["policy", "speedup", "batch"]].itertuples(index=False, name=None)] == [
        ("full", 1, 1),
        ("full", 1, 3),
        ("unified", 2, 1),
        ("unified", 2, 3),
    ]
    assert (table["tokens_per_second"] > 0).all()
    assert table["fraction"].tolist() == [1.0, 1.0, 2 / LAYERS, 2 / LAYERS]
    run = Run.open(measured[scope])
    engine = Engine(tiny_model, SearchConfig.from_dict(run.manifest["config"]))
    scores = []
    for row in run.sequences().itertuples():
        output = engine.alone(engine.open(row.prompt), unified(LAYERS, 2))
        scores.append(score_text("rougeL", tiny_model.text(output), tuple(row.references)))
    assert table["quality"].tolist()[2:] == pytest.approx([np.mean(scores)] * 2)
    full = run.evaluations().query("number == 0")["rougeL"].mean()
    assert table["quality"].tolist()[:2] == pytest.approx([full] * 2)


def test_more_sequences_than_wanted_are_thinned_evenly(
    run: Run, tiny_model: LanguageModel, small: Sizes, search: Callable[..., Run]
) -> None:
    few = Sizes(budgets=2, sequences=2)
    measure_run(run.folder, model=tiny_model, sizes=few, only=["similarity", "features"], again=True)
    names = run.sequences()["sequence"].tolist()
    assert set(measures.similarity(run.folder)["sequence"]) == {names[0], names[-1]}
    assert measures.features(run.folder)["sequence"].tolist() == names
