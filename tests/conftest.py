"""Tiny random models, offline: the fixtures that most tests share."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from oracle.campaign import Stop, never
from oracle.config import SearchConfig
from oracle.models import LanguageModel, load_model
from oracle.progress import Watch, silent
from oracle.runner import run_search
from oracle.store import Run

# A busy machine is no fault of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Threads cost more than they give on models this small.
torch.set_num_threads(1)

LAYERS = 5
VOCABULARY = 258  # bytes, a stop token, padding


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes: any text is representable, nothing needs training."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([*alphabet, "</s>", "<pad>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")


def tiny_llama(seed: int = 0, **changes: object) -> PreTrainedModel:
    """A random Llama of five narrow layers, whose layers matter: deleting one changes the output."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "eos_token_id": 256,
        "bos_token_id": None,
        "pad_token_id": 257,
        "initializer_range": 0.2,
        **changes,
    }
    return LlamaForCausalLM(LlamaConfig(**settings)).eval()


@pytest.fixture(autouse=True, scope="session")
def hidden_states_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hidden states that tests keep are not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYER_ORACLE_HIDDEN", str(tmp_path_factory.mktemp("hidden")))
        yield


@pytest.fixture(scope="session")
def tiny_model() -> LanguageModel:
    """The tiny Llama, in memory."""
    return LanguageModel(name="tiny", network=tiny_llama(), tokenizer=tiny_tokenizer())


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama, saved as a user's model would be."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def sequences_file(tmp_path: Path) -> Path:
    """Six short sequences of two tasks."""
    path = tmp_path / "sequences.jsonl"
    lines = [
        f'{{"id": "s{i}", "task": "{"ab"[i % 2]}", "prompt": "Question {i}?", "references": ["Answer {i}", "{i}"]}}'
        for i in range(6)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def jsonl(path: Path, *rows: dict[str, object]) -> str:
    """Writes rows as a data set; returns its name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="session")
def search(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Searches six short sequences into a new folder."""
    rows = [{"id": f"s{i}", "prompt": f"Question {i}?", "references": [f"Answer {i}", f"{i}"]} for i in range(6)]
    data = jsonl(tmp_path_factory.mktemp("data") / "sequences.jsonl", *rows)

    def run(
        *,
        out: Path | None = None,
        watch: Watch = silent,
        prior: Path | None = None,
        stop: Stop = never,
        **changes: object,
    ) -> Run:
        settings = {"model": str(tiny_folder), "data": data, "max_new_tokens": 6, "evaluations": 20}
        settings = {**settings, "strategy": "spread", **changes}
        out = out or tmp_path_factory.mktemp("runs") / "run"
        return run_search(SearchConfig(**settings), out, prior=prior, watch=watch, stop=stop)

    return run


@pytest.fixture(scope="session")
def embedded_model() -> LanguageModel:
    """SmolLM2-135M-Instruct, converted once into the user's cache."""
    return load_model()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: exit code, standard output, standard error."""
    from oracle.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run
