"""One kind of machine: what the engine accepts and computes under some arithmetic. Prints a JSON object a line.

Threads and instruction sets are chosen by environment variables that are read when torch is loaded, so that each kind
of machine is a process of its own: `python -m machines.cell --threads 2 --ulp 0 16 --dtype float32`.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from arithmetic import Hostile
from tiny import LAYERS, jsonl, tiny_llama, tiny_tokenizer
from zoo import MORE, ZOO, tiny

from oracle.config import EMBEDDED, SearchConfig
from oracle.engine import Engine
from oracle.errors import InputError
from oracle.models import LanguageModel, load_model
from oracle.pipeline.run import run_search

MASKS = [(), (2,), (0, 4), (1, 2, 3), (0, 1, 3, 4), tuple(range(LAYERS))]
TEXTS = ("A longer prompt, wider than a window.", "xy")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--ulp", nargs="+", type=int, default=[0, 2, 16])
    parser.add_argument("--families", nargs="+", default=[*ZOO, *MORE])
    parser.add_argument("--embedded", action="store_true", help="the embedded model as well, in float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability()}), flush=True)
    for dtype in arguments.dtype:
        for ulp in arguments.ulp:
            with Hostile(ulp) if ulp else nullcontext():
                print(json.dumps({"dtype": dtype, "ulp": ulp, **_row(arguments, dtype)}), flush=True)


def _row(arguments: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Models accepted, outputs compared and found different, allocations verified."""
    row: dict[str, Any] = {"models": 0, "accepted": 0, "outputs": 0, "mismatches": 0, "refused": []}
    for name, build in _models(arguments, dtype):
        row["models"] += 1
        try:
            model = build()
            compared, different = _outputs(model, embedded=name == EMBEDDED)
        except InputError as error:
            row["refused"].append(f"{name}: {error}")
            continue
        row["accepted"] += 1
        row["outputs"] += compared
        row["mismatches"] += different
    return row | _search(dtype)


def _models(arguments: argparse.Namespace, dtype: str) -> Iterator[tuple[str, Any]]:
    for family in arguments.families:
        network = tiny(family).to(getattr(torch, dtype))
        yield family, lambda: LanguageModel(name=family, network=network, tokenizer=tiny_tokenizer())  # noqa: B023
    if arguments.embedded and dtype == "float32":
        yield EMBEDDED, load_model


def _outputs(model: LanguageModel, *, embedded: bool) -> tuple[int, int]:
    """Outputs of the engine that were compared with plain generation, and how many were others."""
    compared = different = 0
    masks = [tuple(range(0, model.layers, step)) for step in (1, 2, 3)] if embedded else MASKS
    for scope in ("decode", "decode-last", "sequence"):
        engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=8))
        prompts = [engine.open(text) for text in TEXTS]
        requests = [(prompt, mask) for mask in masks for prompt in prompts]
        for request, (generation, _) in zip(requests, engine.generate(requests), strict=True):
            compared += 1
            different += generation.tokens != engine.alone(*request)
    return compared, different


def _search(dtype: str) -> dict[str, int]:
    """Reported allocations of a small search, and how many of them verified."""
    with tempfile.TemporaryDirectory() as folder:
        network = tiny_llama()
        network.save_pretrained(Path(folder) / "model")
        tiny_tokenizer().save_pretrained(Path(folder) / "model")
        rows = [{"id": f"s{i}", "prompt": f"Question {i}?", "references": [f"Answer {i}"]} for i in range(3)]
        config = SearchConfig(
            model=str(Path(folder) / "model"),
            data=jsonl(Path(folder) / "data.jsonl", *rows),
            dtype=dtype,
            max_new_tokens=6,
            evaluations=16,
        )
        summary = run_search(config, Path(folder) / "run").summary()
    return {"verified": summary["verified"], "reported": summary["verified_of"]}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
