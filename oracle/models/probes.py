"""What is found out about a model before use: whether its layers can be run one by one, and what else it allows."""

import inspect
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from oracle.errors import InputError
from oracle.models.causal import is_causal
from oracle.models.introspection import ExpertChoices, Positions, plain_tokens, refuse_running_states
from oracle.models.kept import KeptMeasurement
from oracle.models.kv_cache import PassCache, RowCache, States
from oracle.models.layer_runner import LayerRunner
from oracle.models.layer_stubs import tensors
from oracle.models.proposed_head import ProposedHead
from oracle.models.rounding import MULTIPLE, Rounding, measure_rounding
from oracle.utils.cores import Cores, forks

__all__ = ["Findings", "probe"]

LARGE = 30_000_000
"""Number of weights from which rounding is measured in several processes, and kept for the next command."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a model allows; each is an attribute of `oracle.models.decoder.Decoder`, and described there."""

    positions: Positions
    rounding: Rounding
    width: int
    vocabulary: int
    state_width: int
    plain_head: bool
    proposals: ProposedHead | None
    shares_prompts: bool


@torch.inference_mode()
def probe(runner: LayerRunner) -> Findings:
    """Verifies that running layers one by one reproduces the model, and finds out what else it allows.

    Raises:
        InputError: if it does not, or the model is not decoder-only.
    """
    name = type(runner.model).__name__
    refuse_running_states(runner.model)
    a, b, c, d = plain_tokens(runner.model)
    tokens_RT = torch.tensor([[a, b, c], [a, b, b]], device=runner.device)
    with ExpertChoices() as choices:
        plain_RTV = runner.plain_logits(tokens_RT)
    if not plain_RTV.isfinite().all():
        raise InputError(
            f"{name} gives logits that are not finite in {runner.model.dtype}: a weight is damaged or the dtype is "
            "too narrow; restore the checkpoint, or choose --dtype float32"
        )
    if not is_causal(runner.model, tokens_RT, plain_RTV, d):
        raise InputError(
            f"a decoder-only model is required, but tokens of {name} see later ones; choose a causal model"
        )
    cache = _CountingCache(runner.layers, 3)
    hidden_RTD = runner.run_all(tokens_RT, cache)
    _check_states(runner, cache)
    _check_rows(runner)
    embeddings = runner.model.get_input_embeddings().weight
    assert isinstance(embeddings, Tensor)
    placed = _takes_positions(runner, tokens_RT)
    weights = sum(weight.numel() for weight in runner.model.parameters())
    rounding = measure_rounding(
        runner.logits,
        runner.last_rows,
        padding=int(placed),
        layers=runner.layers,
        vocabulary=len(embeddings),
        device=runner.device,
        chooses=choices.seen,
        products=runner.products is not None,
        processes=_processes(runner) if weights >= LARGE else 1,
        kept=KeptMeasurement("rounding", runner.model) if weights >= LARGE else None,
    )
    if not _same(runner.finish(hidden_RTD), plain_RTV, rounding):
        raise InputError(
            f"running the layers of {name} individually does not reproduce its logits ({_why(runner, tokens_RT)}); "
            "choose another model"
        )
    normed_RTD = runner.normed(hidden_RTD)
    plain_head = torch.equal(runner.head(normed_RTD), plain_RTV)
    proposals = ProposedHead.of(runner.head) if plain_head else None
    if proposals is not None:
        largest = max(rounding.logits, proposals.difference(normed_RTD.flatten(0, 1)))
        rounding = replace(rounding, logits=largest, batches=max(rounding.batches, largest))
    positions = Positions.of(runner.model)
    return Findings(
        # Positions counted by slots of the cache would be shifted in rows of other lengths.
        positions=replace(positions, mix=positions.mix and placed),
        rounding=rounding,
        width=hidden_RTD.shape[-1],
        vocabulary=plain_RTV.shape[-1],
        state_width=max(
            keys.shape[1] * keys.shape[3] + values.shape[1] * values.shape[3] for keys, values in cache.states()
        ),
        plain_head=plain_head,
        proposals=proposals,
        shares_prompts=_shares_prompts(runner, tokens_RT, plain_RTV, rounding),
    )


def _check_states(runner: LayerRunner, cache: "_CountingCache") -> None:
    """Checks, after a pass, that every layer keeps keys and values of its own, once."""
    name = type(runner.model).__name__
    if (stateless := cache.unused()) is not None:
        if "cache" not in inspect.signature(runner.base.forward).parameters:
            raise InputError(
                f"the forward of {type(runner.base).__name__} takes no argument 'cache', so that it ignores the one "
                "it is given: it was written for another version of transformers; choose another model"
            )
        raise InputError(
            f"layer {stateless} of {name} has no keys and values of its own (it shares another layer's, or has no "
            "attention), so layers cannot be skipped independently; choose a model whose layers all have them"
        )
    if (several := next((layer for layer, count in enumerate(cache.updates) if count > 1), None)) is not None:
        raise InputError(
            f"layer {several} of {name} has {cache.updates[several]} attentions with keys and values of their own, "
            "which one cache per layer cannot hold; choose a model whose layers have one each"
        )


