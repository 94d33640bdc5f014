"""How results show themselves: in one line, and as a table in a notebook."""

from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from oracle.store.html import card

__all__ = ["Shown"]


class Shown:
    """Base of dataclasses whose fields may be tables and arrays; they are declared with `repr=False`.

    In text, tables and arrays are given by their shape. In a notebook the tables stand below the other values.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __repr__(self) -> str:
        shown = (f"{one.name}={_brief(getattr(self, one.name))}" for one in fields(self) if one.repr)
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.repr}
        tables = {name: value for name, value in values.items() if isinstance(value, pd.DataFrame)}
        rows = [(name, _brief(value)) for name, value in values.items() if name not in tables]
        parts = [f"<p>{name}</p>{table.to_html(max_rows=20, max_cols=20)}" for name, table in tables.items()]
        return "".join([card(type(self).__name__, rows), *parts])


def _brief(value: Any) -> str:
    if isinstance(value, pd.DataFrame):
        return f"<table of {len(value)} rows: {', '.join(map(str, value.columns[:4]))}{', ...' * (value.shape[1] > 4)}>"
    if isinstance(value, np.ndarray):
        return f"<array of {' x '.join(map(str, value.shape))}>"
    if is_dataclass(value) and not isinstance(value, Shown):
        return f"<{type(value).__name__}>"
    return " ".join(repr(value).split())
