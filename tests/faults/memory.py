"""Memory that runs out while a batch is decoded or scored: half the rows, and on."""

import json
import resource
from functools import partial
from pathlib import Path

import psutil
import torch
from tiny import jsonl, tiny_llama, tiny_tokenizer

import oracle.engine.engine
from faults.ground import Fault, Ground, Tries
from oracle.store import Run

__all__ = ["FAULTS"]


def few_rows(rows: int) -> None:
    """Maximum number of rows that can be decoded or scored."""
    decode, score = oracle.engine.engine.greedy_decode, oracle.engine.engine.continuation_scores

    def decoded(decoder, prompts, schedule, settings, *rest):  # type: ignore[no-untyped-def]
        if settings.rows > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return decode(decoder, prompts, schedule, settings, *rest)

    def scored(decoder, prompt, schedule, *rest, **sizes):  # type: ignore[no-untyped-def]
        if len(schedule.runs_AI) > rows:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes.")
        return score(decoder, prompt, schedule, *rest, **sizes)

    oracle.engine.engine.greedy_decode, oracle.engine.engine.continuation_scores = decoded, scored


def limit_decoding(mib: int) -> None:
    """While a batch is decoded the process may take so much more from the system; it is the system that refuses."""
    decode = oracle.engine.engine.greedy_decode

    def limited(*arguments):  # type: ignore[no-untyped-def]
        size = psutil.Process().memory_info().vms + mib * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
        try:
            return decode(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    oracle.engine.engine.greedy_decode = limited


def injected(ground: Ground, times: int) -> Tries:
    """Errors as torch raises them, above some rows."""
    settings = {"metrics": "log_likelihood"}
    whole, _ = ground.whole(**settings)
    for _ in range(times):
        out = ground.place() / "run"
        process = ground.start(ground.search(out, **settings), partial(few_rows, ground.random.randrange(1, 12)))
        code = process.wait()
        yield noted(out) or ground.compared(out, whole) if code == 0 else process.output[-500:]


def refused_by_system(ground: Ground, times: int) -> Tries:
    """Long prompts that every row reads for itself, and a limit of the system on what a process may take."""
    model = ground.folder / "wide"
    wide = tiny_llama(hidden_size=256, num_key_value_heads=4, max_position_embeddings=4096)
    wide.save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    rows = [{"prompt": f"{number}" * 250, "references": ["a", "b"]} for number in range(16)]
    data = jsonl(ground.folder / "long.jsonl", *rows)
    settings = {"model": model, "data": data, "scope": "sequence", "evaluations": 8, "strategy": "random"}
    whole, _ = ground.whole(**settings)
    for number in range(times):
        out = ground.place() / "run"
        process = ground.start(ground.search(out, **settings), partial(limit_decoding, 16 + 4 * number))
        code = process.wait()
        yield noted(out) or ground.compared(out, whole) if code == 0 else process.output[-500:]


def noted(out: Path) -> str | None:
    """What is wrong if the log of the run does not say that memory ran out."""
    events = [json.loads(line)["event"] for line in (Run.open(out).folder / "log.jsonl").read_text().splitlines()]
    return None if "memory is out" in events else "the log does not say that memory ran out"


FAULTS = [
    Fault(name="memory out at a large batch (injected)", tries=injected, times=5, quick=0),
    Fault(name="memory out at a large batch (RLIMIT_AS)", tries=refused_by_system, times=3, quick=0),
]
