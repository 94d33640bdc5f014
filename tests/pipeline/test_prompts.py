"""The prompt is fixed once: later uses of a run read its token ids, also when the template writes another day."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from templates import DATED, TURNS, move_clock, save_model
from tiny import tiny_llama, tiny_tokenizer
from tokenizers import normalizers

from oracle.config import Scope, SearchConfig
from oracle.controllers import OracleController, compare_run
from oracle.engine import Engine, PromptState
from oracle.engine.prompts import prompt_pass
from oracle.errors import InputError, Interrupted
from oracle.measure import Sizes, measure_run
from oracle.models import Decoder, load_model
from oracle.models.rendering import PromptFormat, render
from oracle.pipeline.run import resume_search
from oracle.store import Run
from oracle.store.files import write_table
from oracle.store.hidden import HiddenStore
from oracle.store.index import INDEX, index_all
from oracle.store.schema import INDEXED, SEQUENCES, prompts_hash, sequence_of
from oracle.utils.progress import Advance, Watch

Search = Callable[..., Run]


@pytest.fixture(scope="module")
def dated_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("dated") / "model", DATED)


@pytest.fixture(autouse=True)
def first_day(monkeypatch: pytest.MonkeyPatch) -> None:
    move_clock(monkeypatch, 1)


@pytest.fixture(autouse=True, scope="module")
def small_rounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oracle.executors.search_loop.ASK", 5)
        yield


@pytest.fixture(scope="module")
def searched(search: Search, dated_folder: str) -> Run:
    """A search of the first day."""
    with pytest.MonkeyPatch.context() as patch:
        move_clock(patch, 1)
        return search(model=dated_folder, criterion="agreement", tolerance=0.3)


@pytest.fixture
def copy(searched: Run, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(searched.folder, tmp_path / "copy"))


@pytest.fixture
def next_day(monkeypatch: pytest.MonkeyPatch, searched: Run, dated_folder: str) -> None:
    """Moves the clock, after which nothing may be rendered; rendering would give other prompts."""
    move_clock(monkeypatch, 2)
    model = load_model(dated_folder, device="cpu")
    assert render(model.tokenizer, "Question 0?", SearchConfig()).ids != ids_of(searched)["s0"]
    monkeypatch.setattr(PromptFormat, "render", lambda *_: pytest.fail("rendered again"))


def ids_of(run: Run) -> dict[str, tuple[int, ...]]:
    rows = run.sequences()
    return {name: tuple(ids.tolist()) for name, ids in zip(rows["sequence"], rows["prompt_ids"], strict=True)}


def rows(run: Run) -> pd.DataFrame:
    return run.evaluations(whole=False).drop(columns="margin").map(repr)


def stops_after(rounds: int, then: Callable[[], object] = lambda: None) -> Callable[[], bool]:
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        if len(asked) == rounds:
            then()
            return True
        return False

    return stop


def older(run: Run) -> Run:
    """The run as version 3 wrote it."""
    manifest = json.loads((run.folder / "manifest.json").read_text())
    del manifest["prompts"], manifest["config"]["system"], manifest["config"]["template_args"], manifest[INDEXED]
    (run.folder / INDEX).unlink()
    (run.folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 3}))
    path = run.folder / "sequences.parquet"
    write_table(path, pq.read_table(path).select(SEQUENCES.names).replace_schema_metadata(None))
    return Run.open(run.folder)


def listening(said: list[str]) -> Watch:
    """A display that keeps what it is told."""

    def watch(description: str, total: int) -> AbstractContextManager[Advance]:
        said.append(description)
        return nullcontext(lambda count, remark: None)

    return watch


def test_a_run_stores_what_the_model_read(searched: Run) -> None:
    table = searched.sequences()
    assert table["rendered"].tolist() == [f"Thursday 01 May 2031<user>Question {i}?<assistant>" for i in range(6)]
    assert ids_of(searched) == {f"s{i}": tuple(tiny_tokenizer()(table["rendered"][i])["input_ids"]) for i in range(6)}
    assert table["prompt_tokens"].tolist() == [len(ids) for ids in ids_of(searched).values()]
    prompts = searched.manifest["prompts"]
    assert prompts["template"] == "the tokenizer's chat template" and prompts["arguments"] == {}
    assert prompts["hash"] == prompts_hash([sequence_of(row) for row in table.to_dict("records")])
    assert searched.query("SELECT len(prompt_ids) AS n FROM sequences")["n"].tolist() == table["prompt_tokens"].tolist()
    assert searched.summary()["verified"] == searched.summary()["verified_of"]


def test_a_run_that_is_resumed_next_day_has_the_prompts_of_the_first(
    search: Search, searched: Run, dated_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        search(model=dated_folder, criterion="agreement", tolerance=0.3, out=tmp_path / "run", stop=stops_after(3))
    move_clock(monkeypatch, 2)
    monkeypatch.setattr(PromptFormat, "render", lambda *_: pytest.fail("rendered again"))
    run = resume_search(tmp_path / "run")
    assert run.sequences().map(repr).equals(searched.sequences().map(repr))
    assert rows(run).equals(rows(searched))
    assert run.summary()["verified"] == run.summary()["verified_of"] == searched.summary()["verified_of"]


def test_a_search_beyond_midnight_has_one_prompt(
    search: Search, searched: Run, dated_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def midnight() -> bool:
        move_clock(monkeypatch, 2)
        return False

    run = search(model=dated_folder, criterion="agreement", tolerance=0.3, stop=midnight)
    assert rows(run).equals(rows(searched))
    assert ids_of(run) == ids_of(searched)
    assert run.summary()["verified"] == run.summary()["verified_of"]


def test_replay_gives_the_recorded_outputs_next_day(copy: Run, dated_folder: str, next_day: None) -> None:
    chosen = copy.table("minimal_budgets")[["sequence", "number"]]
    recorded = chosen.merge(copy.evaluations(), on=["sequence", "number"]).merge(copy.sequences(), on="sequence")
    controller = OracleController.from_run(copy.folder, policy="minimal", model=load_model(dated_folder, device="cpu"))
    outputs = controller.generate(recorded["prompt"].tolist())
    assert [output.tokens for output in outputs] == [tuple(tokens.tolist()) for tokens in recorded["tokens"]]
    assert len(outputs) == 6


def test_a_comparison_next_day_has_the_qualities_of_the_search(copy: Run, next_day: None) -> None:
    found = compare_run(copy.folder, controllers="full,oracle", timed=False).rows.set_index("setting")
    assert found.loc["", "quality"] == 1.0, "the full model agrees with its recorded self"
    assert found.loc["policy=minimal", "quality"] == pytest.approx(copy.table("minimal_budgets")["quality"].mean())


def test_measuring_next_day_finds_the_states_of_the_first(
    copy: Run, tmp_path: Path, next_day: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = Sizes(budgets=2, new_tokens=3, rounds=1, batches=(1,), speedups=(2,))
    tables = ["similarity", "features"]

    def measured() -> dict[str, bytes]:
        found = measure_run(copy.folder, only=tables, sizes=sizes, store=HiddenStore(tmp_path / "hidden"), again=True)
        return {name: path.read_bytes() for name, path in found.items()}

    move_clock(monkeypatch, 1)
    first = measured()
    move_clock(monkeypatch, 2)
    monkeypatch.setattr("oracle.engine.hidden_states.Hidden._run", lambda *_: pytest.fail("computed again"))
    assert measured() == first
    features = pd.read_parquet(copy.folder / "measures" / "features.parquet")
    assert features["prompt_tokens"].tolist() == copy.sequences()["prompt_tokens"].tolist()


def test_throughput_next_day_runs_the_stored_prompts(
    copy: Run, next_day: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[int, ...]] = []

    def record(decoder: Decoder, ids: list[int], scope: Scope) -> PromptState:
        opened.append(tuple(ids))
        return prompt_pass(decoder, ids, scope)

    monkeypatch.setattr("oracle.engine.engine.prompt_pass", record)
    measure_run(copy.folder, only=["throughput"], sizes=Sizes(new_tokens=3, rounds=1, batches=(1,), speedups=(2,)))
    assert set(opened) == set(ids_of(copy).values())


def test_a_search_that_starts_from_a_run_takes_over_its_prompts(search: Search, copy: Run, next_day: None) -> None:
    run = search(
        model=copy.manifest["config"]["model"],
        criterion="agreement",
        tolerance=0.3,
        strategy="random",
        evaluations=4,
        prior=copy.folder,
    )
    assert ids_of(run) == ids_of(copy)
    assert len(run.evaluations()) > len(copy.evaluations()), "its outcomes count"
    assert run.summary()["verified"] == run.summary()["verified_of"]


def test_exports_carry_the_stored_ids(copy: Run, tmp_path: Path, next_day: None) -> None:
    from oracle.export import export

    for form, name in (("drllm", "labels.jsonl"), ("jsonl", "sequences.jsonl")):
        export(copy, form, tmp_path / form)
        lines = [json.loads(line) for line in (tmp_path / form / name).read_text().splitlines()]
        assert [tuple(line["prompt_ids"]) for line in lines] == list(ids_of(copy).values())


def test_a_template_file_is_not_needed_again(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("Answer. " + TURNS)
    with pytest.raises(Interrupted):
        search(chat_template=str(path), limit=3, out=tmp_path / "run", stop=stops_after(1, path.unlink))
    run = resume_search(tmp_path / "run")
    assert run.sequences()["rendered"].tolist() == [f"Answer. <user>Question {i}?" for i in range(3)]
    assert run.manifest["config"]["chat_template"] == str(path)
    assert run.summary()["verified"] == run.summary()["verified_of"]


def test_another_template_option_is_refused_by_name(search: Search, tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(TURNS + "{{ mood }}")
    settings = {"chat_template": str(path), "system": "Be brief.", "template_args": ("mood=calm",), "limit": 2}
    first = search(**settings, evaluations=4)
    assert first.manifest["prompts"]["arguments"] == {"mood": "calm"}
    assert first.sequences()["rendered"][0] == "<system>Be brief.<user>Question 0?calm"
    for name, value, told in (
        ("system", None, "system none rather than Be brief."),
        ("template_args", ("mood=no",), "template args mood=no rather than mood=calm"),
        ("chat_template", True, f"chat template on rather than {path}"),
    ):
        with pytest.raises(InputError, match=re.escape(f"cannot be resumed with {told};")):
            resume_search(first.folder, settings={name: value})
    with pytest.raises(
        InputError, match=r"has the system Be brief\.: a search that starts from it needs that, not none"
    ):
        search(**{**settings, "system": None}, evaluations=4, prior=first.folder, out=tmp_path / "no")
    path.write_text("New. " + TURNS + "{{ mood }}")
    with pytest.raises(InputError, match="has the chat template digest"):
        search(**settings, evaluations=4, prior=first.folder, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_the_run_says_which_arguments_are_unread(search: Search, dated_folder: str) -> None:
    said: list[str] = []
    watch = listening(said)
    run = search(model=dated_folder, template_args=("enable_thinking=false",), limit=2, evaluations=2, watch=watch)
    wanted = "--template-arg enable_thinking changes nothing, because the tokenizer's chat template does not read it"
    assert any(line.startswith(wanted) for line in said)
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [entry["note"] for entry in log if entry["event"] == "prompts"] == [
        line for line in said if line.startswith("--template-arg")
    ]


def test_another_tokenizer_of_the_same_vocabulary_is_refused(copy: Run, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = DATED
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tiny_llama().save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    model = load_model(str(tmp_path / "other"), device="cpu")
    assert model.fingerprint == copy.manifest["model"]["fingerprint"]
    said = "the run's tokenizer is required, but the current one gives other token ids for the prompt of 's0'"
    for use in (measure_run, compare_run, OracleController.from_run):
        with pytest.raises(InputError, match=said):
            use(copy.folder, model=model)
    manifest = json.loads((copy.folder / "manifest.json").read_text())
    manifest["config"]["model"] = str(tmp_path / "other")
    (copy.folder / "manifest.json").write_text(json.dumps(manifest))
    (copy.folder / "summary.json").unlink()
    index_all(copy.folder)
    with pytest.raises(InputError, match=said):
        resume_search(copy.folder)


def test_lost_sequences_are_rendered_again_only_if_they_come_out_the_same(
    copy: Run, searched: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy.folder / "sequences.parquet").unlink()
    (copy.folder / "summary.json").unlink()
    with monkeypatch.context() as patch:
        move_clock(patch, 2)
        with pytest.raises(InputError, match="the run's prompts are lost and cannot be rendered as they were"):
            resume_search(copy.folder)
    assert resume_search(copy.folder).sequences().map(repr).equals(searched.sequences().map(repr))


def test_older_runs_are_read_and_rendered_anew_which_is_said(
    copy: Run, searched: Run, dated_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = older(copy)
    assert run.sequences()["prompt_ids"].isna().all()
    assert run.evaluations().map(repr).equals(searched.evaluations().map(repr))
    assert len(run.query("FROM sequences WHERE prompt_ids IS NULL")) == 6
    assert SearchConfig.from_dict(run.manifest["config"]).system is None
    said: list[str] = []
    watch = listening(said)
    compare_run(run.folder, controllers="full", timed=False, watch=watch)
    measure_run(run.folder, only=["features"], watch=watch)
    anew = [line for line in said if "(schema version 3) stores no token ids of its prompts" in line]
    assert len(anew) == 2
    model = load_model(dated_folder, device="cpu")
    with pytest.warns(UserWarning, match="they are rendered anew"):
        controller = OracleController.from_run(run.folder, model=model)
    assert len(controller.generate(["Question 0?"])) == 1
    (run.folder / "summary.json").unlink()
    with monkeypatch.context() as patch:
        move_clock(patch, 2)
        with pytest.raises(InputError, match=r"prompt of 's0' has \d+ tokens, but \d+ if rendered anew"):
            resume_search(run.folder)
    said.clear()
    resumed = resume_search(run.folder, watch=watch)
    assert any("they are rendered anew" in line for line in said)
    assert ids_of(resumed) == ids_of(searched), "stored from now on"
    assert rows(resumed).equals(rows(searched))


def test_an_engine_renders_only_what_is_not_rendered(searched: Run, dated_folder: str, next_day: None) -> None:
    engine = Engine(load_model(dated_folder, device="cpu"), SearchConfig(max_new_tokens=4))
    for row in searched.sequences().to_dict("records"):
        assert tuple(engine.encode(sequence_of(row))) == ids_of(searched)[row["sequence"]]


@pytest.mark.slow
def test_ray_workers_read_the_stored_prompts(search: Search, tmp_path: Path) -> None:
    from oracle.executors import Workers

    path = tmp_path / "mine.jinja"
    path.write_text("Answer. " + TURNS)
    settings = {"chat_template": str(path), "limit": 4, "evaluations": 8}
    whole = search(**settings)
    with pytest.raises(Interrupted):
        search(**settings, out=tmp_path / "run", stop=stops_after(1, path.unlink))
    run = resume_search(tmp_path / "run", workers=Workers(kind="ray", count=1))
    assert rows(run).equals(rows(whole))
