"""`oracle draft`: numbers recomputed from the engine, bounds against every mask, resuming, the command line."""

import json
import shutil
from itertools import product

import numpy as np
import pytest
from tiny import LAYERS, tiny_llama, tiny_tokenizer
from zoo import tiny

import oracle.draft.study as module
from analysis.drafting import bound_summary, draft_bounds, draft_summary, drafts
from oracle.config import SearchConfig
from oracle.draft import METHODS, Plan, find_drafts
from oracle.draft.bounds import enumerable
from oracle.draft.export import layer_ids
from oracle.draft.plan import ORACLES
from oracle.draft.rounds import Length, Times, play
from oracle.engine import DraftEngine
from oracle.errors import InputError
from oracle.models import load_model
from oracle.pipeline.reload import searched_sequences
from oracle.utils.process_pool import ProcessPool

LENGTH = 4


def times_of(study) -> Times:
    known = study.about["times"]
    lists = {name: tuple(known[name]) for name in ("layers", "attention", "mlp", "verify")}
    return Times(overhead=known["overhead"], **lists)


@pytest.fixture(scope="module")
def outputs(run):
    """An engine, and the sequences with their outputs ready to be drafted, by id."""
    config = SearchConfig.from_dict(run.manifest["config"])
    engine = DraftEngine(load_model(config.model, device="cpu"), config)
    found = {one.sequence.id: one for one in searched_sequences(run)}
    return engine, {
        name: engine.verified(engine.encode(one.sequence), one.tokens)
        for name, one in found.items()
        if len(one.tokens) > 1
    }


def test_every_choice_has_every_sequence(study, outputs) -> None:
    rows = study.rows
    assert list(dict.fromkeys(rows["choice"])) == [*ORACLES, *METHODS]
    assert (rows.groupby("choice")["sequence"].nunique() == len(outputs[1])).all()


def test_rows_are_recomputed(study, outputs) -> None:
    engine, by_id = outputs
    times = times_of(study)
    for row in study.rows[study.rows["allocation"].notna()].to_dict("records"):
        mask = np.isin(np.arange(2 * LAYERS), row["allocation"])
        output = by_id[row["sequence"]]
        lengths = engine.accepted(output, mask[None], LENGTH).lengths_AX[0]
        assert row["accepts"].tolist() == [(lengths >= step).sum() for step in range(1, LENGTH + 1)]
        assert row["possible"].tolist() == [
            sum(len(output.tokens) - known >= step for known in output.prefixes) for step in range(1, LENGTH + 1)
        ]
        length = Length(tokens=len(output.tokens), limit=10, ended=output.ended)
        played = play(lengths, length, row["draft_length"])
        assert (row["rounds"], row["accepted"]) == (len(played.known_R), played.accepted_R.sum())
        assert row["expected_ms"] == pytest.approx(played.ms(times.draft(mask), times))


def test_decoded_outputs_are_the_full_models(study) -> None:
    rows = study.rows
    assert rows["equal"].all() and (rows["measured_ms"] > 0).all()
    # What was decoded is what was computed beforehand; a wrong draft may have ended itself.
    assert (rows["measured_accepted"] == rows["accepted"]).all()
    assert (rows["measured_drafted"] <= rows["drafted"]).all()


def test_the_best_masks_are_the_best_that_were_tried(study) -> None:
    summary = draft_summary(study.rows, resamples=0).set_index("choice")["expected_speedup"]
    each = study.rows.pivot_table(index="sequence", columns="choice", values="expected_ms")
    fixed = [name for name in METHODS if name not in ("clasp", "knapspec")]
    assert (each["best per sequence"] <= each[[*ORACLES[1:], *fixed]].min(axis=1) + 1e-9).all()
    assert summary["best per sequence"] >= summary["best per task"] - 1e-9
    assert summary["best per task"] >= summary["best overall"] - 1e-9


