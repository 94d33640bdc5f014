"""Searches of a model whose `generation_config` changes greedy decoding: printed, recorded, verified, resumed."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny import LAYERS, jsonl, tiny_llama, tiny_tokenizer
from transformers import AutoModelForCausalLM

import oracle
from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.pipeline.run import resume_search
from oracle.store import Run
from oracle.store.index import index_all

SETTINGS = {
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 3,
    "min_new_tokens": 2,
    "temperature": 0.6,
    "num_beams": 4,
}
LINES = [
    "Full model: generation_config sets repetition_penalty 1.3, no_repeat_ngram_size 3, min_new_tokens 2; honoured",
    "generation_config: num_beams=4 is not used (greedy decoding)",
    "generation_config: temperature=0.6: for sampling only; decoding is greedy",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama, saved with settings of generation."""
    folder = tmp_path_factory.mktemp("model") / "penalised"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | SETTINGS))
    return folder


def watching(lines: list[str]) -> Callable[..., Any]:
    @contextmanager
    def watch(description: str, total: int) -> Iterator[Callable[[int, str], None]]:
        if not total:
            lines.append(description)
        yield lambda count, remark: None

    return watch


@pytest.fixture(scope="module")
def run(folder, search) -> tuple[Run, list[str]]:
    lines: list[str] = []
    return search(model=str(folder), stop=("g", "W"), max_new_tokens=8, watch=watching(lines)), lines


def test_one_line_each_says_what_is_honoured_and_what_is_not(run) -> None:
    _, lines = run
    *said, plan = lines[1:]
    assert said == [*LINES, "Outputs end at 'g', 'W'; the scored text ends before it"]
    assert " on " in plan and "cores" in plan


def test_the_manifest_records_the_settings(run) -> None:
    manifest = run[0].manifest["generation"]
    assert manifest["honoured"] == {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "min_new_tokens": 2}
    assert manifest["not_used"] == {"num_beams": {"value": 4, "reason": "greedy decoding"}}
    assert manifest["sampling_not_used"] == {"temperature": 0.6}
    assert manifest["stop_texts"] == ["g", "W"]
    assert manifest["end_tokens"] == [256]
    assert run[0].manifest["config"]["stop"] == ["g", "W"]


def test_every_reported_allocation_is_verified_and_the_full_model_is_generate(run, folder) -> None:
    found = run[0]
    summary = found.summary()
    assert summary["verified"] == summary["verified_of"] > 0
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    evaluations = found.evaluations()
    full = evaluations[evaluations["number"] == 0].set_index("sequence")
    for row in found.sequences().to_dict("records"):
        ids = torch.tensor([tiny_tokenizer()(row["prompt"])["input_ids"]])
        plain = network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=1,
            max_new_tokens=8,
            stop_strings=["g", "W"],
            tokenizer=tiny_tokenizer(),
        )
        assert full.loc[row["sequence"], "tokens"].tolist() == plain[0, ids.shape[1] :].tolist()
    assert not evaluations["text"].str.contains("g|W").any()


def test_the_oracle_is_replayed_token_for_token(run) -> None:
    controller = oracle.OracleController.from_run(run[0].folder, policy="minimal")
    minimal = run[0].table("minimal_budgets").set_index("sequence")
    evaluations = run[0].evaluations().set_index(["sequence", "number"])
    for row in run[0].sequences().to_dict("records"):
        [output] = controller.generate([row["prompt"]])
        stored = evaluations.loc[(row["sequence"], minimal.loc[row["sequence"], "number"])]
        assert output.tokens == tuple(stored["tokens"].tolist())
        assert output.text == stored["text"]


def test_speed_is_measured_with_whole_batches(run, tmp_path) -> None:
    from oracle.measure import Sizes, measure_run

    copy = tmp_path / "run"
    shutil.copytree(run[0].folder, copy)
    found = measure_run(copy, only=["throughput"], sizes=Sizes(batches=(2,), speedups=(2,), rounds=1, new_tokens=6))
    assert (pd.read_parquet(found["throughput"])["tokens_per_second"] > 0).all()


