"""`oracle cache`: what is kept, whether it is whole, and how to be rid of it."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from oracle.cli.cache import add_cache_options, open_store, size
from oracle.cli.parsing import Parser
from oracle.store.hidden import LIMIT, HiddenStore, Key

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three shards of a model and one of another, where commands look by default."""
    folder = tmp_path / "hidden"
    monkeypatch.setenv("LAYER_ORACLE_HIDDEN", str(folder))
    store = HiddenStore(folder)
    for model, name, count in (("a" * 16, "big \x1b[31m one", 3), ("b" * 16, "small", 1)):
        for number in range(count):
            key = Key(
                model=model,
                dtype="float32",
                unit="layer",
                scope="decode",
                prompt=(number,),
                generated=(),
                allocation=(0,),
                code="1",
            )
            store.put(key, np.ones((2, 3, 400), dtype=np.float32), name=name)
    return folder


def damage(folder: Path) -> Path:
    path = sorted(folder.rglob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    return path


def test_info(command: Command, folder: Path) -> None:
    code, out, err = command("cache", "info", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["folder"], found["shards"], found["limit"], found["damaged"]) == (str(folder), 4, LIMIT, 0)
    assert [(model["model"], model["shards"]) for model in found["models"]] == [
        (f"{'a' * 16}-float32", 3),
        (f"{'b' * 16}-float32", 1),
    ]
    assert found["bytes"] == sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    code, out, _ = command("cache", "info", "--cache-limit", "2GiB")
    assert code == 0 and "4 shards" in out and "of at most 2.0 GiB" in out and "small" in out
    assert "\x1b" not in out


def test_nothing_kept_is_no_error(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("cache", "info", "--cache", tmp_path / "none", "--json")
    assert (code, json.loads(out)["shards"], (tmp_path / "none").exists()) == (0, 0, False)
    assert command("cache", "verify", "--cache", tmp_path / "none")[0] == 0
    assert command("cache", "prune", "--all", "--cache", tmp_path / "none")[0] == 0


def test_verify(command: Command, folder: Path) -> None:
    assert command("cache", "verify") == (0, "4 shards, 0 damaged\n", "")
    path = damage(folder)
    code, out, err = command("cache", "verify", "--json")
    assert (code, json.loads(out)["damaged"]) == (1, [str(path)])
    assert err.startswith("oracle: warning: ") and str(path) in err and len(err.splitlines()) == 1
    assert command("cache", "verify")[:2] == (0, "3 shards, 0 damaged\n")
    assert "1 damaged shard set aside" in command("cache", "info")[1]


def test_prune(command: Command, folder: Path) -> None:
    assert json.loads(command("cache", "prune", "--to", "24KB", "--json")[1])["deleted"] == 2
    assert command("cache", "prune", "--model", "small")[1].startswith("1 shard deleted")
    damage(folder)
    command("cache", "verify")
    assert command("cache", "prune", "--all")[1].endswith("; 0 bytes left\n")
    assert not list(folder.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["prune"], "needs --to SIZE, --model NAME, or --all"),
        (["prune", "--all", "--to", "1"], "omit --all, or omit --to and --model"),
        (["prune", "--to", "much"], "a size such as 500MiB or 4GiB is required, not 'much'"),
        (["prune", "--model", "none"], "stored are those of"),
        (["info", "--cache", __file__], "is a file; choose another --cache"),
        ([], "required: ACTION"),
    ],
)
def test_bad_input(command: Command, folder: Path, arguments: list[str], wanted: str) -> None:
    code, out, err = command("cache", *arguments)
    assert (code, out) == (2, "") and wanted in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("12", 12), ("12 B", 12), ("1k", 1024), ("1.5MiB", 3 * 2**19), ("2GB", 2 * 10**9), ("1 tib", 2**40)],
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.2.3", "1 PiB", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        size(text)


def test_options_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = Parser()
    add_cache_options(parser)
    monkeypatch.delenv("LAYER_ORACLE_HIDDEN", raising=False)
    monkeypatch.setenv("LAYER_ORACLE_CACHE", str(tmp_path / "root"))

    def opened(*arguments: str) -> HiddenStore | None:
        return open_store(parser.parse_args(arguments))

    assert opened("--no-cache") is None
    assert (opened().folder, opened().limit) == (tmp_path / "root" / "hidden", LIMIT)
    assert (opened("--cache", "x", "--cache-limit", "0").folder, opened("--cache-limit", "0").limit) == (Path("x"), 0)
    monkeypatch.setenv("LAYER_ORACLE_HIDDEN", str(tmp_path / "elsewhere"))
    assert opened().folder == tmp_path / "elsewhere"
    with pytest.raises(ValueError, match="--cache and --no-cache exclude each other"):
        opened("--no-cache", "--cache", "x")


def test_no_model_is_waited_for(folder: Path) -> None:
    script = "import sys, oracle.cli; oracle.cli.main(['cache', 'verify']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
