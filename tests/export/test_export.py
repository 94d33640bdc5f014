"""Runs in other forms: what is written is what the run says, and labels give its outputs again."""

import json
import re
import shutil

import datasets
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import jsonl

from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.export import export, labels_of, path_of
from oracle.store import Run
from oracle.store.index import index_all


@pytest.fixture(scope="session")
def masks(search) -> Run:
    return search()


@pytest.fixture(scope="session")
def paths(search) -> Run:
    return search(strategy="mcts-cola", paths=True, scope="sequence", evaluations=40)


def lines(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def labelled(run, out):
    export(run, "drllm", out)
    return lines(out / "labels.jsonl")


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_labels_and_paths_are_each_others_inverse(labels):
    assert labels_of(path_of(labels), len(labels)) == labels


@pytest.mark.parametrize("allocation", [(1, 0), (0, 1, 0), (2, 2, 2), (0, 1, 0, 1)])
def test_what_labels_cannot_say_has_none(allocation):
    assert labels_of(allocation, 3) is None


def test_labels_are_the_minimal_allocations_of_the_run(masks, tmp_path):
    minimal = masks.table("minimal_budgets").set_index("sequence")
    rows = labelled(masks, tmp_path / "out")
    assert [row["id"] for row in rows] == list(masks.sequences()["sequence"])
    for row in rows:
        assert path_of(row["optimal_layer_config"]) == tuple(minimal.loc[row["id"], "allocation"])
        assert len(row["optimal_layer_config"]) == 5
        assert row["minimal"] is True
        assert row["answer"] == row["references"][0]
    assert [row["question"] for row in rows] == list(masks.sequences()["prompt"])


@pytest.mark.parametrize("name", ["masks", "paths"])
def test_labels_give_the_outputs_of_the_run_again(name, request, tiny_model, tmp_path):
    run = request.getfixturevalue(name)
    rows = labelled(run, tmp_path / "out")
    engine = Engine(tiny_model, SearchConfig.from_dict(run.manifest["config"]))
    requests = [(engine.open(row["question"]), path_of(row["optimal_layer_config"])) for row in rows]
    outputs = [engine.model.text(generation.tokens) for generation, _ in engine.generate(requests)]
    assert outputs == [row["output"] for row in rows]
    tolerance = run.manifest["config"]["tolerance"]
    assert all(row["quality"] >= row["full_quality"] - tolerance for row in rows)


def test_where_labels_cannot_say_the_minimum_the_cheapest_other_stands(paths, tmp_path):
    manifest = export(paths, "drllm", tmp_path / "out")
    rows = lines(tmp_path / "out" / "labels.jsonl")
    minimal = paths.table("minimal_budgets").set_index("sequence")
    differ = [
        row for row in rows if path_of(row["optimal_layer_config"]) != tuple(minimal.loc[row["id"], "allocation"])
    ]
    assert manifest["not_minimal"] == len(differ) == sum(not row["minimal"] for row in rows)
    evaluations = paths.evaluations()
    for row in differ:
        assert labels_of(minimal.loc[row["id"], "allocation"].tolist(), 5) is None
        own = evaluations[(evaluations["sequence"] == row["id"]) & (evaluations["rougeL"] >= row["full_quality"])]
        sayable = [len(one) for one in own["allocation"] if labels_of(one.tolist(), 5) is not None]
        assert sum(row["optimal_layer_config"]) == min(sayable)


def test_the_datasets_library_opens_the_folder(masks, tmp_path):
    export(masks, "hf", tmp_path / "out")
    options = {"cache_dir": str(tmp_path / "cache"), "split": "train"}
    found = datasets.load_dataset(str(tmp_path / "out"), "sequences", **options)
    frontiers = datasets.load_dataset(str(tmp_path / "out"), "frontiers", **options)
    minimal = masks.table("minimal_budgets")
    assert found["sequence"] == list(masks.sequences()["sequence"])
    assert [tuple(one) for one in found["allocation"]] == [tuple(one) for one in minimal["allocation"]]
    assert found["quality"] == list(minimal["quality"])
    wanted = masks.query("SELECT sequence, cost, allocation FROM frontiers").sort_values(["sequence", "cost"])
    assert list(zip(frontiers["sequence"], frontiers["cost"], strict=True)) == list(
        wanted[["sequence", "cost"]].itertuples(index=False, name=None)
    )
    assert [tuple(one) for one in frontiers["allocation"]] == [tuple(one) for one in wanted["allocation"]]


def test_an_object_a_sequence_holds_its_frontier(masks, tmp_path):
    export(masks, "jsonl", tmp_path / "out")
    rows = lines(tmp_path / "out" / "sequences.jsonl")
    assert len(rows) == 6
    for row in rows:
        costs = [point["cost"] for point in row["frontier"]]
        qualities = [point["quality"] for point in row["frontier"]]
        assert costs == sorted(set(costs))
        assert qualities == sorted(set(qualities))
        assert any(point["allocation"] == row["allocation"] for point in row["frontier"]) or row["zero_quality"]
        assert row["upper"] == len(row["allocation"])


def test_answers_among_choices_stay_indices(search, tmp_path):
    chosen = {"id": "a", "prompt": "Which?", "references": [], "choices": ["left", "right"], "answer": 1}
    data = jsonl(tmp_path / "data.jsonl", chosen, {"id": "b", "prompt": "What?", "references": ["this"]})
    run = search(data=data, strategy="families", evaluations=6, criterion="agreement")
    export(run, "jsonl", tmp_path / "jsonl")
    assert [row["answer"] for row in lines(tmp_path / "jsonl" / "sequences.jsonl")] == [1, None]
    assert [row["answer"] for row in labelled(run, tmp_path / "drllm")] == ["right", "this"]
    export(run, "hf", tmp_path / "hf")
    assert pq.read_table(tmp_path / "hf" / "sequences.parquet")["answer"].to_pylist() == [1, None]


@pytest.mark.parametrize("form", ["hf", "drllm", "jsonl"])
def test_where_it_comes_from_travels_with_it(form, masks, tmp_path):
    export(masks, form, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["run"]["model"]["fingerprint"] == masks.manifest["model"]["fingerprint"]
    assert manifest["run"]["config"]["criterion"] == "rougeL"
    assert manifest["sequences"] == 6
    assert manifest["run"]["model"]["fingerprint"] in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("form", ["hf", "drllm", "jsonl"])
def test_the_readme_names_every_field(form, masks, tmp_path):
    export(masks, form, tmp_path / "out")
    files = [path for path in (tmp_path / "out").iterdir() if path.suffix in (".parquet", ".jsonl")]
    tables = [pq.read_table(path).to_pylist() if path.suffix == ".parquet" else lines(path) for path in files]
    fields = {name for rows in tables for name in rows[0]}
    if form == "jsonl":
        fields |= set(tables[0][0]["frontier"][0])
    named = set(re.findall(r"`(\w+)`", (tmp_path / "out" / "README.md").read_text()))
    assert fields <= named


def test_untrusted_text_stays_data(search, tmp_path):
    run = search(strategy="families", evaluations=8)
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["model"]["id"] = "evil`\n---\nconfigs: []\n# <script>"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    index_all(copy)
    export(Run.open(copy), "hf", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "\n# <script>" not in card
    assert card.count("\n---\n") == 1
    assert "Question 1?" not in card


def test_the_command_writes_and_refuses(masks, tmp_path, command, search):
    out = tmp_path / "out"
    code, printed, _ = command("export", masks.folder, "--format", "drllm", "--out", out)
    assert code == 0
    assert str(out / "labels.jsonl") in printed
    code, _, error = command("export", masks.folder, "--format", "drllm", "--out", out)
    assert (code, "already exists" in error) == (2, True)
    code, _, error = command("export", masks.folder, "--format", "csv", "--out", tmp_path / "b")
    assert (code, "hf, drllm, polar, jsonl" in error) == (2, True)
    code, printed, _ = command("export", masks.folder, "--format", "jsonl", "--out", tmp_path / "b", "--json")
    assert json.loads(printed)["sequences"] == 6


def test_labels_are_of_whole_layers(search, tmp_path):
    with pytest.raises(InputError, match="whole layers"):
        export(search(unit="sublayer", evaluations=6), "drllm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_search_that_has_not_ended_is_refused(masks, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(masks.folder, copy)
    for name in ("minimal_budgets.parquet", "summary.json"):
        (copy / name).unlink()
    with pytest.raises(InputError, match="did not end"):
        export(Run.open(copy), "jsonl", tmp_path / "out")


def test_the_trainer_of_drllm_reads_the_minimal_paths(masks: Run, tmp_path) -> None:
    """Read as its released trainer does: one object of parallel lists per file, decisions counted from the path."""
    rows = labelled(masks, tmp_path / "out")
    [path] = sorted((tmp_path / "out" / "train").glob("*.json"))
    raw = json.loads(path.read_text())
    assert raw["model_name"] == masks.manifest["model"]["id"] and "squadv2" not in raw["dataset"].lower()
    told = [row for row in rows if not row["zero_quality"]]
    lists = (raw["questions"], raw["best_path"], raw["best_response"], raw["original_correct"])
    assert {len(one) for one in lists} == {len(told)}
    for row, question, kept, response, right in zip(told, *lists, strict=True):
        assert [kept.count(layer) for layer in range(5)] == row["optimal_layer_config"]
        assert (question, response, right) == (row["question"], row["output"], int(row["full_quality"] > 0.5))


def test_polar_reads_every_evaluated_path_as_valid_or_invalid(paths: Run, tmp_path) -> None:
    export(paths, "polar", tmp_path / "out")
    samples = json.loads((tmp_path / "out" / "samples.json").read_text())["samples"]
    evaluations, metric = paths.evaluations(), paths.manifest["config"]["criterion"]
    assert [one["question_id"] for one in samples] == list(paths.sequences()["sequence"])
    for one in samples:
        mine = evaluations[evaluations["sequence"] == one["question_id"]]
        full = mine.loc[mine["number"] == 0, metric].item()
        assert one["initial_score"] == full
        right = mine[(mine[metric] > 0) & (mine[metric] >= full - 1e-9)]
        assert sorted(map(tuple, one["final_valid_transitions"])) == sorted(map(tuple, right["allocation"]))
        assert len(one["final_valid_transitions"]) + len(one["final_invalid_transitions"]) == len(mine)
