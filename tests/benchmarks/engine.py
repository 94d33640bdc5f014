"""The engine beside the naive way, on the same sequence and the same allocations, in one run.

The naive way is what published code does: one allocation at a time, batch 1, by the library's own `generate` (or one
plain forward) on the model cut to its layers, the prompt's pass included, since nothing is cached between allocations.
Every output of the engine is compared with it.

    python tests/benchmarks/engine.py [--json]
"""

import argparse
import json
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations

import numpy as np
import psutil
import torch

from oracle.allocations import random_mask
from oracle.config import SearchConfig
from oracle.engine import Engine, Generation, PromptState
from oracle.engine.schedule import as_masks
from oracle.metrics import bound_for, score_text
from oracle.models import load_model, truncated
from oracle.sequences import load_sequences
from oracle.types import Allocation

MASKS = 128
NAIVE_MASKS = 32
ROUNDS = 3
MEMORY_MIB = 256
SEQUENCE = "facts-001"


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds that some work takes, and its result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def peak_flops() -> float:
    """Rate of a large float32 matrix product, best of five."""
    a, b = torch.randn(4096, 1024), torch.randn(1024, 4096)
    return 2 * 4096 * 4096 * 1024 / min(timed(lambda: a @ b)[0] for _ in range(5))


def flops_per_token(engine: Engine, cost: float) -> float:
    """Multiplications and additions of one generated token: weights of its layers, and the head."""
    network = engine.model.network
    layer = sum(weight.numel() for weight in engine.model.decoder._layers[0].parameters() if weight.dim() > 1)
    return 2 * (cost * layer + network.get_output_embeddings().weight.numel())


def naive_generate(engine: Engine, text: str, allocations: list[Allocation]) -> tuple[float, list[tuple[int, ...]]]:
    """Seconds an allocation, and outputs, one `generate` each."""
    prompt = engine.open(text)
    seconds, outputs = timed(lambda: [engine.alone(prompt, allocation) for allocation in allocations])
    return seconds / len(allocations), outputs  # type: ignore[return-value]


@torch.inference_mode()
def naive_score(engine: Engine, prompt: PromptState, allocation: Allocation, ids: list[int]) -> float:
    """Log-likelihood of a continuation by one plain forward of the cut model (scope `sequence`)."""
    cut = truncated(engine.model.network, allocation)
    tokens = torch.cat([prompt.tokens, torch.tensor(ids)])[None]
    logits = cut(tokens, use_cache=False, logits_to_keep=len(ids) + 1).logits[0, :-1]
    return float(logits.double().log_softmax(-1)[range(len(ids)), ids].mean())


def products_alone(engine: Engine, work: Callable[[], object]) -> Callable[[], None]:
    """Repeats the matrix products of some work by themselves: what would remain if all else cost nothing.

    By the library, and those of the vocabulary head in float32: call it with `by_the_library`.
    """
    products: list[tuple[torch.nn.Linear, int]] = []

    def note(module: torch.nn.Linear, args: tuple[torch.Tensor]) -> None:
        products.append((module, args[0].shape[:-1].numel()))

    linears = [module for module in engine.model.network.modules() if isinstance(module, torch.nn.Linear)]
    hooks = [linear.register_forward_pre_hook(note) for linear in linears]
    work()
    for hook in hooks:
        hook.remove()
    inputs = {
        (linear.in_features, rows): torch.randn(rows, linear.in_features).to(linear.weight) for linear, rows in products
    }

    @torch.inference_mode()
    def repeat() -> None:
        for linear, rows in products:
            linear(inputs[linear.in_features, rows])

    return repeat


@contextmanager
def by_the_library(engine: Engine) -> Iterator[None]:
    """Products of the library only, in float32: neither those of batches nor proposals of the vocabulary head."""
    decoder = engine.model.decoder
    before = decoder.proposals, engine.products
    decoder.proposals, engine.products = None, False
    try:
        yield
    finally:
        decoder.proposals, engine.products = before


