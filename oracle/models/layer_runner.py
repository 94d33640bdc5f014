"""Runs the decoder layers of an unmodified Hugging Face model one by one.

The model's own forward builds embeddings, positions and masks, and applies the final norm and the head; only the loop
over layers is replaced. Nothing here depends on a model family.
"""

import inspect
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from oracle.errors import InputError
from oracle.models.attention import attending
from oracle.models.batch_products import BatchProducts
from oracle.models.introspection import find_layers, plain_tokens
from oracle.models.kv_cache import PassCache, RowCache
from oracle.models.layer_call import Call, Part
from oracle.models.layer_stubs import Stub, for_rows
from oracle.models.sublayers import Sublayers

__all__ = ["LayerRunner", "Step"]


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


class LayerRunner:
    """A forward pass in three stages: `begin`, then layers in any order, then `finish`.

    Args:
        model: a causal language model of the transformers library, in evaluation mode.

    Attributes:
        base: what the vocabulary head is put on.
        products: of the layers, for batches; None where the library's own are as fast.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._owner, self._name = find_layers(model)
        self._layers: nn.ModuleList = getattr(self._owner, self._name)
        # Some wrappers name another base model than the one that they have.
        self.base: nn.Module = self._owner if model.base_model is model else model.base_model
        self._stubs = [Stub(layer) for layer in self._layers]
        self._stub_list = nn.ModuleList(self._stubs)
        self.products = BatchProducts.of(self._layers)

    @property
    def layers(self) -> int:
        """L, the number of decoder layers."""
        return len(self._layers)

    @property
    def device(self) -> torch.device:
        """Device of the embeddings, and so of token ids."""
        return self.model.device

    @property
    def head(self) -> nn.Module:
        """The vocabulary head; its output equals the logits if `plain_head`."""
        return self.model.get_output_embeddings()

    @torch.inference_mode()
    def plain_logits(self, tokens_RT: Tensor) -> Tensor:
        """Logits (R T V) of the untouched model, from which it is learnt what its layers return."""
        handles = [
            layer.register_forward_hook(partial(_record_type, stub))
            for layer, stub in zip(self._layers, self._stubs, strict=True)
        ]
        try:
            return self.model(input_ids=tokens_RT, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()

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
            self.base(
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

    @torch.inference_mode()
    def finish(self, hidden_RTD: Tensor) -> Tensor:
        """Logits (R T V): final norm, vocabulary head, and everything the model applies after it."""
        with self._stubbed(last=hidden_RTD):
            return self.model(inputs_embeds=self._wide(hidden_RTD), use_cache=False).logits

    @torch.inference_mode()
    def normed(self, hidden_RTD: Tensor) -> Tensor:
        """Hidden states after the final norm (R T D), the input of the vocabulary head."""
        with self._stubbed(last=hidden_RTD):
            return self.base(inputs_embeds=self._wide(hidden_RTD), use_cache=False).last_hidden_state

    def _wide(self, hidden_RTD: Tensor) -> Tensor:
        """A placeholder as wide as the embeddings; the stubs replace it by the hidden states."""
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        width = weight.shape[1]
        return hidden_RTD if hidden_RTD.shape[-1] == width else hidden_RTD[..., :1].expand(*hidden_RTD.shape[:2], width)

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

    def sharing(self, cache: RowCache) -> AbstractContextManager[None]:
        """Context in which layers attend to the cache's shared prompts (requires `shares_prompts`)."""
        return attending(self.model.config.get_text_config(), cache)

    def batching(self, rows: int) -> AbstractContextManager[None]:
        """Context for a batch of so many rows: layers have its `products`; those of a single row are the library's."""
        return nullcontext() if self.products is None or rows == 1 else self.products.used()

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


def _record_type(stub: Stub, layer: nn.Module, args: Any, output: Any) -> None:
    stub.returns_tuple = isinstance(output, tuple | list)