def test_bounds_hold_for_every_mask_and_are_reached(study, outputs) -> None:
    """All 32 masks of five layers and all draft lengths: no bound is smaller than what a mask of the budget gets."""
    engine, by_id = outputs
    times = times_of(study)
    layers = np.array(list(product((False, True), repeat=LAYERS)))
    masks = np.repeat(layers, 2, axis=1)
    bounds = study.bounds.set_index(["sequence", "budget"])
    assert set(study.bounds["budget"]) == set(range(LAYERS + 1))
    for name, output in by_id.items():
        lengths_AX = engine.accepted(output, masks, LENGTH).lengths_AX
        length = Length(tokens=len(output.tokens), limit=10, ended=output.ended)
        for budget in range(LAYERS + 1):
            within, bound = layers.sum(1) <= budget, bounds.loc[name, budget]
            assert bound["masks"] == within.sum() and bound["prefixes"] == len(output.prefixes)
            first = (lengths_AX[within] > 0).mean(1)
            assert bound["first"] == pytest.approx(first.max())
            assert bound["first_any"] == pytest.approx((lengths_AX[within] > 0).any(0).mean())
            played = [
                (play(lengths_X, length, draft), times.draft(mask))
                for lengths_X, mask in zip(lengths_AX[within], masks[within], strict=True)
                for draft in range(LENGTH + 1)
            ]
            assert bound["rounds"] <= min(len(one.known_R) for one, _ in played)
            fastest = min(one.ms(cost, times) for one, cost in played)
            assert bound["speedup"] >= times.token * (length.tokens - 1) / fastest - 1e-9
    last = bound_summary(study.bounds).iloc[-1]
    summary = draft_summary(study.rows, resamples=0)
    assert last["budget"] == LAYERS and (summary["accepted"] <= last["accepted"] + 1e-9).all()


def test_the_full_mask_accepts_everything(study) -> None:
    full = study.bounds[study.bounds["budget"] == LAYERS]
    assert (full["first"] == 1).all()
    assert (full["rounds"] == np.ceil(full["tokens"] / (LENGTH + 1))).all()


def test_a_mask_is_judged_on_sequences_that_it_was_not_chosen_on(study) -> None:
    halves = study.about["halves"]
    assert sorted(halves[0] + halves[1]) == sorted(study.rows["sequence"].unique())
    for name in ("early-exit", "static", "draft-verify", "swift"):
        part = study.rows[study.rows["choice"] == name].set_index("sequence")
        for half in halves:
            assert len({tuple(mask) for mask in part.loc[half, "allocation"]}) == 1


