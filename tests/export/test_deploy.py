"""One allocation of a run as a checkpoint or a recipe: other tools get the layers that the engine ran."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import LAYERS, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer
from zoo import tiny

from oracle.allocations import compact, parse, strip, unified
from oracle.config import EMBEDDED, EMBEDDED_ORIGIN, SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.export import DEPLOYMENTS, deploy
from oracle.export.checkpoint import write_checkpoint
from oracle.models import LanguageModel, load_model
from oracle.pipeline.data import read_sequences
from oracle.store import Run

FAMILIES = ("llama", "gemma3", "gpt2", "mixtral", "gpt-neo", "mistral", "bloom", "qwen2-moe")
KEPT = (0, 2, 3)
TEXTS = (
    "What is the capital of Italy?",
    "Name three colours.",
    "Ünïcode",
    "2 + 2 =",
    *(f"{n} + {n}" for n in range(20)),
)


@pytest.fixture(scope="session")
def run(search) -> Run:
    return search(scope="sequence")


@given(st.lists(st.integers(0, 40), max_size=12))
def test_a_written_allocation_is_read_again(allocation: list[int]) -> None:
    assert parse(compact(allocation)) == tuple(allocation)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "3-1", "-1", "1-", "0-99999999", "1.5", "0:3"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"required|possible"):
        parse(text)


def test_a_strip_shows_each_layer() -> None:
    assert strip((0, 2, 2, 4), 6) == "#.2.#."


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_gives_the_tokens_of_the_engine_in_plain_transformers(family: str, tmp_path: Path) -> None:
    model = LanguageModel(name=family, network=tiny(family), tokenizer=tiny_tokenizer())
    write_checkpoint(tmp_path / "cut", model, KEPT, "# card\n", {}, trust_remote_code=False)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "cut").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "cut")
    engine = Engine(model, SearchConfig(scope="sequence", max_new_tokens=12, chat_template=False))
    full = []
    for text in TEXTS:
        prompt = engine.open(text)
        [(outcome, _), (whole, _)] = engine.generate([(prompt, KEPT), (prompt, tuple(range(LAYERS)))])
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        assert ids[0].tolist() == prompt.tokens.tolist()
        output = loaded.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=0
        )
        assert tuple(output[0, ids.shape[1] :].tolist()) == outcome.tokens
        full.append(whole.tokens == outcome.tokens)
    assert not all(full), "dropping layers changes something"
    assert loaded.config.num_hidden_layers == len(KEPT)


@pytest.mark.slow
def test_a_checkpoint_of_the_embedded_model_gives_the_tokens_of_the_engine(embedded_model, tmp_path: Path) -> None:
    """24 of its 30 layers, on 24 bundled prompts."""
    kept = unified(30, 24)
    write_checkpoint(tmp_path / "cut", embedded_model, kept, "# card\n", {}, trust_remote_code=False)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "cut", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "cut")
    assert len(loaded.model.layers) == 24
    engine = Engine(embedded_model, SearchConfig(scope="sequence", max_new_tokens=16))
    sequences = read_sequences(SearchConfig(limit=24)).sequences
    assert len(sequences) == 24
    prompts = [engine.open(one.prompt) for one in sequences]
    outcomes = engine.generate([(prompt, kept) for prompt in prompts])
    for sequence, prompt, (outcome, _) in zip(sequences, prompts, outcomes, strict=True):
        turns = [{"role": "user", "content": sequence.prompt}]
        inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        assert inputs["input_ids"][0].tolist() == prompt.tokens.tolist()
        output = loaded.generate(**inputs, do_sample=False, max_new_tokens=16)
        assert tuple(output[0, prompt.length :].tolist()) == outcome.tokens


def test_a_path_with_repeats_is_a_checkpoint_too(tmp_path: Path) -> None:
    model = LanguageModel(name="llama", network=tiny("llama"), tokenizer=tiny_tokenizer())
    path = (0, 1, 1, 3, 2, 4)
    write_checkpoint(tmp_path / "cut", model, path, "", {}, trust_remote_code=False)
    engine = Engine(model, SearchConfig(scope="sequence", max_new_tokens=12, chat_template=False))
    [(outcome, _)] = engine.generate([(engine.open("Hello"), path)])
    again = Engine(
        load_model(str(tmp_path / "cut"), device="cpu"),
        SearchConfig(scope="sequence", max_new_tokens=12, chat_template=False),
    )
    [(whole, _)] = again.generate([(again.open("Hello"), tuple(range(len(path))))])
    assert whole.tokens == outcome.tokens


def test_layers_that_depend_on_their_index_are_refused(tmp_path: Path) -> None:
    network = tiny("gpt2", scale_attn_by_inverse_layer_idx=True)
    model = LanguageModel(name="gpt2", network=network, tokenizer=tiny_tokenizer())
    with pytest.raises(InputError, match=r"compute something else under another index .* use oracle\.apply"):
        write_checkpoint(tmp_path / "cut", model, (0, 3), "", {}, trust_remote_code=False)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_what_is_deployed_says_where_it_comes_from_and_how_good_it_is(run: Run, tmp_path: Path) -> None:
    evaluations = run.evaluations()
    metric = run.manifest["config"]["criterion"]
    row = evaluations[evaluations["number"] == 3].iloc[0]
    kept = tuple(row["allocation"].tolist())
    about = deploy(run, "layer-map", tmp_path / "map", kept)
    assert json.loads((tmp_path / "map" / "layers.json").read_text()) == list(kept)
    assert json.loads((tmp_path / "map" / "layer_oracle.json").read_text()) == about
    same = evaluations[evaluations["allocation"].map(lambda one: tuple(one.tolist()) == kept)]
    same = same.drop_duplicates("sequence")
    assert about["measured"]["sequences"] == len(same) > 0
    assert about["measured"]["quality"] == pytest.approx(same[metric].mean())
    card = (tmp_path / "map" / "README.md").read_text()
    assert run.manifest["model"]["fingerprint"] in card and f"{about['measured']['quality']:.3f}" in card


def test_a_recipe_for_each_tool(run: Run, tmp_path: Path) -> None:
    deploy(run, "mergekit", tmp_path / "merge", (0, 1, 3, 3, 4))
    text = (tmp_path / "merge" / "mergekit.yaml").read_text()
    ranges = [line.split(": ")[1] for line in text.splitlines() if "layer_range" in line]
    assert ranges == ["[0, 2]", "[3, 4]", "[3, 5]"], "ends are exclusive"
    assert text.startswith("slices:")
    embedded = Run(run.folder, run.manifest | {"model": run.manifest["model"] | {"id": EMBEDDED}})
    deploy(embedded, "mergekit", tmp_path / "embedded", (0, 1))
    text = (tmp_path / "embedded" / "mergekit.yaml").read_text()
    assert text.startswith(f'# in place of "{EMBEDDED}" give its folder: python -c ')
    card = (tmp_path / "embedded" / "README.md").read_text()
    assert f'base_model: "{EMBEDDED_ORIGIN}"' in card and f'model: "{EMBEDDED}", its weights of 4 bits' in card
    deploy(run, "llama-prune", tmp_path / "prune", (0, 2, 4))
    assert (tmp_path / "prune" / "prune-layers.txt").read_text() == "1,3\n"
    with pytest.raises(InputError, match="repeats or reorders"):
        deploy(run, "llama-prune", tmp_path / "again", (0, 0))


def test_the_snippet_runs_in_plain_transformers(run: Run, tmp_path: Path) -> None:
    kept = (0, 2, 3)
    deploy(run, "transformers-snippet", tmp_path / "snippet", kept)
    found = runpy.run_path(str(tmp_path / "snippet" / "run_layers.py"))
    config = SearchConfig.from_dict(run.manifest["config"])
    engine = Engine(load_model(config.model, device="cpu"), config)
    prompt = engine.open("Question 1?")
    [(outcome, _)] = engine.generate([(prompt, kept)])
    ids = prompt.tokens[None]
    output = found["model"].generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=config.max_new_tokens
    )
    assert tuple(output[0, ids.shape[1] :].tolist()) == outcome.tokens


@pytest.mark.parametrize(
    ("form", "kept", "message"),
    [
        ("checkpont", (0,), "must be one of checkpoint"),
        ("mergekit", (), "at least one of the layers 0 to 4"),
        ("mergekit", (0, 5), "has the layers 0 to 4, but '0,5' names 5"),
        ("llama-prune", tuple(range(LAYERS)), "keeps all"),
    ],
)
def test_what_cannot_be_deployed_is_refused(
    form: str, kept: tuple[int, ...], message: str, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        deploy(run, form, tmp_path / "out", kept)
    assert not list(tmp_path.iterdir())


def test_sublayers_are_refused(search, tmp_path: Path) -> None:
    for form in DEPLOYMENTS:
        with pytest.raises(InputError, match=r"use oracle\.apply"):
            deploy(search(unit="sublayer"), form, tmp_path / form, (0, 1))


@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_a_run_whose_prompts_run_at_full_depth_says_what_its_files_lose(
    scope: str, command, search, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, text, _ = command(
        "export", search(scope=scope).folder, "--format", "layer-map", "--allocation", "0-2", "--out", out
    )
    for said in (text, (out / "README.md").read_text()):
        assert ("the prompt with the same layers (scope sequence)" in said) == (scope == "decode")
    assert code == 0 and ("choose masks for such files by 'oracle static" in text) == (scope == "decode")


def test_the_command_deploys_a_sequences_minimal_allocation(command, search, tmp_path: Path) -> None:
    run, out = search(scope="sequence", criterion="agreement"), tmp_path / "cut"
    table = run.table("minimal_budgets")
    name, minimal = next((row.sequence, row.allocation.tolist()) for row in table.itertuples() if len(row.allocation))
    code, text, _ = command("export", run.folder, "--format", "checkpoint", "--sequence", name, "--out", out)
    assert code == 0 and f"{len(minimal)} of 5 layers" in text and strip(minimal, 5) in text
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == len(minimal)
    code, _, error = command("export", run.folder, "--format", "mergekit", "--out", tmp_path / "x")
    assert code != 0 and "--allocation, --budget or --sequence" in error
    code, _, error = command("export", run.folder, "--format", "jsonl", "--allocation", "0-2", "--out", tmp_path / "x")
    assert code != 0 and "exports the whole run" in error
    code, _, error = command("export", run.folder, "--format", "mergekitt", "--out", tmp_path / "x")
    assert code != 0 and "'mergekit'" in error