def _check_rows(runner: LayerRunner) -> None:
    """Checks that per-row layer arguments are distinguishable from per-head ones."""
    name = type(runner.model).__name__
    sizes = []
    for rows in (1, 2):
        tokens_RT = torch.zeros((rows, 1), dtype=torch.long, device=runner.device)
        positions = torch.zeros((1, 1), dtype=torch.long, device=runner.device)
        step = runner.begin(tokens_RT, cache=RowCache(runner.layers, 1), positions_RT=positions)
        sizes.append([tensor.shape[0] for tensor in tensors(step.calls) if tensor.dim()])
    if any(two != 2 * one and one > 1 for one, two in zip(*sizes, strict=True)):
        raise InputError(
            f"{name} passes its layers a per-head tensor that is indistinguishable from a per-row one, so rows "
            "cannot be batched; choose another model"
        )


def _takes_positions(runner: LayerRunner, tokens_RT: Tensor) -> bool:
    """Whether masked slots before a row leave its logits as they are, but for rounding, not measured yet."""
    close, far = (_after_gap(runner, tokens_RT, gap).float() for gap in (0, 3))
    allowed = min(1000 * torch.finfo(runner.model.dtype).eps, 0.2) * float(close.abs().max())
    return float((far - close).abs().max()) <= allowed


def _after_gap(runner: LayerRunner, tokens_RT: Tensor, gap: int) -> Tensor:
    """Logits (1 1 V) after a prompt of two tokens, behind some masked slots in the cache."""
    prompt, width = RowCache(runner.layers, 2), 2 + gap
    runner.run_all(tokens_RT[:1, :2], prompt)
    cache = RowCache(runner.layers, width + 1)
    for step, states in enumerate(prompt.states()):
        cache.fill_prompts(step, [states], width)
    cache.advance(width)
    mask_RS = torch.ones((1, width + 1), dtype=torch.long, device=runner.device)
    mask_RS[:, :gap] = 0
    return runner.finish(runner.run_all(tokens_RT[:1, 2:], cache, mask_RS=mask_RS if gap else None, padding=gap))


def _processes(runner: LayerRunner) -> int:
    """Number of processes that measure rounding: one per core, unless that takes longer than to start them."""
    fits = runner.device.type == "cpu" and torch.get_num_threads() == 1
    return Cores.now().workers if fits and forks() else 1


def _same(a: Tensor, b: Tensor, rounding: Rounding) -> bool:
    """Whether logits agree within rounding; bits may differ where more than shapes select the kernel."""
    return torch.equal(a, b) or bool((a.float() - b.float()).abs().max() <= MULTIPLE * rounding.logits)


def _why(runner: LayerRunner, tokens_RT: Tensor) -> str:
    """Why the layers one by one give other logits than the model."""
    positions = torch.arange(tokens_RT.shape[1], device=runner.device)[None]
    try:
        placed_RTV = runner.model(input_ids=tokens_RT, position_ids=positions, use_cache=False).logits
        plain_RTV = runner.model(input_ids=tokens_RT, use_cache=False).logits
    except (TypeError, ValueError):
        return "it computes something between layers"
    if torch.equal(placed_RTV, plain_RTV):
        return "it computes something between layers"
    return "it does not count positions from 0, as generation does"


def _shares_prompts(runner: LayerRunner, tokens_RT: Tensor, plain_RTV: Tensor, rounding: Rounding) -> bool:
    """Whether the model works with the attention of `oracle.models.attention`, by test."""
    prompt = RowCache(runner.layers, 2)
    runner.run_all(tokens_RT[:1, :2], prompt)
    cache = PassCache(runner.layers, prompt.states(), shared=True)
    try:
        with runner.sharing(cache):
            logits_RTV = runner.finish(runner.run_all(tokens_RT[:, 2:], cache))
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, AssertionError):
        return False
    # Coarse logits may agree even if a model ignores the prompt, so require that every layer attended to it.
    return cache.attended == runner.layers and _same(logits_RTV, plain_RTV[:, 2:], rounding)


class _CountingCache(RowCache):
    """A cache that counts the updates of each step."""

    def __init__(self, steps: int, slots: int) -> None:
        super().__init__(steps, slots)
        self.updates = [0] * steps

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> States:
        """Counts, then as in the base class."""
        self.updates[self.step] += 1
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)