def generation(engine: Engine, text: str, references: tuple[str, ...], masks: list[Allocation]) -> dict[str, object]:
    """Complete decoding, and decoding under a ROUGE-L criterion that may drop rows."""
    prompt = engine.open(text)
    requests = [(prompt, mask) for mask in masks]
    schedule = engine.units.steps(masks)
    results = engine._decode(requests, schedule)

    def decode() -> list[Generation]:
        return engine._decode(requests, schedule, products=engine.products)

    def whole() -> None:
        with by_the_library(engine):
            engine.generate(requests)

    with by_the_library(engine):
        products = products_alone(engine, lambda: engine._decode(requests, schedule))

    def own_products() -> None:
        with engine.model.decoder.batching(len(masks)):
            products()

    # In turn, and the middle of each: the machine's own speed changes from minute to minute.
    works = (decode, lambda: engine.generate(requests), whole, products, own_products)
    rounds = [(*(timed(work)[0] for work in works), peak_flops()) for _ in range(ROUNDS)]
    seconds, resolved, in_full, alone, own, peak = np.median(rounds, axis=0).tolist()
    settled = engine.generate(requests)
    sample = list(range(0, len(masks), len(masks) // NAIVE_MASKS))
    naive, outputs = naive_generate(engine, text, [masks[index] for index in sample])
    mismatches = sum(settled[index][0].tokens != output for index, output in zip(sample, outputs, strict=True))
    [(full, _)] = engine.generate([(prompt, tuple(range(engine.model.layers)))])
    threshold = score_text("rougeL", engine.model.text(full.tokens), references)
    bound = bound_for("rougeL", references, full.tokens, engine.model.words_per_token)
    pruning, pruned = timed(lambda: engine.generate(requests, [(bound, threshold)] * len(masks)))
    mismatches += wrongly_dropped(engine, references, threshold, settled, pruned)
    tokens = sum(len(result.tokens) - 1 for result in results)
    work = sum((len(r.tokens) - 1) * flops_per_token(engine, len(m)) for m, r in zip(masks, results, strict=True))
    return {
        "naive_generate_seconds": naive,
        "generate_seconds": resolved / len(masks),
        "generate_speedup": naive / (resolved / len(masks)),
        "allocations_per_second": len(masks) / resolved,
        "reruns": sum(rerun for _, rerun in settled),
        "speedup_before_reruns": naive / (seconds / len(masks)),
        "proposes_in_low_precision": engine.model.decoder.proposals is not None,
        "products": "oneDNN" if engine.products else "torch",
        "generate_speedup_by_the_library": naive / (in_full / len(masks)),
        "speedup_of_products_alone": naive / (alone / len(masks)),
        "speedup_of_own_products_alone": naive / (own / len(masks)),
        "tokens_per_second": tokens / seconds,
        "criterion_speedup": naive / (pruning / len(masks)),
        "rows_dropped": sum(result.dropped for result, _ in pruned),
        "utilisation": work / seconds / peak,
        "utilisation_of_products_alone": work / alone / peak,
        "mismatches": mismatches,
    }


def wrongly_dropped(
    engine: Engine,
    references: tuple[str, ...],
    threshold: float,
    complete: list[tuple[Generation, bool]],
    pruned: list[tuple[Generation, bool]],
) -> int:
    """Outcomes under a criterion that contradict the complete ones."""
    wrong = 0
    for (whole, _), (part, _) in zip(complete, pruned, strict=True):
        if part.dropped:
            wrong += score_text("rougeL", engine.model.text(whole.tokens), references) >= threshold
        else:
            wrong += whole.tokens != part.tokens
    return wrong


def scoring(engine: Engine, text: str, reference: str, masks: list[Allocation]) -> dict[str, float]:
    """Likelihood of the reference, against one plain forward each."""
    plain = Engine(engine.model, replace(engine.config, scope="sequence"))
    prompt = plain.open(text)
    ids = plain.model.tokenizer(reference, add_special_tokens=False)["input_ids"]
    centre = random_mask(engine.model.layers, engine.model.layers // 2, np.random.default_rng(1))
    layers = range(engine.model.layers)
    flips = [set(pair) for count in (1, 2) for pair in combinations(layers, count)]
    neighbours = [tuple(sorted(set(centre) ^ flip)) for flip in flips]
    found: dict[str, float] = {"score_mismatches": 0}
    for name, group in {"random": masks, "neighbours": neighbours}.items():
        sample = group[:: len(group) // NAIVE_MASKS][:NAIVE_MASKS]
        plain.log_likelihoods(prompt, sample, ids)
        seconds, values = timed(lambda group=group: plain.log_likelihoods(prompt, group, ids))
        naive, wanted = timed(lambda sample=sample: [naive_score(plain, prompt, mask, ids) for mask in sample])
        found[f"score_speedup_{name}"] = naive / len(sample) / (seconds / len(group))
        near = np.isclose([values[group.index(mask)] for mask in sample], wanted, atol=1e-3)
        found["score_mismatches"] += int((~near).sum())
    return found


def enumeration(engine: Engine, text: str) -> dict[str, float]:
    """All masks of at most 4 layers under the same-output criterion."""
    prompt = engine.open(text)
    layers = range(engine.model.layers)
    [(full, _)] = engine.generate([(prompt, tuple(layers))])
    masks = sorted(mask for count in range(5) for mask in combinations(layers, count))
    runs_NL = as_masks(masks, len(layers))
    list(engine.reproduces(prompt, runs_NL[:512], full.tokens))
    engine.executions = 0
    seconds, answers = timed(lambda: [a for _, part in engine.reproduces(prompt, runs_NL, full.tokens) for a in part])
    executions = engine.executions
    sample = np.random.default_rng(2).choice(len(masks), NAIVE_MASKS, replace=False).tolist()
    naive, outputs = naive_generate(engine, text, [masks[index] for index in sample])
    wrong = sum((o == full.tokens) != answers[i] for i, o in zip(sample, outputs, strict=True))
    return {
        "enumerated": len(masks),
        "enumeration_per_second": len(masks) / seconds,
        "enumeration_layer_executions_per_mask": executions / len(masks),
        "same_output_speedup": naive / (seconds / len(masks)),
        "same_output_mismatches": wrong,
    }


def memory(engine: Engine, text: str, masks: list[Allocation]) -> float:
    """Peak growth while decoding and scoring, over the setting."""
    small = Engine(engine.model, replace(engine.config, memory=MEMORY_MIB))
    process, done, peak = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    prompt = small.open(text)
    small.generate([(prompt, mask) for mask in masks + masks])
    small.log_likelihoods(prompt, masks + masks, list(prompt.tokens.tolist()))
    done.set()
    thread.join()
    return (peak[0] - before) / (MEMORY_MIB * 2**20)


def main() -> None:
    """Runs everything and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    arguments = parser.parse_args()
    engine = Engine(load_model(device=arguments.device), SearchConfig(max_new_tokens=32, device=arguments.device))
    [sequence] = [s for s in load_sequences("instruct") if s.id == SEQUENCE]
    rng = np.random.default_rng(0)
    layers = engine.model.layers
    masks = [random_mask(layers, 1 + index % (layers - 1), rng) for index in range(MASKS)]
    figures: dict[str, object] = {
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    }
    figures["memory_over_setting"] = memory(engine, sequence.prompt, masks)
    figures.update(generation(engine, sequence.prompt, sequence.references, masks))
    figures.update(scoring(engine, sequence.prompt, max(sequence.references, key=len), masks))
    figures.update(enumeration(engine, sequence.prompt))
    figures["mismatches"] += figures.pop("score_mismatches") + figures.pop("same_output_mismatches")
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:40} {value:,.4g}" if isinstance(value, float) else f"{name:40} {value}")


if __name__ == "__main__":
    main()
