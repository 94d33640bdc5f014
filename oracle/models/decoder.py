"""Adapter that runs the decoder layers of an unmodified Hugging Face model individually.

The model's own forward builds embeddings, positions and masks, and applies the final norm and the head; only the loop
over layers is replaced. Nothing here depends on a model family.
"""

import inspect
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from oracle.errors import InputError, door
from oracle.models.attention import attending
from oracle.models.batch_products import BatchProducts
from oracle.models.causal import is_causal
from oracle.models.context import forget_lengths
from oracle.models.greedy import best
from oracle.models.introspection import ExpertChoices, Positions, find_layers, plain_tokens, refuse_running_states
from oracle.models.kept import KeptMeasurement
from oracle.models.kv_cache import FilledCache, PassCache, RowCache, States
from oracle.models.layer_call import Call, Part
from oracle.models.layer_stubs import Stub, for_rows, tensors
from oracle.models.proposed_head import ProposedHead
from oracle.models.rounding import MULTIPLE, measure_rounding
from oracle.models.sublayers import Sublayers
from oracle.utils.cores import Cores, forks

__all__ = ["Decoder", "Step"]

LARGE = 30_000_000
"""Number of weights from which rounding is measured in several processes, and kept for the next command."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Everything a forward pass computes before its first layer.

    Attributes:
        hidden_RTD: the embeddings.
        calls: per layer, the arguments after the hidden state, as the model's forward passes them.
        rows: R.
    """

    hidden_RTD: Tensor
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    rows: int