def test_the_choice_of_a_half_is_that_of_the_other(study, outputs) -> None:
    """Early exit: recomputed, every exit and draft length on the other half."""
    engine, by_id = outputs
    times = times_of(study)
    exits = np.array([[unit < 2 * budget for unit in range(2 * LAYERS)] for budget in range(1, LAYERS)])
    part = study.rows[study.rows["choice"] == "early-exit"].set_index("sequence")
    for half, other in ((0, 1), (1, 0)):
        training = [by_id[name] for name in study.about["halves"][other]]
        lengths = [engine.accepted(one, exits, LENGTH).lengths_AX for one in training]

        def ms(budget: int, draft: int, training=training, lengths=lengths) -> float:
            return sum(
                play(found[budget], Length(tokens=len(one.tokens), limit=10, ended=one.ended), draft).ms(
                    times.draft(exits[budget]), times
                )
                for one, found in zip(training, lengths, strict=True)
            )

        least = min(ms(budget, draft) for budget, draft in product(range(LAYERS - 1), range(1, LENGTH + 1)))
        chosen = part.loc[study.about["halves"][half][0]]
        assert ms(len(chosen["allocation"]) // 2 - 1, chosen["draft_length"]) == pytest.approx(least)


def test_clasp_skips_the_same_number_of_layers_at_every_prefix(study, outputs) -> None:
    row = study.rows[study.rows["choice"] == "clasp"]
    assert row["allocation"].isna().all() and (row["decision_executions"] > 0).all()
    times = times_of(study)
    kept = (row["draft_ms"] - times.overhead) / times.layers[0]
    assert kept.round(6).isin([float(count) for count in range(1, LAYERS)]).all()


def test_results_are_read_again_and_interrupted_ones_continued(study, run, tmp_path, monkeypatch) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")

    def forbidden(*arguments: object, **named: object) -> None:
        raise AssertionError("runs the model")

    with monkeypatch.context() as patch:
        patch.setattr(module, "DraftEngine", forbidden)
        again = find_drafts(folder, study_plan())
        assert again.rows.equals(study.rows)
    for name in ("drafts", "bounds"):
        (folder / "drafts" / f"{name}.parquet").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(module, "bounds_of", forbidden)
        patch.setattr(DraftEngine, "accepted", forbidden)
        patch.setattr(DraftEngine, "speculate", forbidden)
        patch.setattr(DraftEngine, "verification_ms", forbidden)
        again = find_drafts(folder, study_plan())
    assert again.rows.equals(study.rows) and again.bounds.equals(study.bounds)


def test_times_that_are_measured_again_are_used_for_everything(study, run, tmp_path, monkeypatch) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    for name in ("drafts", "bounds", "*/times"):
        [path] = (folder / "drafts").glob(f"{name}.parquet")
        path.unlink()
    monkeypatch.setattr(DraftEngine, "verification_ms", lambda self, context, most, rounds: [float(most)] * most)
    again = find_drafts(folder, study_plan())
    assert again.about["times"]["verify"] == pytest.approx([LENGTH + 1.0] * (LENGTH + 1))
    every = again.bounds[again.bounds["budget"] == LAYERS]
    times = times_of(again)
    assert every["draft_ms"].tolist() == pytest.approx([times.overhead + sum(times.layers)] * len(every))
    assert (again.rows["token_ms"] == LENGTH + 1.0).all()


def study_plan() -> Plan:
    return Plan(length=LENGTH, evaluations=6)


def test_the_tables_of_a_run_are_those(study, run) -> None:
    assert drafts(run.folder).equals(study.rows) and draft_bounds(run.folder).equals(study.bounds)


def test_layer_ids_name_what_is_skipped(study) -> None:
    found = layer_ids(study, "org/model")
    rows = study.rows[study.rows["choice"] == "best overall"]
    kept = set(rows["allocation"].iloc[0].tolist())
    assert found["model_best-overall"] == {
        "attention": [layer for layer in range(LAYERS) if 2 * layer not in kept],
        "mlp": [layer for layer in range(LAYERS) if 2 * layer + 1 not in kept],
    }
    assert not [name for name in found if "clasp" in name]
    skipped = [len(ids["attention"]) + len(ids["mlp"]) for name, ids in found.items() if "knapspec" not in name]
    assert min(skipped) > 0


def test_budgets_are_whole() -> None:
    assert [enumerable(5, most) for most in (0, 1, 5, 6, 16, 31, 32, 99)] == [-1, 0, 0, 1, 2, 4, 5, 5]
    assert enumerable(30, 5000) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("swit",)}, "--methods must be among .*not 'swit'; nearest: 'swift'"),
        ({"length": 0}, "--length must be at least 1, not 0"),
        ({"limit": 1}, "--limit must be at least 2, not 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan(**changes)


def test_the_command_prints_what_is_stored(study, run, command, tmp_path) -> None:
    words = ["draft", run.folder, "--length", LENGTH, "--evaluations", 6, "--quiet"]
    code, out, err = command(*words, "--json", "--export", tmp_path / "ids.json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    summary = draft_summary(study.rows)
    assert [row["choice"] for row in found["choices"]] == summary["choice"].tolist()
    assert [row["accepted"] for row in found["choices"]] == pytest.approx(summary["accepted"].tolist())
    assert json.loads((tmp_path / "ids.json").read_text()) == layer_ids(study, run.manifest["model"]["id"])
    code, out, _ = command(*words)
    assert code == 0 and "Decoded with drafts: every output is the full model's; " in out
    assert f"Proven for {len(study.rows['sequence'].unique())} of" in out
    code, _, err = command(*words, "--export", tmp_path / "ids.json")
    assert code == 2 and "already exists" in err
    code, _, err = command("draft", "--quiet")
    assert code == 2 and "either a RUN or --data is required" in err


def test_blocks_that_run_side_by_side_have_no_knapsack(search, tmp_path) -> None:
    """GPT-NeoX: attention and MLP can be skipped apart, but have no state between them."""
    folder = tmp_path / "neox"
    tiny("gpt-neox", use_parallel_residual=True).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    run = search(model=str(folder), evaluations=1, limit=3, scope="sequence")
    found = find_drafts(run.folder, Plan(length=3, evaluations=4, prove=6))
    assert list(found.about["left_out"]) == ["knapspec"]
    assert set(found.rows["choice"]) == {*ORACLES, *METHODS} - {"knapspec"}
    assert found.rows["equal"].all() and set(found.bounds["budget"]) == {0, 1}


def test_runs_over_sublayers_are_drafted_too(search) -> None:
    run = search(evaluations=1, limit=3, unit="sublayer", max_new_tokens=5)
    found = find_drafts(run.folder, Plan(length=2, evaluations=3, prove=0, methods=("swift", "knapspec"), timed=False))
    assert found.bounds.empty and found.rows["measured_ms"].isna().all()
    assert found.rows["expected_ms"].notna().all()


def test_what_cannot_be_drafted_is_refused(search) -> None:
    run = search(evaluations=1, limit=3, max_new_tokens=1)
    with pytest.raises(InputError, match="at least 2 outputs of 2 tokens or more are required, but there are 0"):
        find_drafts(run.folder, Plan())


def test_a_model_of_one_layer_is_refused(search, tmp_path) -> None:
    folder = tmp_path / "shallow"
    tiny_llama(num_hidden_layers=1).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    run = search(model=str(folder), evaluations=1, limit=3)
    with pytest.raises(InputError, match="a draft skips layers, but the model has 1"):
        find_drafts(run.folder, Plan())


def test_any_number_of_processes_gives_the_same_tables(run, tmp_path, monkeypatch) -> None:
    """On three cores the sequences of every stage are computed in forked processes."""
    parts = {"attention": (0.4,) * LAYERS, "mlp": (0.6,) * LAYERS}
    times = Times(layers=(1.0,) * LAYERS, overhead=1.0, verify=tuple(np.linspace(6, 8, LENGTH + 1)), **parts)
    monkeypatch.setattr(module, "_measured_times", lambda *_: times)
    monkeypatch.setattr("oracle.draft.material.WORTH_A_PROCESS", 0)
    monkeypatch.setattr("oracle.utils.cores._processor_limits", lambda: iter(()))
    monkeypatch.setattr("oracle.utils.cores._busy", lambda: 0.0)
    pools, found = [], []
    started = ProcessPool.run
    monkeypatch.setattr(ProcessPool, "run", lambda *arguments: (pools.append(arguments), started(*arguments))[1])
    for cores in (1, 3):
        monkeypatch.setattr("oracle.utils.cores._allowed", lambda cores=cores: cores)
        folder = shutil.copytree(run.folder, tmp_path / str(cores))
        found.append(find_drafts(folder, Plan(length=LENGTH, evaluations=3, timed=False)))
        assert bool(pools) == (cores > 1)
    assert found[0].rows.map(repr).equals(found[1].rows.map(repr))
    assert found[0].bounds.map(repr).equals(found[1].bounds.map(repr))
