"""`oracle static`: the values of the curve are recomputed from the engine, training and held-out apart."""

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny import jsonl
from transformers import DynamicCache

import oracle
from analysis.luck.kept import quality_kept
from oracle.allocations import compact
from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import load_model
from oracle.pipeline.reload import searched_sequences
from oracle.static import Plan, chosen_mask, find_static
from oracle.store import Run

LAYERS = 5
PLAN = Plan(budgets=(4.0, 2.0), evaluations=8, timed=False)


@pytest.fixture(scope="session")
def run(search) -> Run:
    return search(criterion="agreement", evaluations=6)


@pytest.fixture(scope="session")
def curve(run: Run):
    return find_static(run.folder, PLAN)


def engine_of(run: Run) -> Engine:
    config = SearchConfig.from_dict(run.manifest["config"])
    return Engine(load_model(config.model, device="cpu"), config)


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("unit", ["layer", "sublayer"])
def test_divergence_is_that_of_the_cut_model(scope: str, unit: str, tiny_model) -> None:
    engine = Engine(tiny_model, SearchConfig(scope=scope, unit=unit, max_new_tokens=8, chat_template=False))
    prompt, every = engine.open("Hello there"), tuple(range(engine.units.count))
    [(full, _)] = engine.generate([(prompt, every)])
    masks = [every[:-2], every[1:], (0, 2), ()] if scope == "decode" else [every[:-2], every[1:], (0, 2)]
    found = engine.divergences(prompt, [*masks, every], full.tokens)
    assert found[-1] == pytest.approx(0, abs=1e-6)

    def log_p(mask: tuple[int, ...]) -> torch.Tensor:
        """Distributions of the library's own forward on the user's model."""
        ids, tokens = prompt.tokens[None], torch.tensor([full.tokens])
        with torch.inference_mode(), oracle.apply(engine.model, mask, scope=scope, unit=unit) as network:
            cache = DynamicCache()
            first = network(ids, cache=cache).logits[:, -1:]
            logits = network(tokens[:, :-1], cache=cache).logits
        logits = logits if scope == "decode" else torch.cat([first, logits], 1)
        return logits[0].double().log_softmax(-1)

    full_TV = log_p(every)
    for mask, value in zip(masks, found, strict=False):
        if mask:
            mine_TV = log_p(mask)
            expected = (full_TV.exp() * (full_TV - mine_TV)).sum(-1).mean()
            assert value == pytest.approx(float(expected), abs=1e-5)
            assert value > 0


def test_training_and_held_out_sequences_are_apart(curve, run: Run) -> None:
    ids = set(run.sequences()["sequence"])
    assert set(curve.training) | set(curve.held_out) == ids and not set(curve.training) & set(curve.held_out)
    assert len(curve.training) == 3


def test_every_number_is_recomputed(curve, run: Run) -> None:
    engine, every = engine_of(run), tuple(range(LAYERS))
    originals = {one.sequence.id: one for one in searched_sequences(run)}
    prompts = {name: engine.open(one.sequence.prompt) for name, one in originals.items()}
    for row in curve.rows.to_dict("records"):
        mask = tuple(row["allocation"].tolist())

        def kl(names: tuple[str, ...], mask: tuple[int, ...] = mask) -> list[float]:
            return [engine.divergences(prompts[name], [mask], originals[name].tokens)[0] for name in names]

        assert row["training"] == pytest.approx(-np.mean(kl(curve.training)), abs=1e-6)
        assert row["kl"] == pytest.approx(np.mean(kl(curve.held_out)), abs=1e-6)
        outputs = [engine.generate([(prompts[name], mask)])[0][0].tokens for name in curve.held_out]
        same = [
            np.mean([a == b for a, b in zip(out, originals[name].tokens, strict=False)])
            for out, name in zip(outputs, curve.held_out, strict=True)
        ]
        assert row["quality"] <= 1 and (row["quality"] == 1) == (min(same) == 1)
        assert row["full_quality"] == 1 and row["cost"] == len(mask) <= row["budget"]
        assert row["fraction"] == len(mask) / LAYERS and mask != every
    for _, group in curve.rows.groupby("budget"):
        best = group["training"].max()
        assert (group.loc[group["chosen"], "training"] == best).all() and group["chosen"].any()
        chosen = group[group["chosen"]].iloc[0]
        assert np.allclose(group["ahead"], group["kl"] - chosen["kl"])
    about = json.loads(pq.read_schema(curve.path).metadata[b"provenance"])
    for row in curve.rows[curve.rows["chosen"]].to_dict("records"):
        stored = about["held_out_quality"][compact(row["allocation"])]
        assert len(stored) == len(curve.held_out) and np.mean(stored) == pytest.approx(row["quality"])
    kept = quality_kept(run.folder, (1.0,), resamples=0).rows.query("method == 'static mask' and task == ''")
    means = curve.rows[curve.rows["chosen"]].drop_duplicates("budget").set_index("budget")["quality"]
    assert {float(row.setting.split("=")[1]): row.quality for row in kept.itertuples()} == pytest.approx(
        means.to_dict()
    )


