"""The adapter: drives the decoder layers of an unmodified Hugging Face model, one layer at a time.

The model's own forward builds embeddings, positions and masks, and its own forward applies the final norm
and the head; only what happens between is ours. Nothing here knows the name of a model family.

Shapes: R rows, T new tokens, S slots of the cache, D hidden width, V vocabulary.
"""

import inspect
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from oracle.errors import InputError
from oracle.models.attention import attending
from oracle.models.causal import is_causal
from oracle.models.introspection import Choices, Places, find_layers, refuse_running_states
from oracle.models.kv_cache import PassCache, RowCache
from oracle.models.layer_call import Call, Part
from oracle.models.layer_stubs import Stub, for_rows, tensors
from oracle.models.rounding import MULTIPLE, measure_rounding
from oracle.models.sublayers import Sublayers

__all__ = ["Decoder", "Step"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """The start of one forward pass: what the model computes before its first layer.

    Attributes:
        hidden_RTD: the embeddings.
        calls: for each layer the arguments that follow the hidden state, as the model's forward passes them.
        rows: R.
    """

    hidden_RTD: Tensor
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    rows: int


class Decoder:
    """One forward pass of a model taken apart: `begin`, then layers in any order, then `finish`.

    With every layer run in order on all rows the logits are those of the untouched model, bit for bit.

    Args:
        model: a causal language model of the transformers library, in evaluation mode.

    Attributes:
        shares_prompts: whether rows can attend to a shared prompt without a copy of it.
        plain_head: whether the logits are just the head applied to `normed` hidden states.
        places: what the model's attention makes of positions.
        rounding: how far logits move when the same tokens are computed in another way, as measured on this machine.

    Raises:
        InputError: if the model is not decoder-only.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._owner, self._name = find_layers(model)
        self._layers: nn.ModuleList = getattr(self._owner, self._name)
        self._stubs = [Stub(layer) for layer in self._layers]
        self._stub_list = nn.ModuleList(self._stubs)
        self.places = Places.of(model)
        self._probe()

    @property
    def layers(self) -> int:
        """L, the number of decoder layers."""
        return len(self._layers)

    @property
    def device(self) -> torch.device:
        """Where the embeddings live, and so where token ids must go."""
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
            cache: where the layers will find earlier states and put new ones.
            positions_RT: position ids (R T, or 1 T where all rows agree).
            mask_RS: 1 for slots that hold a token, 0 for padding, new tokens included; None if none is padded.
        """
        with self._stubbed():
            self.model.base_model(
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
        """Runs one layer, or one part of it, on the hidden states of some rows.

        Args:
            call: the layer and the part; the cache must stand ready for just these rows.
            hidden_GTD: the hidden states of the rows.
            step: the pass they belong to.
            rows_G: which rows of the pass these are; None for all.
        """
        args, kwargs = step.calls[call.layer]
        if rows_G is not None:
            args, kwargs = for_rows((args, kwargs), rows_G, step.rows)
        if call.part == Part.WHOLE:
            output = self._layers[call.layer](hidden_GTD, *args, **kwargs)
        else:
            with self.sublayers.only(call.layer, call.part):
                output = self._layers[call.layer](hidden_GTD, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    @cached_property
    def sublayers(self) -> Sublayers:
        """Attention and MLP apart.

        Raises:
            InputError: if they are no branches of a residual stream.
        """
        sublayers = Sublayers(self._layers, type(self.model).__name__)
        self.__dict__["sublayers"] = sublayers  # `run` needs it while it learns
        try:
            self._try(sublayers)
        except InputError:
            del self.__dict__["sublayers"]
            raise
        return sublayers

    @torch.inference_mode()
    def _try(self, sublayers: Sublayers) -> None:
        tokens_RT = torch.tensor([[0, 1, 2]], device=self.device)
        positions = torch.arange(3, device=self.device)[None]
        cache = PassCache(self.layers, None, shared=False)
        step = self.begin(tokens_RT, cache=cache, positions_RT=positions)
        sublayers.learn(lambda layer, part, hidden: self.run(Call(layer, part), hidden, step), step.hidden_RTD)

    def with_mask_of(self, step: Step, other: Step, layer: int) -> Step:
        """The same step, but for the attention mask of one layer, which comes from another."""
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
        """Final norm and vocabulary head: logits (R T V), with all the model does to them."""
        with self._stubbed(last=hidden_RTD):
            return self.model(inputs_embeds=self._wide(hidden_RTD), use_cache=False).logits

    @torch.inference_mode()
    def normed(self, hidden_RTD: Tensor) -> Tensor:
        """The hidden states after the final norm, as the vocabulary head takes them."""
        with self._stubbed(last=hidden_RTD):
            return self.model.base_model(inputs_embeds=self._wide(hidden_RTD), use_cache=False).last_hidden_state

    def _wide(self, hidden_RTD: Tensor) -> Tensor:
        """Something as wide as the embeddings, for the model to begin with: the stubs put the hidden states back."""
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        width = weight.shape[1]
        return hidden_RTD if hidden_RTD.shape[-1] == width else hidden_RTD[..., :1].expand(*hidden_RTD.shape[:2], width)

    @property
    def head(self) -> nn.Module:
        """The vocabulary head; its output is the logits if `plain_head`."""
        return self.model.get_output_embeddings()

    def sharing(self, cache: RowCache) -> AbstractContextManager[None]:
        """While open, the layers attend to the prompts that the cache shares (needs `shares_prompts`)."""
        return attending(self.model.config.get_text_config(), cache)

    @contextmanager
    def _stubbed(self, last: Tensor | None = None) -> Iterator[None]:
        """The model with stubs for layers; the last of them returns the given hidden state."""
        self._stubs[-1].replacement = last
        setattr(self._owner, self._name, self._stub_list)
        try:
            yield
        finally:
            setattr(self._owner, self._name, self._layers)
            self._stubs[-1].replacement = None

    @torch.inference_mode()
    def logits(self, tokens_RT: Tensor, layers: Seq[int], *, padding: int = 0, pieces: int = 1) -> Tensor:
        """Logits (R T V) of some layers, teacher-forced, without a shared prompt.

        Args:
            tokens_RT: token ids.
            layers: the layers that run, in order.
            padding: tokens at the beginning of every row that are hidden from the others.
            pieces: number of passes that the tokens are fed in.
        """
        cache = RowCache(self.layers, tokens_RT.shape[1])
        found = []
        for piece in tokens_RT.chunk(pieces, dim=1):
            mask_RS = None
            if padding:
                mask_RS = torch.ones_like(tokens_RT[:, : cache.length + piece.shape[1]])
                mask_RS[:, :padding] = 0
            found.append(self.finish(self._run(piece, cache, layers, mask_RS=mask_RS, padding=padding)))
        return torch.cat(found, dim=1)

    @torch.inference_mode()
    def _probe(self) -> None:
        """Learns what the layers return, and checks that the model can be taken apart without a trace."""
        name = type(self.model).__name__
        refuse_running_states(self.model)
        tokens_RT = torch.tensor([[0, 1, 2], [0, 1, 1]], device=self.device)
        handles = [
            layer.register_forward_hook(partial(_note, stub))
            for layer, stub in zip(self._layers, self._stubs, strict=True)
        ]
        try:
            with Choices() as choices:
                plain_RTV = self.model(input_ids=tokens_RT, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        if not is_causal(self.model, tokens_RT, plain_RTV):
            raise InputError(
                f"a decoder-only model is required, but the tokens of {name} see later ones; choose a causal model"
            )
        cache = RowCache(self.layers, 3)
        try:
            hidden_RTD = self._run(tokens_RT, cache)
        except (TypeError, AttributeError, IndexError, ValueError, KeyError) as error:
            raise InputError(f"{name} cannot be run layer by layer ({error}); choose another model") from error
        if (stateless := cache.unused()) is not None:
            raise InputError(
                f"layer {stateless} of {name} has no keys and values of its own (it shares another layer's, or has no "
                "attention), so that layers cannot be skipped independently; choose a model whose layers all have them"
            )
        self._check_rows(name)
        embeddings = self.model.get_input_embeddings().weight
        assert isinstance(embeddings, Tensor)
        self.rounding = measure_rounding(
            self.logits,
            layers=self.layers,
            vocabulary=len(embeddings),
            device=self.device,
            chooses=choices.seen,
        )
        if not self._same(self.finish(hidden_RTD), plain_RTV):
            raise InputError(f"{name} computes more between its layers than can be reproduced; choose another model")
        self.plain_head = torch.equal(self.head(self.normed(hidden_RTD)), plain_RTV)
        self.shares_prompts = self._probe_sharing(tokens_RT, plain_RTV)

    def _same(self, a: Tensor, b: Tensor) -> bool:
        """Whether logits are equal but for rounding. Bits may differ where a kernel is chosen by more than shapes."""
        return torch.equal(a, b) or bool((a.float() - b.float()).abs().max() <= MULTIPLE * self.rounding.logits)

    def _check_rows(self, name: str) -> None:
        """Makes sure that what belongs to a row can be told from what belongs to a head."""
        sizes = []
        for rows in (1, 2):
            tokens_RT = torch.zeros((rows, 1), dtype=torch.long, device=self.device)
            positions = torch.zeros((1, 1), dtype=torch.long, device=self.device)
            step = self.begin(tokens_RT, cache=RowCache(self.layers, 1), positions_RT=positions)
            sizes.append([tensor.shape[0] for tensor in tensors(step.calls) if tensor.dim()])
        if any(two != 2 * one and one > 1 for one, two in zip(*sizes, strict=True)):
            raise InputError(
                f"{name} hands its layers something per head that cannot be told from something per row, so that rows "
                "cannot be batched; choose another model"
            )

    def _probe_sharing(self, tokens_RT: Tensor, plain_RTV: Tensor) -> bool:
        """Whether the model takes the attention of `oracle.models.attention`: tried, not assumed."""
        prompt = RowCache(self.layers, 2)
        self._run(tokens_RT[:1, :2], prompt)
        cache = PassCache(self.layers, prompt.states(), shared=True)
        try:
            with self.sharing(cache):
                logits_RTV = self.finish(self._run(tokens_RT[:, 2:], cache))
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, AssertionError):
            return False
        # Where logits are coarse, those of a model that ignores the prompt may be near enough: every layer must attend.
        return cache.attended == self.layers and self._same(logits_RTV, plain_RTV[:, 2:])

    def _run(
        self,
        tokens_RT: Tensor,
        cache: RowCache,
        layers: Seq[int] | None = None,
        *,
        mask_RS: Tensor | None = None,
        padding: int = 0,
    ) -> Tensor:
        """Some layers, or all of them, on all rows: the hidden states after the last (R T D)."""
        start, count = cache.length, tokens_RT.shape[1]
        positions = (torch.arange(start, start + count, device=self.device) - padding).clamp(min=0)[None]
        step = self.begin(tokens_RT, cache=cache, positions_RT=positions, mask_RS=mask_RS)
        hidden_RTD = step.hidden_RTD
        for layer in range(self.layers) if layers is None else layers:
            cache.step = layer
            hidden_RTD = self.run(Call(layer), hidden_RTD, step)
        cache.advance(count)
        return hidden_RTD


def _note(stub: Stub, layer: nn.Module, args: Any, output: Any) -> None:
    stub.returns_tuple = isinstance(output, tuple)
