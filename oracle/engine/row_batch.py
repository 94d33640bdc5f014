"""A batch of rows that advance together, everything that they have in common computed once.

Rows whose prompt, tokens so far and executed steps agree have the same hidden state: up to there they are one entry,
which is run once and keeps one set of keys and values. Where their tokens or their allocations part, the entry splits.
In shapes, X is the rows of one step, G its entries.
"""

from collections.abc import Sequence as Seq
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.engine.prompts import PromptState
from oracle.engine.schedule import Mask, Schedule
from oracle.models.decoder import Decoder
from oracle.models.kv_cache import RowCache
from oracle.models.layer_call import Call

__all__ = ["RowBatch", "group_ids"]

Ints = NDArray[np.int64]


class _Step:
    """Which rows run one step, and as which entries.

    Args:
        rows_X: the rows.
        first_G: for each entry the first row that it stands for, rising.
        entry_X: the entry of each row.
        device: where the model is.
    """

    def __init__(self, rows_X: Ints, first_G: Ints, entry_X: Ints, device: torch.device) -> None:
        self.rows_X, self.first_G, self.entry_X = rows_X, first_G, entry_X
        self.scatter_X, self.gather_G, self.spread_X = (
            torch.from_numpy(part).to(device) for part in (rows_X, first_G, entry_X)
        )

    @property
    def shared(self) -> bool:
        """Whether some entry stands for several rows."""
        return len(self.first_G) < len(self.rows_X)


