"""Hidden states on disk: computed once, read layer by layer. Independent of the model code."""

from oracle.store.hidden.key import Key
from oracle.store.hidden.shard import Entry
from oracle.store.hidden.store import LIMIT, HiddenStore, Usage

__all__ = ["LIMIT", "Entry", "HiddenStore", "Key", "Usage"]