class Decoder:
    """A forward pass in three stages: `begin`, then layers in any order, then `finish`.

    Running every layer in order on all rows gives the logits of the untouched model, bit for bit.

    Args:
        model: a causal language model of the transformers library, in evaluation mode.

    Attributes:
        shares_prompts: whether rows can attend to a shared prompt without copying it.
        plain_head: whether the logits are exactly the head applied to `normed` hidden states.
        proposals: finds the best tokens without all logits in float32; None where that is not exact or not faster.
        products: of the layers, for batches; None where the library's own are as fast.
        positions: constraints of the model's attention on positions.
        rounding: largest change of logits between equivalent computations, measured on this machine.
        width: D, of the hidden states.
        vocabulary: V, of the logits.
        state_width: elements of the keys and values of one token in the layer with the most.
        tried: scopes and units in which the cut model that verifies results has been run; see `oracle.engine.Engine`.

    Raises:
        InputError: if the model is not decoder-only.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        forget_lengths(model)
        self._owner, self._name = find_layers(model)
        self._layers: nn.ModuleList = getattr(self._owner, self._name)
        # Some wrappers name another base model than the one that they have.
        self._base: nn.Module = self._owner if model.base_model is model else model.base_model
        self._stubs = [Stub(layer) for layer in self._layers]
        self._stub_list = nn.ModuleList(self._stubs)
        self.positions = Positions.of(model)
        self.tried: set[tuple[str, str]] = set()
        self.products = BatchProducts.of(self._layers)
        with door(f"running the layers of {type(model).__name__} one by one", "choose another model"):
            self._probe()

    @property
    def layers(self) -> int:
        """L, the number of decoder layers."""
        return len(self._layers)

    @property
    def one_pass(self) -> int | None:
        """Longest input of which one pass gives what passes token by token give; None if unlimited."""
        return 0 if self.rounding.interact else self.positions.one_pass

    @property
    def device(self) -> torch.device:
        """Device of the embeddings, and so of token ids."""
        return self.model.device

    @torch.inference_mode()
    def begin(
        self,
        tokens_RT: Tensor,
        *,
        cache: RowCache,
        positions_RT: Tensor,
        mask_RS: Tensor | None = None,
    ) -> Step:
        """Embeds tokens and builds the arguments of every layer, with the model's own code.

        Args:
            tokens_RT: new token ids.
            cache: the layers read earlier states from it and append new ones.
            positions_RT: position ids (R T, or 1 T if all rows agree).
            mask_RS: 1 for slots with a token, new ones included, 0 for padding; None if there is no padding.
        """
        with self._stubbed():
            self._base(
                input_ids=tokens_RT,
                attention_mask=mask_RS,
                position_ids=positions_RT,
                cache=cache,
                use_cache=True,
            )
        first = self._stubs[0].hidden
        assert isinstance(first, Tensor)
        return Step(hidden_RTD=first, calls=tuple(stub.call for stub in self._stubs), rows=tokens_RT.shape[0])

    def run(self, call: Call, hidden_GTD: Tensor, step: Step, rows_G: Tensor | None = None) -> Tensor:
        """Runs one layer, or one part of it, on some rows; returns their hidden states (G T D).

        Args:
            call: the layer and the part; the cache must be set to exactly these rows.
            hidden_GTD: hidden states of the rows.
            step: the pass they belong to.
            rows_G: indices of these rows in the pass; None for all rows.
        """
        args, kwargs = step.calls[call.layer]
        if rows_G is not None:
            args, kwargs = for_rows((args, kwargs), rows_G, step.rows)
        if call.part == Part.WHOLE:
            output = self._layers[call.layer](hidden_GTD, *args, **kwargs)
        else:
            with self.sublayers.only(call.layer, call.part):
                output = self._layers[call.layer](hidden_GTD, *args, **kwargs)
        return output[0] if isinstance(output, tuple | list) else output

    @cached_property
    def sublayers(self) -> Sublayers:
        """Attention and MLP as separate units.

        Raises:
            InputError: if they are not branches of a residual stream.
        """
        sublayers = Sublayers(self._layers, type(self.model).__name__)
        self.__dict__["sublayers"] = sublayers  # `run` uses it while branches are being found
        try:
            self._find_branches(sublayers)
        except InputError:
            del self.__dict__["sublayers"]
            raise
        return sublayers

    @torch.inference_mode()
    def _find_branches(self, sublayers: Sublayers) -> None:
        tokens_RT = torch.tensor([plain_tokens(self.model)[:3]], device=self.device)
        positions = torch.arange(3, device=self.device)[None]
        cache = PassCache(self.layers, None, shared=False)
        step = self.begin(tokens_RT, cache=cache, positions_RT=positions)
        sublayers.find_branches(lambda layer, part, hidden: self.run(Call(layer, part), hidden, step), step.hidden_RTD)

    def with_mask_of(self, step: Step, other: Step, layer: int) -> Step:
        """A copy of `step` in which one layer has the attention mask of another step."""
        (args, kwargs), (their_args, theirs) = step.calls[layer], other.calls[layer]
        names = list(inspect.signature(self._layers[layer].forward).parameters)[1:]
        if "attention_mask" in kwargs:
            kwargs = {**kwargs, "attention_mask": theirs["attention_mask"]}
        else:
            place = names.index("attention_mask")
            args = (*args[:place], their_args[place], *args[place + 1 :])
        calls = (*step.calls[:layer], (args, kwargs), *step.calls[layer + 1 :])
        return Step(hidden_RTD=step.hidden_RTD, calls=calls, rows=step.rows)

    @torch.inference_mode()
    def finish(self, hidden_RTD: Tensor) -> Tensor:
        """Logits (R T V): final norm, vocabulary head, and everything the model applies after it."""
        with self._stubbed(last=hidden_RTD):
            return self.model(inputs_embeds=self._wide(hidden_RTD), use_cache=False).logits

    @torch.inference_mode()
    def best(self, hidden_R1D: Tensor) -> tuple[Tensor, Tensor]:
        """The most likely token of each row and its lead over the second (R each), from the last hidden states."""
        if self.proposals is not None:
            return self.proposals.best(self.normed(hidden_R1D)[:, 0])
        return best(self.finish(hidden_R1D)[:, 0])

    @torch.inference_mode()
    def normed(self, hidden_RTD: Tensor) -> Tensor:
        """Hidden states after the final norm (R T D), the input of the vocabulary head."""
        with self._stubbed(last=hidden_RTD):
            return self._base(inputs_embeds=self._wide(hidden_RTD), use_cache=False).last_hidden_state

    def _wide(self, hidden_RTD: Tensor) -> Tensor:
        """A placeholder as wide as the embeddings; the stubs replace it by the hidden states."""
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        width = weight.shape[1]
        return hidden_RTD if hidden_RTD.shape[-1] == width else hidden_RTD[..., :1].expand(*hidden_RTD.shape[:2], width)

    @property
    def head(self) -> nn.Module:
        """The vocabulary head; its output equals the logits if `plain_head`."""
        return self.model.get_output_embeddings()

    @cached_property
    def cache_switch(self) -> int | None:
        """Length in tokens beyond which the model's own code goes on without the cache it has; None if it never does.

        Found by asking that code (`prepare_inputs_for_generation`) at the lengths that the configuration names.
        """
        config = self.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        places = [vars(config), rope, *(value for value in rope.values() if isinstance(value, dict))]
        lengths = {place.get("original_max_position_embeddings") for place in places}
        return next((length for length in sorted(filter(None, lengths)) if self._drops_cache(length)), None)

    def _drops_cache(self, length: int) -> bool:
        prepare: Any = self.model.prepare_inputs_for_generation
        name = "cache" if "cache" in inspect.signature(prepare).parameters else "past_key_values"
        cache = FilledCache(length)
        ids = torch.zeros((1, length + 1), dtype=torch.long, device=self.device)
        asked: dict[str, Any] = {name: cache, "attention_mask": torch.ones_like(ids), "use_cache": True}
        try:
            return prepare(ids, **asked).get(name) is not cache
        except (TypeError, AttributeError, ValueError, IndexError, KeyError, RuntimeError):
            return True  # code of its own that cannot be asked is not trusted to keep its cache

    def sharing(self, cache: RowCache) -> AbstractContextManager[None]:
        """Context in which layers attend to the cache's shared prompts (requires `shares_prompts`)."""
        return attending(self.model.config.get_text_config(), cache)

    def batching(self, rows: int) -> AbstractContextManager[None]:
        """Context for a batch of so many rows: layers have its `products`; those of a single row are the library's."""
        return nullcontext() if self.products is None or rows == 1 else self.products.used()

    @contextmanager
    def _stubbed(self, last: Tensor | None = None) -> Iterator[None]:
        """Replaces the layers by stubs; the last stub returns the given hidden state."""
        self._stubs[-1].replacement = last
        setattr(self._owner, self._name, self._stub_list)
        try:
            yield
        finally:
            setattr(self._owner, self._name, self._layers)
            self._stubs[-1].replacement = None

    @torch.inference_mode()
    def logits(
        self, tokens_RT: Tensor, layers: Seq[int], *, padding: int = 0, pieces: int = 1, batched: bool = False
    ) -> Tensor:
        """Teacher-forced logits (R T V) of the given layers, without a shared prompt.

        Args:
            tokens_RT: token ids.
            layers: the layers that run, in order.
            padding: number of leading tokens per row that are masked.
            pieces: number of passes the tokens are split into.
            batched: whether the layers' products are those of batches.
        """
        cache = RowCache(self.layers, tokens_RT.shape[1])
        found = []
        for piece in tokens_RT.chunk(pieces, dim=1):
            mask_RS = None
            if padding:
                mask_RS = torch.ones_like(tokens_RT[:, : cache.length + piece.shape[1]])
                mask_RS[:, :padding] = 0
            with self.batching(len(piece)) if batched else nullcontext():
                hidden_RTD = self.run_all(piece, cache, layers, mask_RS=mask_RS, padding=padding)
            found.append(self.finish(hidden_RTD))
        return torch.cat(found, dim=1)

    @torch.inference_mode()
    def last_rows(self, batches: Seq[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """What each layer, and then the head, computes for the last row: in the first batch, and in another one.

        A layer gets the same bits for that row in every batch. Rounding of earlier layers is left out, and with it
        the other choice of experts that it may lead to.

        Args:
            batches: token ids (R T each) with the same last row.

        Yields:
            Pairs of hidden states (T D), per layer and batch after the first; last the logits (T V).
        """
        caches = [RowCache(self.layers, tokens_RT.shape[1]) for tokens_RT in batches]
        positions = torch.arange(batches[0].shape[1], device=self.device)[None]
        steps = [
            self.begin(tokens_RT, cache=cache, positions_RT=positions)
            for tokens_RT, cache in zip(batches, caches, strict=True)
        ]
        hidden = [step.hidden_RTD for step in steps]
        for layer in range(self.layers):
            row_TD = hidden[0][-1:]
            for batch, (step, cache) in enumerate(zip(steps, caches, strict=True)):
                cache.step = layer
                hidden[batch] = self.run(Call(layer), torch.cat([hidden[batch][:-1], row_TD]), step)
            yield from ((hidden[0][-1], other[-1]) for other in hidden[1:])
        row_TD = hidden[0][-1:]
        first, *others = (self.finish(torch.cat([part[:-1], row_TD]))[-1] for part in hidden)
        yield from ((first, other) for other in others)

    @torch.inference_mode()
    def _probe(self) -> None:
        """Records what layers return and verifies that running them individually reproduces the model."""
        name = type(self.model).__name__
        refuse_running_states(self.model)
        a, b, c, d = plain_tokens(self.model)
        tokens_RT = torch.tensor([[a, b, c], [a, b, b]], device=self.device)
        handles = [
            layer.register_forward_hook(partial(_record_type, stub))
            for layer, stub in zip(self._layers, self._stubs, strict=True)
        ]
        try:
            with ExpertChoices() as choices:
                plain_RTV = self.model(input_ids=tokens_RT, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        if not plain_RTV.isfinite().all():
            raise InputError(
                f"{name} gives logits that are not finite in {self.model.dtype}: a weight is damaged or the dtype is "
                "too narrow; restore the checkpoint, or choose --dtype float32"
            )
        if not is_causal(self.model, tokens_RT, plain_RTV, d):
            raise InputError(
                f"a decoder-only model is required, but tokens of {name} see later ones; choose a causal model"
            )
        cache = _CountingCache(self.layers, 3)
        hidden_RTD = self.run_all(tokens_RT, cache)
        if (stateless := cache.unused()) is not None:
            if "cache" not in inspect.signature(self._base.forward).parameters:
                raise InputError(
                    f"the forward of {type(self._base).__name__} takes no argument 'cache', so that it ignores the one "
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
        self.state_width = max(
            keys.shape[1] * keys.shape[3] + values.shape[1] * values.shape[3] for keys, values in cache.states()
        )
        self.width, self.vocabulary = hidden_RTD.shape[-1], plain_RTV.shape[-1]
        self._check_rows(name)
        embeddings = self.model.get_input_embeddings().weight
        assert isinstance(embeddings, Tensor)
        # Positions counted by slots of the cache would be shifted in rows of other lengths.
        placed = self._takes_positions(tokens_RT)
        self.positions = replace(self.positions, mix=self.positions.mix and placed)
        self.rounding = measure_rounding(
            self.logits,
            self.last_rows,
            padding=int(placed),
            layers=self.layers,
            vocabulary=len(embeddings),
            device=self.device,
            chooses=choices.seen,
            products=self.products is not None,
            processes=self._processes(),
            kept=KeptMeasurement("rounding", self.model) if self._weights >= LARGE else None,
        )
        if not self._same(self.finish(hidden_RTD), plain_RTV):
            raise InputError(
                f"running the layers of {name} individually does not reproduce its logits ({self._why(tokens_RT)}); "
                "choose another model"
            )
        normed_RTD = self.normed(hidden_RTD)
        self.plain_head = torch.equal(self.head(normed_RTD), plain_RTV)
        self.proposals = ProposedHead.of(self.head) if self.plain_head else None
        if self.proposals is not None:
            another = self.proposals.difference(normed_RTD.flatten(0, 1))
            largest = max(self.rounding.logits, another)
            self.rounding = replace(self.rounding, logits=largest, batches=max(self.rounding.batches, largest))
        self.shares_prompts = self._probe_sharing(tokens_RT, plain_RTV)

    def _takes_positions(self, tokens_RT: Tensor) -> bool:
        """Whether masked slots before a row leave its logits as they are, but for rounding, not measured yet."""
        close, far = (self._after_gap(tokens_RT, gap).float() for gap in (0, 3))
        allowed = min(1000 * torch.finfo(self.model.dtype).eps, 0.2) * float(close.abs().max())
        return float((far - close).abs().max()) <= allowed

    def _after_gap(self, tokens_RT: Tensor, gap: int) -> Tensor:
        """Logits (1 1 V) after a prompt of two tokens, behind some masked slots in the cache."""
        prompt, width = RowCache(self.layers, 2), 2 + gap
        self.run_all(tokens_RT[:1, :2], prompt)
        cache = RowCache(self.layers, width + 1)
        for step, states in enumerate(prompt.states()):
            cache.fill_prompts(step, [states], width)
        cache.advance(width)
        mask_RS = torch.ones((1, width + 1), dtype=torch.long, device=self.device)
        mask_RS[:, :gap] = 0
        return self.finish(self.run_all(tokens_RT[:1, 2:], cache, mask_RS=mask_RS if gap else None, padding=gap))

    def _why(self, tokens_RT: Tensor) -> str:
        """Why the layers one by one give other logits than the model."""
        positions = torch.arange(tokens_RT.shape[1], device=self.device)[None]
        try:
            placed_RTV = self.model(input_ids=tokens_RT, position_ids=positions, use_cache=False).logits
            plain_RTV = self.model(input_ids=tokens_RT, use_cache=False).logits
        except (TypeError, ValueError):
            return "it computes something between layers"
        if torch.equal(placed_RTV, plain_RTV):
            return "it computes something between layers"
        return "it does not count positions from 0, as generation does"

    def _processes(self) -> int:
        """Number of processes that measure rounding: one per core, unless that takes longer than to start them."""
        fits = self.device.type == "cpu" and torch.get_num_threads() == 1 and self._weights >= LARGE
        return Cores.now().workers if fits and forks() else 1

    @property
    def _weights(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters())

    def _same(self, a: Tensor, b: Tensor) -> bool:
        """Whether logits agree within rounding; bits may differ where more than shapes select the kernel."""
        return torch.equal(a, b) or bool((a.float() - b.float()).abs().max() <= MULTIPLE * self.rounding.logits)

    def _check_rows(self, name: str) -> None:
        """Checks that per-row layer arguments are distinguishable from per-head ones."""
        sizes = []
        for rows in (1, 2):
            tokens_RT = torch.zeros((rows, 1), dtype=torch.long, device=self.device)
            positions = torch.zeros((1, 1), dtype=torch.long, device=self.device)
            step = self.begin(tokens_RT, cache=RowCache(self.layers, 1), positions_RT=positions)
            sizes.append([tensor.shape[0] for tensor in tensors(step.calls) if tensor.dim()])
        if any(two != 2 * one and one > 1 for one, two in zip(*sizes, strict=True)):
            raise InputError(
                f"{name} passes its layers a per-head tensor that is indistinguishable from a per-row one, so rows "
                "cannot be batched; choose another model"
            )

    def _probe_sharing(self, tokens_RT: Tensor, plain_RTV: Tensor) -> bool:
        """Whether the model works with the attention of `oracle.models.attention`, by test."""
        prompt = RowCache(self.layers, 2)
        self.run_all(tokens_RT[:1, :2], prompt)
        cache = PassCache(self.layers, prompt.states(), shared=True)
        try:
            with self.sharing(cache):
                logits_RTV = self.finish(self.run_all(tokens_RT[:, 2:], cache))
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, AssertionError):
            return False
        # Coarse logits may agree even if a model ignores the prompt, so require that every layer attended to it.
        return cache.attended == self.layers and self._same(logits_RTV, plain_RTV[:, 2:])

    def run_all(
        self,
        tokens_RT: Tensor,
        cache: RowCache,
        layers: Seq[int] | None = None,
        *,
        mask_RS: Tensor | None = None,
        padding: int = 0,
    ) -> Tensor:
        """Runs layers (default all) on all rows; returns hidden states after the last one (R T D)."""
        start, count = cache.length, tokens_RT.shape[1]
        positions = (torch.arange(start, start + count, device=self.device) - padding).clamp(min=0)[None]
        step = self.begin(tokens_RT, cache=cache, positions_RT=positions, mask_RS=mask_RS)
        hidden_RTD = step.hidden_RTD
        for layer in range(self.layers) if layers is None else layers:
            cache.step = layer
            hidden_RTD = self.run(Call(layer), hidden_RTD, step)
        cache.advance(count)
        return hidden_RTD


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


def _record_type(stub: Stub, layer: nn.Module, args: Any, output: Any) -> None:
    stub.returns_tuple = isinstance(output, tuple | list)