class RowBatch:
    """Rows of (prompt, allocation), each of which runs its own steps only.

    At each step the entries that run it are gathered, run as one batch and scattered back; a step that no row runs
    costs nothing.

    Args:
        decoder: the model.
        prompts: the prompt of each row; rows of one prompt stand together.
        schedule: the steps of each row.
        new_tokens: how many tokens may be appended.
        by_reference: whether shared prompts are looked up rather than copied.
        products: whether layers have the products of batches, see `oracle.models.batch_products`.

    The rows start from the full-depth states of each prompt's first `full_depth` tokens, which all prompts have or none
    has; the rest is theirs to run.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompts: Seq[PromptState],
        schedule: Schedule,
        *,
        new_tokens: int,
        by_reference: bool = True,
        products: bool = False,
    ) -> None:
        self._decoder = decoder
        self._products = products
        self._calls: tuple[Call, ...] = schedule.calls
        self._runs_RI: Mask = schedule.runs_AI
        self._prompts = list(prompts)
        lengths_R = np.array([prompt.full_depth for prompt in prompts])
        shared = bool(lengths_R.any())
        self._by_reference = shared and by_reference and decoder.shares_prompts
        width = int(lengths_R.max())
        # Tokens of each row before the stored ones, and stored ones.
        self._virtual_R = lengths_R if self._by_reference else np.zeros_like(lengths_R)
        self._stored_R = np.zeros_like(lengths_R)
        self._history_R = group_ids([id(prompt) for prompt in prompts])
        slots = max(prompt.own for prompt in prompts) + new_tokens + (0 if self._by_reference else width)
        self._cache = RowCache(len(self._calls), slots, prompt_slots=width if self._by_reference else 0)
        self._steps = self._plan()
        if shared and not self._by_reference:
            self._copy_prompts(width)
            self._stored_R = lengths_R
        self._update_masks()

    @property
    def rows(self) -> int:
        """R, the rows in the batch."""
        return len(self._prompts)

    @property
    def slots(self) -> int:
        """Slots of each row's own cache, filled or not."""
        return self._cache.slots

    @property
    def prompts(self) -> list[PromptState]:
        """The prompt of each row."""
        return self._prompts

    def _plan(self) -> list[_Step | None]:
        """The entries of every step: rows are one while their histories and the steps before agree."""
        node_R, nodes = self._history_R.copy(), int(self._history_R.max()) + 1
        device = self._decoder.device
        steps: list[_Step | None] = []
        for runs_R in self._runs_RI.T:
            rows = np.flatnonzero(runs_R)
            if not len(rows):
                steps.append(None)
                continue
            _, first, entry = np.unique(node_R[rows], return_index=True, return_inverse=True)
            order = np.argsort(first)  # by first row, so that entries of one prompt stand together
            entry = np.argsort(order)[entry]
            node_R[rows] = nodes + entry
            nodes += len(first)
            steps.append(_Step(rows, rows[first[order]], entry, device))
        return steps

    def _copy_prompts(self, width: int) -> None:
        """Gives every entry its own copy of its prompt's states, for models that cannot share them."""
        for index, step in enumerate(self._steps):
            if step is not None:
                layer = self._calls[index].layer
                states = [self._prompts[row].cache[layer] for row in step.first_G]
                self._cache.fill_prompts(index, states, width)
        self._cache.advance(width)

    def _update_masks(self) -> None:
        """Notes what follows from the rows: which entries share a prompt, what is padding."""
        device = self._decoder.device
        if self._by_reference:
            prompt_R = group_ids([id(prompt) for prompt in self._prompts])
            for index, step in enumerate(self._steps):
                if step is not None:
                    layer = self._calls[index].layer
                    # Rows of one prompt stand together, and so do the entries that stand for them.
                    _, first, counts = np.unique(prompt_R[step.first_G], return_index=True, return_counts=True)
                    self._cache.shared[index] = [
                        (count, self._prompts[row].cache[layer])
                        for count, row in zip(counts.tolist(), step.first_G[first].tolist(), strict=True)
                    ]
        hidden_virtual = self._cache.prompt_slots - self._virtual_R
        hidden_stored = self._cache.own - self._stored_R
        self._padded = bool(hidden_virtual.any() or hidden_stored.any())
        self._hidden = tuple(torch.from_numpy(part).to(device)[:, None] for part in (hidden_virtual, hidden_stored))

    def run_rest(self) -> Tensor:
        """Runs the rest of each row's prompt through its own steps; returns the last hidden states (R 1 D)."""
        if self._prompts[0].full_depth:
            rest_R1 = torch.stack([prompt.rest for prompt in self._prompts])
            return self.forward(rest_R1[:, 0], rest_R1[:, 0].tolist())
        width = max(prompt.length for prompt in self._prompts)
        tokens_RT = torch.zeros((self.rows, width), dtype=torch.long, device=self._decoder.device)
        for row, prompt in enumerate(self._prompts):
            tokens_RT[row, width - prompt.length :] = prompt.tokens
        lengths_R = np.array([prompt.length for prompt in self._prompts])
        # What is fed before a row's prompt is padding.
        self._stored_R = lengths_R - width
        self._update_masks()
        return self._append(tokens_RT)[:, -1:]

    def forward(self, tokens_R: Tensor, ids: Seq[int]) -> Tensor:
        """Appends one token to every row and returns the hidden states after the last step (R 1 D).

        Args:
            tokens_R: the tokens, where the model is.
            ids: the same tokens, as numbers.
        """
        self._split(np.asarray(ids))
        return self._append(tokens_R[:, None])

    def _split(self, ids_R: Ints) -> None:
        """Parts entries whose rows go on with different tokens."""
        history_R = group_ids(list(zip(self._history_R.tolist(), ids_R.tolist(), strict=True)))
        if history_R.max() > self._history_R.max():
            self._history_R = history_R
            if any(step is not None and step.shared for step in self._steps):
                self._rebuild([(self, np.arange(self.rows))])

    @torch.inference_mode()
    def _append(self, tokens_RT: Tensor) -> Tensor:
        sharing = self._decoder.sharing(self._cache) if self._by_reference else nullcontext()
        with sharing, self._decoder.batching(self.rows) if self._products else nullcontext():
            hidden_RTD = self._run(tokens_RT)
        self._cache.advance(tokens_RT.shape[1])
        self._stored_R = self._stored_R + tokens_RT.shape[1]
        return hidden_RTD

    def _run(self, tokens_RT: Tensor) -> Tensor:
        start, count = self._cache.length, tokens_RT.shape[1]
        slots_T = torch.arange(start, start + count, device=tokens_RT.device)
        positions = slots_T[None]
        if self._padded:
            # Padding, and rows that have ended, may stand anywhere that exists.
            positions = (slots_T - self._hidden[0] - self._hidden[1]).clamp(min=0, max=self._decoder.positions.last)
        step = self._decoder.begin(
            tokens_RT,
            cache=self._cache,
            positions_RT=positions,
            mask_RS=self._mask(start + count) if self._padded else None,
        )
        hidden_RTD = step.hidden_RTD.clone()  # rows that a step leaves out stay where they are
        for index, plan in enumerate(self._steps):
            if plan is None:
                continue
            self._cache.step = index
            if len(plan.first_G) == self.rows:
                hidden_RTD = self._decoder.run(self._calls[index], hidden_RTD, step)
                continue
            hidden_GTD = hidden_RTD.index_select(0, plan.gather_G)
            hidden_GTD = self._decoder.run(self._calls[index], hidden_GTD, step, plan.gather_G)
            hidden_XTD = hidden_GTD.index_select(0, plan.spread_X) if plan.shared else hidden_GTD
            hidden_RTD.index_copy_(0, plan.scatter_X, hidden_XTD)
        return hidden_RTD

    def _mask(self, slots: int) -> Tensor:
        virtual, stored = self._hidden
        slot_S = torch.arange(slots, device=virtual.device)
        own_S = slot_S - self._cache.prompt_slots
        return torch.where(own_S < 0, slot_S >= virtual, own_S >= stored).long()

    def select(self, keep: Seq[int]) -> None:
        """Keeps only these rows, in this order; the cache drops the others."""
        self._rebuild([(self, np.asarray(keep, dtype=np.int64))])

    def join(self, keep: Seq[int], others: "RowBatch", keep_others: Seq[int]) -> list[int]:
        """Keeps some rows and takes over some of another batch with the same steps.

        Returns:
            The rows in their new order, in which rows of one prompt stand together: r for one of the kept rows, kept +
            r for one of the others.
        """
        parts = [(self, np.asarray(keep, dtype=np.int64)), (others, np.asarray(keep_others, dtype=np.int64))]
        return self._rebuild(parts)

    def _rebuild(self, parts: Seq[tuple["RowBatch", Ints]]) -> list[int]:
        """Makes this batch out of rows of some batches (itself perhaps among them)."""
        prompts = [batch._prompts[row] for batch, rows in parts for row in rows]
        source_R = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
        row_R = np.concatenate([rows for _, rows in parts])
        order = np.argsort(group_ids([id(prompt) for prompt in prompts]), kind="stable")
        source_R, row_R = source_R[order], row_R[order]
        before = [(batch._cache, batch._steps) for batch, _ in parts]

        def gathered(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(batch, name)[rows] for batch, rows in parts])[order]

        histories = zip(source_R.tolist(), gathered("_history_R").tolist(), strict=True)
        self._runs_RI, self._virtual_R = gathered("_runs_RI"), gathered("_virtual_R")
        self._stored_R = gathered("_stored_R")
        self._prompts = [prompts[index] for index in order]
        self._history_R = group_ids(list(histories))
        self._steps = self._plan()
        self._cache = self._rebuilt_cache(before, source_R, row_R)
        self._update_masks()
        return order.tolist()

    def _rebuilt_cache(self, before: Seq[tuple[RowCache, list[_Step | None]]], source_R: Ints, row_R: Ints) -> RowCache:
        """A cache for the steps as they are now, out of the entries of earlier ones, which are emptied on the way."""
        width = int(self._virtual_R.max()) if self._by_reference else 0
        own = int(self._stored_R.max())
        room = max(cache.slots - cache.own for cache, _ in before)
        after = RowCache(len(self._calls), own + room, prompt_slots=width)
        after.own = own
        for index, step in enumerate(self._steps):
            if step is not None:
                sources = []
                for source, (cache, steps) in enumerate(before):
                    old = steps[index]
                    places = np.flatnonzero(source_R[step.first_G] == source)
                    if old is not None and len(places):
                        entry_R = np.zeros(int(old.rows_X.max()) + 1, dtype=np.int64)
                        entry_R[old.rows_X] = old.entry_X
                        sources.append((cache, entry_R[row_R[step.first_G[places]]], places))
                after.take(index, sources, len(step.first_G))
            for cache, _ in before:
                cache.drop(index)
        return after


def group_ids(values: Seq[object]) -> Ints:
    """Equal values get equal numbers, counted up in order of first appearance."""
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(value, len(seen)) for value in values], dtype=np.int64)
