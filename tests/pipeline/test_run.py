"""A whole search on the tiny model: what it writes, that it is reproducible, and that it is right."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny import LAYERS, jsonl, tiny_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

import oracle.executors.search_loop
import oracle.pipeline.scheduler
from analysis.queries import budgets
from oracle.cli import main
from oracle.cli.run_tables import show_summary
from oracle.config import SearchConfig
from oracle.engine import Difference, Engine
from oracle.engine.confirm import Confirmation
from oracle.engine.reference import first_difference, plain_generate, plain_logits
from oracle.errors import ForeignError, InputError
from oracle.executors import Workers
from oracle.metrics import METRICS
from oracle.models import LanguageModel, load_model
from oracle.pipeline.run import resume_search, run_search
from oracle.store import Run
from oracle.types import Allocation
from oracle.utils.cores import forks

ROOT = Path(__file__).resolve().parents[2]

Search = Callable[..., Run]

FULL = tuple(range(LAYERS))
SUMMARY = {
    "sequences",
    "allocations_per_sequence",
    "layers",
    "per_sequence_fraction",
    "informative_sequences",
    "vacuous_sequences",
    "equal_quality_fraction",
    "equal_quality_interval",
    "null_per_sequence_fraction",
    "null_equal_quality_fraction",
    "zero_quality_sequences",
    "end_to_end_fraction",
    "verified",
    "verified_of",
    "seconds",
    "peak_memory_mib",
}


@pytest.fixture(scope="module")
def base(search: Search) -> Run:
    """A search without special settings."""
    return search()


def computed(run: Run) -> dict[str, bytes]:
    """The tables that a search computes, byte for byte."""
    paths = [*run.folder.glob("evaluations/*"), *run.folder.glob("*.parquet")]
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in paths}


def tried(run: Run, family: str) -> set[tuple[str, Allocation]]:
    rows = run.evaluations().query("family == @family")
    return {(s, tuple(a.tolist())) for s, a in zip(rows["sequence"], rows["allocation"], strict=True)}


def test_the_same_seed_gives_the_same_run_byte_for_byte(search: Search, base: Run) -> None:
    first, again = base, search()
    assert computed(first) == computed(again)
    assert {"minimal_budgets.parquet", "assignment.parquet"} < set(computed(first))
    timing = {"seconds", "search_seconds", "peak_memory_mib", "memory_above_model_mib"}
    one, two = ({k: v for k, v in run.summary().items() if k not in timing} for run in (first, again))
    assert one == two


def test_budgets_are_ruled_out_from_the_empty_mask_on(search: Search) -> None:
    run = search(strategy="random", criterion="agreement", evaluations=1, limit=2)
    every = search(strategy="exhaustive", criterion="agreement", evaluations=2**LAYERS, limit=2)
    assert run.table("minimal_budgets")["certified"].all()
    for bound in ("lower", "upper"):
        assert run.table("minimal_budgets")[bound].tolist() == every.table("minimal_budgets")[bound].tolist()


def test_another_seed_gives_other_random_masks(search: Search, base: Run) -> None:
    other = search(seed=4)
    assert tried(base, "random") != tried(other, "random")
    for family in ("full", "unified", "early-exit"):
        assert tried(base, family) == tried(other, family)


def test_sequences_are_searched_with_different_random_masks(base: Run) -> None:
    masks: dict[str, set[Allocation]] = {}
    for sequence, mask in tried(base, "random"):
        masks.setdefault(sequence, set()).add(mask)
    assert len({frozenset(mine) for mine in masks.values()}) > 1


def test_what_a_run_says_of_itself(search: Search) -> None:
    run = search(seed=5, limit=4)
    summary, evaluations = run.summary(), run.evaluations()
    assert set(summary) >= SUMMARY
    assert (summary["sequences"], summary["layers"], summary["allocations_per_sequence"]) == (4, LAYERS, 20)
    assert summary["verified"] == summary["verified_of"] == len(run.table("verification")) >= 4
    assert run.table("verification")["agrees"].all()
    settings = {
        "max_new_tokens": 6,
        "evaluations": 20,
        "strategy": "spread",
        "seed": 5,
        "limit": 4,
        "dtype": "float32",
        "device": "cpu",
    }
    stored = run.manifest["config"]
    config = SearchConfig(model=stored["model"], data=stored["data"], **settings)
    assert SearchConfig.from_dict(stored) == config
    assert run.manifest["data"]["sequences"] == 4
    assert run.manifest["versions"].keys() >= {"python", "torch", "transformers", "layer-oracle"}
    assert evaluations["sequence"].unique().tolist() == ["s0", "s1", "s2", "s3"]
    for _, mine in evaluations.groupby("sequence"):
        assert mine["number"].tolist() == list(range(20))
        assert (mine["family"].iloc[0], mine["allocation"].iloc[0].tolist()) == ("full", list(FULL))
        assert (mine["family"] == "full").sum() == 1
    assert (evaluations["cost"] == evaluations["allocation"].map(len)).all()


def test_a_wrong_output_does_not_pass_verification(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Confirmation, "least_lead", lambda *args: -1.0)
    monkeypatch.setattr("oracle.engine.confirm.plain_generate", lambda *args, **kwargs: (0,))
    summary = search(limit=2, evaluations=8).summary()
    assert summary["verified"] < summary["verified_of"]
    # Where the second plain generation agrees with the run again, the machine does not repeat itself.
    assert len(summary["differences"]) == summary["verified_of"] - summary["verified"]
    assert all("OMP_NUM_THREADS=1" in entry["remedy"] for entry in summary["differences"])


@pytest.mark.parametrize(("lead", "remedy"), [(1e-4, "search again with --near-tie 0.0004"), (3.0, "report the run")])
def test_a_failed_verification_says_where_by_how_much_and_what_to_do(
    search: Search, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lead: float, remedy: str
) -> None:
    plain = plain_logits

    def other(*args: Any, **settings: Any) -> Any:
        """Plain generation that prefers token 7 at the third place."""
        tokens, logits_TV = plain(*args, **settings)
        if args[3].max_new_tokens < 6:
            return tokens, logits_TV  # the trial at loading
        logits_TV[2, 7] = logits_TV[2].max() + lead
        return (*tokens[:2], 7, *tokens[3:]), logits_TV

    monkeypatch.setattr(Confirmation, "least_lead", lambda *args: -lead)
    monkeypatch.setattr("oracle.engine.confirm.plain_generate", lambda *args, **settings: other(*args, **settings)[0])
    monkeypatch.setattr("oracle.engine.engine.plain_logits", other)
    run = search(limit=1, evaluations=8, near_tie=1e-5)
    entry = run.summary()["differences"][0]
    assert (entry["sequence"], entry["position"], entry["plain"]) == ("s0", 2, 7)
    assert entry["lead"] == pytest.approx(lead, rel=0.01)
    assert (entry["near_tie"], entry["rounding"]) == (1e-5, run.manifest["rounding"]["logits"])
    assert remedy in entry["remedy"]
    show_summary(run.summary(), budgets(run.folder))
    shown = " ".join(capsys.readouterr().out.split())
    assert "token 3 is" in shown and remedy in shown


def failing_after(calls: int, work: Any) -> Any:
    """The work, which raises once it has been called so often."""
    left = [calls]

    def work_or_fail(*args: Any, **settings: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise LookupError("no states\nfor this layer")
        return work(*args, **settings)

    return work_or_fail


@pytest.mark.parametrize("verified", [0, 2])
def test_a_verification_that_fails_keeps_budgets_and_summary_with_the_reason(
    search: Search, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verified: int
) -> None:
    whole = search(limit=2, evaluations=8)
    monkeypatch.setattr(Confirmation, "least_lead", lambda *args: -1.0)
    monkeypatch.setattr("oracle.engine.confirm.plain_generate", failing_after(verified, plain_generate))
    run = search(limit=2, evaluations=8, workers=Workers(count=1))
    summary = run.summary()
    assert budgets(run.folder) == budgets(whole.folder)
    assert summary["per_sequence_fraction"] == whole.summary()["per_sequence_fraction"]
    assert (summary["verified"], summary["verified_of"]) == (verified, whole.summary()["verified_of"])
    reasons = {entry["error"] for entry in summary["differences"]}
    assert reasons == {"LookupError: no states for this layer"}
    assert run.table("verification")["error"].notna().sum() == summary["verified_of"] - verified
    show_summary(summary, budgets(run.folder))
    shown = " ".join(capsys.readouterr().out.split())
    assert "NOT VERIFIED" in shown and "plain generation failed (LookupError: no states for this layer)." in shown
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    logged = [entry["traceback"] for entry in entries if entry["event"] == "verification failed"]
    assert len(logged) == summary["verified_of"] - verified
    assert all("work_or_fail" in "".join(lines) for lines in logged)


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
def test_a_difference_that_cannot_be_explained_keeps_the_summary(
    search: Search, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    def fail(*args: Any, **settings: Any) -> Any:
        raise kind("no logits")

    whole = search(limit=2, evaluations=8)
    monkeypatch.setattr(Confirmation, "least_lead", lambda *args: -1.0)
    monkeypatch.setattr("oracle.engine.confirm.plain_generate", lambda *args, **settings: (1, 2))
    monkeypatch.setattr("oracle.engine.engine.plain_logits", fail)
    run = search(limit=2, evaluations=8)
    summary = run.summary()
    assert budgets(run.folder) == budgets(whole.folder)
    assert summary["verified"] == 0 and len(summary["differences"]) == summary["verified_of"]
    assert {entry["remedy"] for entry in summary["differences"]} == {
        f"comparing it with plain generation failed ({kind.__name__}: no logits)"
    }


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.skipif(not forks(), reason="Linux only"))])
@pytest.mark.parametrize("kind", [LookupError, NotImplementedError, ZeroDivisionError])
def test_a_search_that_fails_half_way_keeps_what_it_found_and_can_be_continued(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], count: int
) -> None:
    whole = search(limit=3, evaluations=8)
    left = [0]

    def fail(layer: Any, args: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise kind("some prompts\nare too much")

    load = load_model

    def loaded(*args: Any, **settings: Any) -> Any:
        model = load(*args, **settings)
        assert model.layers
        left[0] = 40 // count
        model.network.model.layers[2].register_forward_pre_hook(fail)
        return model

    with monkeypatch.context() as patch:
        patch.setattr("oracle.pipeline.setup.load_model", loaded)
        with pytest.raises(
            ForeignError, match=rf"the search stopped \({kind.__name__}: some prompts are too much\)"
        ) as error:
            search(limit=3, evaluations=8, out=tmp_path / "run", batch_rows=2, workers=Workers(count=count))
    assert f"oracle search --resume {tmp_path / 'run'}" in str(error.value)
    assert error.value.log == tmp_path / "run" / "log.jsonl"
    entries = [json.loads(line) for line in error.value.log.read_text().splitlines()]
    [failed] = [entry for entry in entries if entry["event"] == "failed"]
    assert any("register_forward_pre_hook" in line or "in fail" in line for line in failed["traceback"])
    resumed = resume_search(tmp_path / "run")
    assert budgets(resumed.folder) == budgets(whole.folder)


def test_the_first_difference_may_be_the_end() -> None:
    logits_TV = torch.tensor([[0.0, 1.0, 3.0], [0.0, 5.0, 2.0]])
    assert first_difference(((2, 1), logits_TV), (2, 1)) is None
    found = first_difference(((2, 1), logits_TV), (1, 1))
    assert found == Difference(position=0, recorded=1, plain=2, lead=2.0)
    assert first_difference(((2, 1), logits_TV), (2,)) == Difference(position=1, recorded=None, plain=1, lead=None)
    longer = first_difference(((2, 1), logits_TV), (2, 1, 0))
    assert longer == Difference(position=2, recorded=0, plain=None, lead=None)


@pytest.fixture
def choices_file(tmp_path: Path) -> str:
    """Three sequences with references and with choices."""
    rows = [
        {"prompt": f"Question {i}?", "references": [f"Yes, {i}", "no"], "choices": ["x", "yy", "z"], "answer": i}
        for i in range(3)
    ]
    return jsonl(tmp_path / "choices.jsonl", *rows)


@pytest.mark.parametrize("scope", ["decode", "sequence"])
@pytest.mark.parametrize("criterion", METRICS)
def test_every_criterion_runs_in_both_scopes(search: Search, choices_file: str, criterion: str, scope: str) -> None:
    run = search(data=choices_file, criterion=criterion, scope=scope, evaluations=8, max_new_tokens=3)
    summary, evaluations = run.summary(), run.evaluations()
    assert (summary["criterion"], summary["verified"]) == (criterion, summary["verified_of"])
    assert evaluations[criterion].notna().all()
    floor = METRICS[criterion].floor
    assert floor is None or evaluations[criterion].between(floor, 1).all()
    minimal = run.table("minimal_budgets")
    assert (minimal["quality"] >= minimal["full_quality"]).all()
    assert ("log_likelihood" in evaluations) == (criterion == "log_likelihood")
    assert ("choice_accuracy" in evaluations) == (criterion == "choice_accuracy")
    if criterion == "log_likelihood":
        assert (evaluations[["log_likelihood", "null_log_likelihood"]] < 0).all(axis=None)
        assert (evaluations["log_likelihood"] != evaluations["null_log_likelihood"]).any()
        assert evaluations["log_likelihood"].nunique() > 3
    if criterion == "choice_accuracy":
        answer = evaluations["sequence"].map({"00000": 0, "00001": 1, "00002": 2})
        assert (evaluations["choice_accuracy"] == (evaluations["choice"] == answer)).all()


def test_further_metrics_are_computed_beside_the_criterion(search: Search, choices_file: str) -> None:
    run = search(data=choices_file, metrics=("choice_accuracy", "log_likelihood"), evaluations=6, max_new_tokens=3)
    wanted = {"log_likelihood", "null_log_likelihood", "choice_accuracy", "choice"}
    wanted |= {name for name, metric in METRICS.items() if metric.always}
    assert run.evaluations().columns.is_unique
    assert set(run.evaluations().columns) >= wanted


@pytest.mark.parametrize("scope", ["decode", "sequence"])
def test_recorded_tokens_are_those_of_plain_generation(search: Search, tiny_model: LanguageModel, scope: str) -> None:
    run = search(scope=scope, limit=2, max_new_tokens=8)
    engine = Engine(tiny_model, SearchConfig(scope=scope, max_new_tokens=8))
    prompts = run.sequences().set_index("sequence")["prompt"]
    for name, rows in run.evaluations().groupby("sequence"):
        prompt = engine.open(prompts[name])
        for _, row in rows.iloc[::4].iterrows():
            assert tuple(row["tokens"].tolist()) == engine.alone(prompt, tuple(row["allocation"].tolist()))
            assert row["text"] == tiny_model.text(row["tokens"].tolist())


@pytest.mark.parametrize("batch_rows", [1, 3])
def test_results_do_not_depend_on_the_batch(search: Search, base: Run, batch_rows: int) -> None:
    together, apart = base.evaluations(), search(batch_rows=batch_rows, limit=2).evaluations()
    together = together[: len(apart)]
    exact = [name for name in together.columns if name not in ("margin", "rerun", "tokens", "allocation")]
    assert together[exact].equals(apart[exact])
    assert together["tokens"].map(tuple).equals(apart["tokens"].map(tuple))


def exact(evaluations: pd.DataFrame) -> pd.DataFrame:
    """What does not depend on the batch, not even by rounding, as margins do."""
    return evaluations.drop(columns="margin").map(repr)


def test_results_do_not_depend_on_how_they_are_cut_into_parts(
    search: Search, base: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle.pipeline.scheduler, "ROWS_PER_PART", 30)
    monkeypatch.setattr(oracle.executors.search_loop, "ASK", 5)
    cut = search(batch_rows=16)
    parts = [path.name[: len("part-00000")] for path in sorted(cut.folder.glob("evaluations/*"))]
    assert parts == [f"part-{i:05d}" for i in range(4)]
    assert exact(cut.evaluations()).equals(exact(base.evaluations()))
    assert cut.table("assignment").map(repr).equals(base.table("assignment").map(repr))


def test_a_folder_that_is_there_is_refused_before_the_model_is_loaded(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oracle.pipeline.setup.load_model", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(InputError, match="already exists"):
        search(out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.fixture
def narrow_folder(tmp_path: Path) -> str:
    """A model with learned positions, which fails beyond its context of 32 tokens."""
    config = GPT2Config(vocab_size=258, n_embd=16, n_layer=3, n_head=2, n_positions=32, eos_token_id=256)
    folder = tmp_path / "narrow"
    GPT2LMHeadModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


LONG = "x" * 25


@pytest.mark.parametrize(
    ("metric", "rows", "message"),
    [
        (
            "log_likelihood",
            [("Why not?", [LONG])] * 2,
            r"'00000': a prompt of 8 tokens and a reference of 25 do not fit",
        ),
        # The reference fits its own prompt, but not the other one, against which luck is measured.
        ("log_likelihood", [("Why not?", ["a"]), ("b?", [LONG])], r"'00000': .*another sequence's.* of 25 do not fit"),
        ("choice_accuracy", [("Why not?", [LONG, "b"])] * 2, "a prompt of 8 tokens and a choice of 26 do not fit"),
        ("choice_accuracy", [("Why not?", ["", "b"])] * 2, "a choice of at least one token is required"),
    ],
)
def test_texts_that_cannot_be_scored_are_refused_before_anything_is_written(
    search: Search, narrow_folder: str, tmp_path: Path, metric: str, rows: list, message: str
) -> None:
    column, more = ("references", {}) if metric == "log_likelihood" else ("choices", {"answer": 0})
    data = jsonl(tmp_path / "d.jsonl", *({"prompt": prompt, column: texts, **more} for prompt, texts in rows))
    with pytest.raises(InputError, match=message):
        search(model=narrow_folder, data=data, criterion=metric, max_new_tokens=4, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_text_that_just_fits_is_scored(search: Search, narrow_folder: str, tmp_path: Path) -> None:
    data = jsonl(tmp_path / "d.jsonl", *({"prompt": "Why not", "references": [LONG]} for _ in range(2)))
    run = search(model=narrow_folder, data=data, criterion="log_likelihood", max_new_tokens=4, evaluations=8)
    assert run.summary()["verified"] == run.summary()["verified_of"]


WITHOUT_A_MODEL = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "tokenizers", "safetensors"):
            raise ImportError(f"{name} is needed")

sys.meta_path.insert(0, Blocked())
from oracle.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_figures_are_drawn_again_without_a_model(tiny_folder: Path, sequences_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["--max-new-tokens", "4", "--evaluations", "8", "--quiet", "--out", str(run)]
    assert main(["search", "--model", str(tiny_folder), "--data", str(sequences_file), *small]) == 0
    command = [sys.executable, "-c", WITHOUT_A_MODEL, "figures", run, "--out", tmp_path / "again", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    drawn = [Path(name) for name in json.loads(done.stdout)["figures"]]
    assert {path.name for path in drawn} == {path.name for path in (run / "figures").iterdir()}
    for path in drawn:
        assert path.read_bytes() == (run / "figures" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("how", "needs"), [({"workers": 3}, "workers needs"), ({"stop": True}, "stop needs"), ({"watch": 1}, "watch needs")]
)
def test_arguments_of_other_types_are_refused_before_anything_is_written(
    tiny_folder: Path, tmp_path: Path, how: dict[str, Any], needs: str
) -> None:
    with pytest.raises(InputError, match=needs):
        run_search(SearchConfig(model=str(tiny_folder)), tmp_path / "run", **how)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="out needs the path of a new run folder, not None"):
        run_search(SearchConfig(model=str(tiny_folder)), None, **how)  # type: ignore[arg-type]
