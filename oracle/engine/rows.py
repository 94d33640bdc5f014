"""A batch of rows that share every layer they have in common.

Shapes: R rows, T new tokens, S slots, D hidden width, G rows of one layer.
"""

from collections.abc import Sequence as Seq
from contextlib import nullcontext

import torch
from torch import Tensor

from oracle.engine.prompts import PromptState
from oracle.models.cache import RowCache
from oracle.models.decoder import Decoder
from oracle.types import Allocation

__all__ = ["RowBatch"]


class RowBatch:
    """Rows of (prompt, allocation) that advance together, each through its own layers only.

    At each layer the rows that run it are gathered, run as one batch and scattered back; a layer that no row
    runs costs nothing.

    Args:
        decoder: the model.
        prompts: the prompt of each row.
        allocations: the layers of each row, rising.
        new_tokens: how many tokens each row may append.
        shared_prompt: whether the rows start from the prompts' full-depth states (scope `decode`);
            otherwise they start empty and the prompt is theirs to run.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompts: Seq[PromptState],
        allocations: Seq[Allocation],
        *,
        new_tokens: int,
        shared_prompt: bool,
    ) -> None:
        self.decoder = decoder
        self._prompts = list(prompts)
        runs_LR = torch.zeros((decoder.layers, len(allocations)), dtype=torch.bool)
        for row, allocation in enumerate(allocations):
            runs_LR[list(allocation), row] = True
        self._rows_by_layer = [runs.nonzero()[:, 0].to(decoder.device) for runs in runs_LR]
        lengths_R = torch.tensor([prompt.length for prompt in prompts], device=decoder.device)
        self._width = int(lengths_R.max())
        self._padding_R = self._width - lengths_R
        rows_by_layer = [len(rows) for rows in self._rows_by_layer]
        self._by_reference = shared_prompt and decoder.shares_prompts
        if self._by_reference:
            self.cache = RowCache(rows_by_layer, new_tokens, prompt_slots=self._width)
            self._regroup()
        else:
            self.cache = RowCache(rows_by_layer, self._width + new_tokens)
            if shared_prompt:
                self._copy_prompts()

    @property
    def rows(self) -> int:
        """R, the rows still in the batch."""
        return len(self._prompts)

    def _regroup(self) -> None:
        """Tells the cache which rows of each layer stand together on one prompt."""
        distinct = {id(prompt): index for index, prompt in enumerate(self._prompts)}
        prompt_R = torch.tensor([distinct[id(prompt)] for prompt in self._prompts])
        for layer, rows in enumerate(self._rows_by_layer):
            found, counts = prompt_R[rows.cpu()].unique_consecutive(return_counts=True)
            pairs = zip(counts.tolist(), found.tolist(), strict=True)
            self.cache.groups[layer] = [(count, self._prompts[index].cache) for count, index in pairs]

    def _copy_prompts(self) -> None:
        """Gives every row its own copy of its prompt's states, for models that cannot share them."""
        for layer, rows in enumerate(self._rows_by_layer):
            if len(rows):
                states = [self._prompts[row].cache for row in rows.tolist()]
                self.cache.fill_prompts(layer, states, self._width)
        self.cache.advance(self._width)

    def run_prompts(self) -> Tensor:
        """Runs each row's prompt through its own layers; returns the last hidden states (R 1 D)."""
        tokens_RT = torch.zeros((self.rows, self._width), dtype=torch.long, device=self.decoder.device)
        for row, prompt in enumerate(self._prompts):
            tokens_RT[row, self._width - prompt.length :] = prompt.tokens
        return self.forward(tokens_RT)[:, -1:]

    @torch.inference_mode()
    def forward(self, tokens_RT: Tensor) -> Tensor:
        """Appends tokens to every row and returns their hidden states after the last layer (R T D)."""
        start, count = self.cache.length, tokens_RT.shape[1]
        slots_T = torch.arange(start, start + count, device=tokens_RT.device)
        padded = bool(self._padding_R.any())
        positions = (slots_T - self._padding_R[:, None]).clamp(min=0) if padded else slots_T[None]
        with self.decoder.sharing(self.cache) if self._by_reference else nullcontext():
            hidden_RTD = self._run(tokens_RT, positions, padded)
        self.cache.advance(count)
        return hidden_RTD

    def _run(self, tokens_RT: Tensor, positions: Tensor, padded: bool) -> Tensor:
        step = self.decoder.begin(
            tokens_RT,
            cache=self.cache,
            positions_RT=positions,
            mask_RS=self._mask(self.cache.length + tokens_RT.shape[1]) if padded else None,
        )
        hidden_RTD = step.hidden_RTD
        for layer, rows in enumerate(self._rows_by_layer):
            if len(rows) == self.rows:
                hidden_RTD = self.decoder.run_layer(layer, hidden_RTD, step)
            elif len(rows):
                hidden_GTD = self.decoder.run_layer(layer, hidden_RTD.index_select(0, rows), step, rows)
                hidden_RTD = hidden_RTD.index_copy(0, rows, hidden_GTD)
        return hidden_RTD

    def _mask(self, slots: int) -> Tensor:
        return (torch.arange(slots, device=self._padding_R.device) >= self._padding_R[:, None]).long()

    def select(self, keep: Seq[int]) -> None:
        """Keeps only these rows, in this order; the cache lets go of the others."""
        device = self.decoder.device
        order = torch.full((self.rows,), -1, dtype=torch.long, device=device)
        order[torch.tensor(keep, dtype=torch.long, device=device)] = torch.arange(len(keep), device=device)
        for layer, rows in enumerate(self._rows_by_layer):
            position = order[rows]
            chosen = (position >= 0).nonzero()[:, 0]
            self.cache.select(layer, chosen)
            self._rows_by_layer[layer] = position[chosen]
        self._prompts = [self._prompts[row] for row in keep]
        self._padding_R = self._padding_R[list(keep)]
        if self._by_reference:
            self._regroup()
