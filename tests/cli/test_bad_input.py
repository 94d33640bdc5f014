"""Whatever a user gets wrong is one line on standard error, exit code 2, and nothing is left behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import jsonl, tiny_tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from oracle.store import Run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_HUB_OFFLINE=1 does, which is read when the library is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with things in it that are no good."""
    monkeypatch.chdir(tmp_path)
    good = {"prompt": "Question?", "references": ["Answer"], "choices": ["a", "b"], "answer": 0}
    jsonl(tmp_path / "good.jsonl", good, good)
    jsonl(tmp_path / "bare.jsonl", {"prompt": "Question?"})
    jsonl(tmp_path / "long.jsonl", {"id": "short", **good}, {**good, "id": "long", "prompt": "x" * 300})
    jsonl(tmp_path / "twice.jsonl", {"id": "a", **good}, {"id": "a", **good})
    Path("empty.jsonl").write_text("")
    Path("broken.jsonl").write_text(json.dumps(good) + "\n" + '{"prompt": "b"\n')
    Path("file").write_text("mine")
    Path("no-model").mkdir()
    Path("there").mkdir()
    Path("there/mine").write_text("mine")
    return tmp_path


@pytest.fixture(scope="session")
def encoder_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "t5"
    T5ForConditionalGeneration(
        T5Config(vocab_size=258, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def content(folder: Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def refused(answer: tuple[int, str, str], message: str) -> None:
    code, out, err = answer
    assert (code, out) == (2, "")
    assert err.startswith("oracle: error: ")
    assert err.count("\n") == 1 and err.endswith("\n")
    assert message in err


SEARCHES = {
    "a missing file": ("--data missing.jsonl", "no such file 'missing.jsonl'"),
    "a missing file, nearly there": ("--data god.jsonl", "nearest: 'good.jsonl'"),
    "no data set of that name": ("--data no-such-data-set", "cannot load data set 'no-such-data-set'"),
    "no sequences": ("--data empty.jsonl", "empty.jsonl must have at least one sequence"),
    "broken JSON": ("--data broken.jsonl", "broken.jsonl line 2 must be one JSON object"),
    "an unknown column": ("--prompt-column promt", "has no column 'promt'"),
    "an unknown reference column": ("--reference-column answers", "has no column 'answers'"),
    "an id twice": ("--data twice.jsonl", "ids must be unique"),
    "an unknown task": ("--tasks cooking", "unknown task 'cooking'"),
    "no references": ("--data bare.jsonl", "--reference-column"),
    "no choices": ("--data bare.jsonl --criterion choice_accuracy", "--choices-column"),
    "a prompt beyond the context": ("--data long.jsonl", "sequence 'long': a prompt of 300 tokens and 4 new ones"),
    "an output beyond the context": ("--max-new-tokens 1000", "do not fit the model's context of 256 tokens"),
    "an unknown criterion": ("--criterion rogueL", "unknown metric 'rogueL'"),
    "an unknown metric": ("--metrics likelihood", "unknown metric 'likelihood'"),
    "an unknown scope": ("--scope prompt", "--scope needs one of decode, decode-last, sequence, not 'prompt'"),
    "an unknown model": ("--model unknown/model", "cannot load the model 'unknown/model'"),
    "no model in the folder": ("--model no-model", "the folder 'no-model' contains no config.json"),
    "a file as a model": ("--model file", "'file' is a file; give the folder of a saved model"),
    "a path as a model": ("--model ./no-such", "no such folder './no-such'; give a folder, a GGUF file, a hub id"),
    "a longer path as a model": ("--model a/b/c", "no such folder 'a/b/c'; give a folder"),
    "an embedded model, nearly there": ("--model smollm2-135m", "; nearest: 'smollm2-135m-instruct'; give"),
    "a model as data": ("--data MODEL", "is the folder of a model (--model); give a data file"),
    "a run as data": ("--data RUN", "is the folder of a run ('oracle search --from' starts from a run)"),
    "a GGUF file that is none": ("--model missing.gguf", "GGUF file not found: 'missing.gguf'"),
    "an unknown dtype": ("--dtype float23", "float64 (fp64, double), not 'float23'; nearest: 'float32'"),
    "a dtype that is no float": ("--dtype int8", "not 'int8'; the smallest are bfloat16 and float16"),
    "an unknown device": ("--device gpu", "--device needs auto, cpu, cuda or cuda:N, not 'gpu'; nearest: 'cuda'"),
    "a GPU that is not there": ("--device cuda:99", "--device cuda:99 needs a"),
    "a negative limit": ("--limit -1", "--limit needs at least 1, not -1"),
    "no tokens": ("--max-new-tokens 0", "--max-new-tokens needs at least 1, not 0"),
    "no evaluations": ("--evaluations -3", "--evaluations needs at least 1, not -3"),
    "no rows": ("--batch-rows 0", "--batch-rows needs at least 1, not 0"),
    "a negative tolerance": ("--tolerance -0.1", "--tolerance needs at least 0, not -0.1"),
    "a tolerance that is no number": ("--tolerance nan", "--tolerance needs at least 0, not nan"),
    "a negative seed": ("--seed -1", "--seed needs at least 0, not -1"),
    "a seed that no manifest holds": ("--seed 9223372036854775808", "--seed needs at most 9223372036854775807"),
    "a word for a number": ("--limit many", "--limit needs a whole number, not 'many'"),
    "an unknown option": ("--colour", "unrecognized arguments: --colour"),
    "a folder that is there": ("--out there", "'there' already exists; choose another --out"),
    "a file that is there": ("--out file", "'file' already exists; choose another --out"),
    "a place in a file": ("--out file/run", "cannot write to 'file/run'"),
    "a place that cannot be": ("--out /dev/null/run", "cannot write to '/dev/null/run'"),
    "a name too long": (f"--out {'x' * 300}", "cannot write to 'xxx"),
}


@pytest.mark.parametrize("case", SEARCHES)
def test_a_search_is_refused(case: str, command: Command, tiny_folder: Path, place: Path, run: Path) -> None:
    changes, message = SEARCHES[case]
    changes = changes.replace("MODEL", str(tiny_folder)).replace("RUN", str(run))
    before = content(place)
    small = ["--model", tiny_folder, "--data", "good.jsonl", "--max-new-tokens", 4, "--evaluations", 8, "--out", "run"]
    # The last of two equal options counts.
    refused(command("search", *small, *changes.split()), message)
    assert content(place) == before


def test_a_model_that_is_not_decoder_only_is_refused(command: Command, encoder_decoder: Path, place: Path) -> None:
    before = content(place)
    answer = command("search", "--model", encoder_decoder, "--data", "good.jsonl", "--out", "run")
    refused(answer, "a decoder-only model is required")
    assert content(place) == before


@pytest.fixture(scope="module")
def run(search: Callable[..., Run]) -> Path:
    return search(evaluations=8, limit=2).folder


QUESTIONS = {
    "no command": ("", "the following arguments are required: COMMAND"),
    "an unknown command": (
        "serach",
        "cache, completion, not 'serach'; nearest: 'search'",
    ),
    "no run": ("query", "the following arguments are required: RUN"),
    "a run that is not there": ("query nowhere", "a run folder is required, but 'nowhere' does not exist"),
    "a folder that is no run": ("query there", "a run folder is required, but 'there' has no manifest.json"),
    "a file that is no run": ("figures file", "a run folder is required, but 'file' is a file"),
    "an unknown sequence": ("query RUN --sequence s9", "the run has no sequence 's9'"),
    "an unknown metric": ("query RUN --criterion rogueL", "unknown metric 'rogueL'"),
    "a metric without values": ("query RUN --criterion log_likelihood", "search again with --criterion log_lik"),
    "figures of an unknown metric": ("figures RUN --criterion rogueL", "unknown metric 'rogueL'"),
    "more than everything": ("query RUN --budget 1.5", "--budget needs a fraction of the layers from 0 to 1"),
    "less than nothing": ("query RUN --budget -0.5", "--budget needs a fraction of the layers from 0 to 1"),
    "no number": ("query RUN --budget nan", "--budget needs a fraction of the layers from 0 to 1, not nan"),
    "a word": ("query RUN --budget half", "--budget needs a number, not 'half'"),
    "one sequence, less than nothing": ("query RUN --sequence s0 --budget -1", "--budget needs a fraction"),
    "one sequence, no number": ("query RUN --sequence s0 --budget nan", "--budget needs a fraction"),
    "figures into a file": ("figures RUN --out file", "cannot write figures to 'file'"),
    "figures below a file": ("figures RUN --out file/figures", "cannot write figures to 'file/figures'"),
}


@pytest.mark.parametrize("case", QUESTIONS)
@pytest.mark.parametrize("json_wanted", [False, True])
def test_a_question_is_refused(case: str, json_wanted: bool, command: Command, run: Path, place: Path) -> None:
    words, message = QUESTIONS[case]
    before = content(place), content(run)
    arguments = [run if word == "RUN" else word for word in words.split()]
    if json_wanted and len(arguments) > 1:
        arguments.append("--json")
    refused(command(*arguments), message)
    assert (content(place), content(run)) == before


def test_a_budget_below_the_cheapest_allocation_is_refused(command: Command, search: Callable[..., Run]) -> None:
    only_full = search(evaluations=1, limit=2).folder
    refused(command("query", only_full, "--budget", 0.5), "the mean budget must be at least 1.0000")