def test_a_result_is_read_again_and_other_settings_are_not(curve, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded() -> None:
        raise AssertionError("computed again")

    again = find_static(run.folder, PLAN, load=loaded)
    assert again.rows.equals(curve.rows) and again.training == curve.training
    with pytest.raises(AssertionError, match="computed again"):
        find_static(run.folder, Plan(budgets=(3.0,), timed=False), load=loaded)


def test_by_quality_the_training_value_is_the_mean_quality(run: Run) -> None:
    found = find_static(run.folder, Plan(judge="quality", budgets=(4.0,), evaluations=4, timed=True))
    assert found.rows["training"].between(0, 1).all()
    chosen = found.rows[found.rows["chosen"]]
    assert (chosen["tokens_per_second"] > 0).all() and (found.rows["full_tokens_per_second"] > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge": "loss"}, "--by must be one of kl, quality"),
        ({"methods": ("greeedy",)}, "nearest: 'greedy'"),
        ({"methods": ()}, "at least one of"),
        ({"methods": ("greedy", "unified", "greedy")}, "--methods must name each once, not 'greedy' twice"),
        ({"budgets": (float("nan"),)}, "--budget must be above 0"),
        ({"speedups": (1.0,)}, "--speedup must be above 1"),
        ({"training": 1.0}, "--training must be above 0 and below 1"),
        ({"evaluations": 0}, "--evaluations must be at least 1"),
        ({"budgets": (6.0,)}, "a budget of at most 5 layers"),
        ({"speedups": (50.0,)}, "for one unit"),
        ({"budgets": (0.5,)}, r"a larger --budget or a smaller --speedup; 0\.5 of 5 layers is 2\.5"),
        ({"training": 0.9}, "at least 2 training and 2 held-out"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str, run: Run) -> None:
    with pytest.raises(InputError, match=message):
        find_static(run.folder, Plan(**settings))


def test_the_command_prints_masks_to_deploy(command, run: Run) -> None:
    code, text, _ = command("static", run.folder, "--budget", 4, "--evaluations", 8, "--no-timing")
    assert code == 0 and "Budget 4 layers (80 %" in text and "#" in text and "held-out" in text
    assert "choose masks for one by oracle static --data DATA --scope sequence" in " ".join(text.split())
    code, text, _ = command("static", run.folder, "--speedup", 1.25, "--evaluations", 8, "--no-timing", "--json")
    answer = json.loads(text)
    assert code == 0 and {row["budget"] for row in answer["rows"]} == {4.0}
    assert all(len(row["allocation"]) <= 4 for row in answer["rows"])


def test_data_without_a_run(command, tiny_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i}?", "references": [f"Answer {i}"]} for i in range(4)]
    data = jsonl(tmp_path / "data.jsonl", *rows)
    how = ["--model", tiny_folder, "--max-new-tokens", 5, "--budget", 3, "--evaluations", 4, "--no-timing", "--quiet"]
    code, text, error = command("static", "--data", data, "--out", tmp_path / "run", *how)
    assert code == 0, error
    assert "Budget 3 layers" in text and len(list((tmp_path / "run" / "static").glob("budgets-*.parquet"))) == 1
    assert len(Run.open(tmp_path / "run").evaluations()) == 4, "the full model's outputs only"
    code, _, error = command("static")
    assert code != 0 and "either a RUN or --data is required" in error


def test_masks_for_a_checkpoint_are_judged_as_it_runs(command, tiny_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i}?", "references": [f"Answer {i}"]} for i in range(4)]
    data, folder = jsonl(tmp_path / "data.jsonl", *rows), tmp_path / "run"
    how = ["--model", tiny_folder, "--max-new-tokens", 5, "--evaluations", 4, "--no-timing"]
    code, text, _ = command("static", "--data", data, "--scope", "sequence", "--budget", 3, "--out", folder, *how)
    assert code == 0
    [following] = [line.removeprefix("Next: oracle ") for line in text.splitlines() if line.startswith("Next: ")]
    words = [tmp_path / "pruned" if word == "pruned" else word for word in shlex.split(following)]
    code, text, _ = command(*words)
    assert code == 0 and "Note" not in text and "2 held-out sequences, scope sequence" in text


def test_the_chosen_mask_is_deployed_by_its_budget(command, run: Run, curve, tmp_path: Path) -> None:
    find_static(run.folder, PLAN)
    chosen = curve.rows[curve.rows["chosen"]].set_index("budget")["allocation"]
    best = tuple(chosen.loc[4.0].tolist() if chosen.loc[[4.0]].size == 1 else chosen.loc[4.0].iloc[0].tolist())
    assert chosen_mask(run, 4.5) == best
    code, text, _ = command("export", run.folder, "--format", "layer-map", "--budget", 4, "--out", tmp_path / "map")
    row = curve.rows[curve.rows["chosen"]].set_index("budget").loc[[4.0]].iloc[0]
    held = (
        f"{row['quality']:.3f}, full model {row['full_quality']:.3f} ({len(curve.held_out)} held-out sequences, scope"
    )
    assert held in text
    assert code == 0 and json.loads((tmp_path / "map" / "layers.json").read_text()) == list(best)
    with pytest.raises(InputError, match=r"no static mask costs at most 0\.5"):
        chosen_mask(run, 0.5)


def test_without_masks_the_command_that_finds_them_is_named(search) -> None:
    with pytest.raises(InputError, match=r"no static masks; find one with: oracle static .* --budget 3"):
        chosen_mask(search(evaluations=3), 3.0)


def test_an_error_after_the_full_models_run_names_that_run(command, tiny_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i}?", "references": [f"Answer {i}"]} for i in range(4)]
    data, folder = jsonl(tmp_path / "data.jsonl", *rows), tmp_path / "run"
    how = ["--methods", "unified", "--no-timing", "--quiet"]
    words = ["--data", data, "--model", tiny_folder, "--max-new-tokens", 5, "--criterion", "agreement", "--out", folder]
    code, _, error = command("static", *words, "--speedup", 1000, *how)
    assert code == 2 and f"the full model's outputs are kept: name the run {folder} in place of --data" in error
    assert Run.open(folder).manifest["config"]["prove"] == 0
    code, out, _ = command("static", folder, "--budget", 3, *how)
    assert code == 0 and "bootstrap range, too few sequences (2) for 95 %" in " ".join(out.split())