def test_a_changed_generation_config_is_refused_on_resuming(run, folder, tmp_path) -> None:
    model, copy = tmp_path / "model", tmp_path / "run"
    shutil.copytree(folder, model)
    shutil.copytree(run[0].folder, copy)
    (copy / "summary.json").unlink()
    for part in (copy / "certificates").glob("*.parquet"):
        part.unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["config"]["model"] = str(model)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    index_all(copy)
    path = model / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"repetition_penalty": 1.2}))
    with pytest.raises(InputError, match=r"decoded under a generation_config with honoured .*1\.3.*now has .*1\.2"):
        resume_search(copy)
    with pytest.raises(InputError, match="restore the model's generation_config"):
        oracle.OracleController.from_run(copy)


def test_a_search_starts_only_from_a_run_of_the_same_settings(run, folder, search, tmp_path) -> None:
    with pytest.raises(InputError, match=r"has the generation config on: .* not off"):
        search(model=str(folder), prior=run[0].folder, stop=("g", "W"), max_new_tokens=8, generation_config=False)
    with pytest.raises(InputError, match="has the stop"):
        search(model=str(folder), prior=run[0].folder, stop=("g",), max_new_tokens=8)
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    path = model / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"repetition_penalty": 1.2}))
    with pytest.raises(InputError, match=r"generation settings \(honoured\)"):
        search(model=str(model), prior=run[0].folder, stop=("g", "W"), max_new_tokens=8)


def test_runs_of_earlier_versions_are_read_as_plain_greedy_ones() -> None:
    stored = SearchConfig().to_dict()
    del stored["generation_config"], stored["stop"]
    config = SearchConfig.from_dict(stored)
    assert not config.generation_config
    assert config.stop == ()


def test_same_output_and_pruning_searches_are_verified_under_penalties(folder, search) -> None:
    for changes in ({"criterion": "agreement"}, {"criterion": "rougeL", "prune": True, "scope": "sequence"}):
        summary = search(model=str(folder), max_new_tokens=6, stop=("g",), **changes).summary()
        assert summary["verified"] == summary["verified_of"] > 0


def test_the_command_line_takes_stop_texts(folder, tmp_path, command) -> None:
    data = jsonl(tmp_path / "data.jsonl", {"prompt": "Question 1?", "references": ["one"]})
    fixed = ["--data", data, "--evaluations", "4", "--max-new-tokens", "6", "--device", "cpu", "--no-figures", "--json"]
    out = tmp_path / "run"
    code, printed, said = command(
        "search", "--model", folder, "--stop", r"\n\n", "--stop", "Q:", "--no-generation-config", "--out", out, *fixed
    )
    assert code == 0, said
    assert json.loads(printed)["verified"] == json.loads(printed)["verified_of"]
    assert Run.open(out).manifest["config"]["stop"] == ["\n\n", "Q:"]
    assert "left out (--no-generation-config)" in said
    assert r"Outputs end at '\n\n', 'Q:'" in said
    code, _, said = command("search", "--model", folder, "--stop", "", "--out", tmp_path / "no", *fixed)
    assert code == 2
    assert "--stop needs a text of at least one character" in said
    assert not (tmp_path / "no").exists()


def test_a_cache_that_is_dropped_half_way_is_refused_before_the_search(tmp_path, search, monkeypatch) -> None:
    from zoo import GATED, ZOO, tiny

    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope["original_max_position_embeddings"] = 14
    settings = {**GATED, "original_max_position_embeddings": 14, "rope_parameters": rope, "pad_token_id": 257}
    monkeypatch.setitem(ZOO, "longrope", ("Phi3", settings))
    tiny("longrope").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=r"sequence 's0': a prompt of 11 tokens and 5 new tokens .* cross 14 tokens"):
        search(model=str(tmp_path / "model"), out=tmp_path / "run", max_new_tokens=6)
    assert not (tmp_path / "run").exists()
    found = search(model=str(tmp_path / "model"), out=tmp_path / "run", max_new_tokens=4).summary()
    assert found["verified"] == found["verified_of"]
    assert len(tiny("longrope").model.layers) == LAYERS
