"""One family: its outputs under many allocations, in both scopes, against a reference without any cache."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import get_args

import torch
from tiny import tiny_tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from families.tiny_families import VOCABULARY, build
from oracle.config import Scope, SearchConfig
from oracle.engine import Engine
from oracle.engine.prompts import prompt_pass
from oracle.errors import InputError, reason_of
from oracle.models import LanguageModel, truncated
from oracle.models.introspection import find_layers
from oracle.types import Allocation

__all__ = ["Row", "outputs", "sweep"]

PROMPTS = (1, 3, 9, 21)
"""Lengths of the prompts in tokens, some wider than a sliding window."""

NEW_TOKENS = 6

LEAST_LEAD = 1e-3
"""Lead in logits, in float32, that rounding does not reverse in models of this size."""


@dataclass(kw_only=True)
class Row:
    """The row of a family.

    Attributes:
        family: name of the family.
        state: accepted, refused, not built (the library cannot build it tiny) or crashed.
        why: reason of a refusal or failure.
        outputs: outputs that were compared.
        ties: outputs that part from the reference where two tokens lead by less than rounding.
        different: outputs that part from it elsewhere.
    """

    family: str
    state: str = "accepted"
    why: str = ""
    outputs: int = 0
    ties: int = 0
    different: list[str] = field(default_factory=list)


def sweep(family: str) -> Row:
    """Builds a family and compares its outputs with the reference."""
    row = Row(family=family)
    try:
        network = build(family)
    except Exception as error:
        row.state, row.why = "not built", reason_of(error)
        return row
    try:
        outputs(network, row)
    except InputError as error:
        row.state, row.why = "refused", str(error)
    except Exception as error:
        row.state, row.why = "crashed", reason_of(error)
    return row


def outputs(network: PreTrainedModel, row: Row) -> None:
    """Compares the outputs of a model and counts them in its row."""
    model = LanguageModel(name=row.family, network=network, tokenizer=tiny_tokenizer())
    model.__dict__["stop"] = frozenset({VOCABULARY - 1})
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(2, VOCABULARY, (length,), generator=generator) for length in PROMPTS]
    for scope in get_args(Scope):
        engine = Engine(model, SearchConfig(scope=scope, max_new_tokens=NEW_TOKENS, generation_config=False))
        states = [
            prompt_pass(model.decoder, prompt.tolist(), scope)
            for prompt in prompts
            if len(prompt) > 1 or scope != "decode-last"
        ]
        requests = [(state, mask) for state in states for mask in masks(model.layers)]
        generations = engine.generate(requests)
        for (state, mask), (generation, _) in zip(requests, generations, strict=True):
            wanted, leads = reference(network, state.tokens, mask, scope, model.stop)
            row.outputs += 1
            if generation.tokens == wanted:
                continue
            place = next(
                (
                    at
                    for at, (ours, theirs) in enumerate(zip(generation.tokens, wanted, strict=False))
                    if ours != theirs
                ),
                min(len(generation.tokens), len(wanted)) - 1,
            )
            if leads[place] <= min(model.decoder.rounding.near_tie, LEAST_LEAD):
                row.ties += 1
            else:
                row.different.append(f"{scope}, {len(state.tokens)} tokens, layers {mask}, token {place + 1}")


def masks(layers: int) -> list[Allocation]:
    """All layers, none, and some in between."""
    every = tuple(range(layers))
    return list(dict.fromkeys([every, (), every[1:], every[::2], every[-1:]]))


@torch.inference_mode()
def reference(
    network: PreTrainedModel, prompt_P: Tensor, mask: Allocation, scope: str, stop: frozenset[int]
) -> tuple[tuple[int, ...], list[float]]:
    """Greedy tokens and the lead of each, from a whole forward pass per token, without a cache.

    In scope `sequence` by the cut model; in scope `decode` by the full model, whose skipped layers are undone for the
    generated tokens (in `decode-last` from the prompt's last token on): their keys and values of the prompt stay, as
    does what the layers make of it.
    """
    cut = truncated(network, mask) if scope == "sequence" else network
    ids, tokens, leads = prompt_P[None], [], []
    whole = len(prompt_P) - (scope == "decode-last")
    owner, name = find_layers(network)
    layers: Seq[nn.Module] = getattr(owner, name)
    skipped = [] if scope == "sequence" else [layer for place, layer in enumerate(layers) if place not in mask]

    def undo(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> object:
        given = args[0] if args else kwargs["hidden_states"]
        result = output[0] if isinstance(output, tuple) else output
        result = torch.cat([result[:, :whole], given[:, whole:]], dim=1)
        return (result, *output[1:]) if isinstance(output, tuple) else result

    handles = [layer.register_forward_hook(undo, with_kwargs=True) for layer in skipped]
    try:
        while len(tokens) < NEW_TOKENS:
            best = cut(input_ids=ids, use_cache=False).logits[0, -1].float().topk(2)
            tokens.append(int(best.indices[0]))
            leads.append(float(best.values[0] - best.values[1]))
            ids = torch.cat([ids, best.indices[None, :1]], dim=1)
            if tokens[-1] in stop:
                break
    finally:
        for handle in handles:
            handle.remove()
    return tuple(tokens), leads
