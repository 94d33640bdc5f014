"""How the file of a data set is to be read, where its suffix does not say."""

from dataclasses import dataclass
from typing import Literal, get_args

from oracle.errors import InputError
from oracle.utils.text import nearest_hint
from oracle.utils.validation import check_types, named_settings

__all__ = ["FORMATS", "Layout"]

FORMATS = ("auto", "jsonl", "json", "csv", "tsv", "parquet", "arrow", "text")

Cells = Literal["auto", "lists", "text"]

_NAMED_SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@named_settings
@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a data file is read.

    Attributes:
        format: one of `FORMATS`; `auto` goes by the suffix.
        separator: of a CSV file: one character, `tab`, `semicolon`, `pipe` or `space`; None to find it in the file.
        records: path of the list of records in a JSON document, keys joined by dots; lists on the way are followed
            into every item, whose other fields are handed down to the records. None: the document itself, or the only
            list of records in it.
        cells: texts that look like lists, and whole numbers such as 18.0. `auto`: in CSV and TSV, a cell that is a list
            in the notation of JSON, Python or numpy is a list; in formats that have lists, a text that looks like one
            is refused. In a column of whole numbers with gaps 18.0 is 18. `lists`: such texts are lists everywhere.
            `text`: everything is taken as written.
    """

    format: str = "auto"
    separator: str | None = None
    records: str | None = None
    cells: Cells = "auto"

    def __post_init__(self) -> None:
        check_types(self)
        if self.format not in FORMATS:
            hint = nearest_hint(self.format, FORMATS)
            raise InputError(f"--format needs one of {', '.join(FORMATS)}, not '{self.format}'{hint}")
        if self.cells not in get_args(Cells):
            hint = nearest_hint(self.cells, get_args(Cells))
            raise InputError(f"--cells needs one of {', '.join(get_args(Cells))}, not '{self.cells}'{hint}")
        if self.separator is not None:
            named = _NAMED_SEPARATORS.get(self.separator, self.separator)
            if len(named) != 1 or named in '"\r\n':
                names = ", ".join(name for name in _NAMED_SEPARATORS if name.isalpha())
                raise InputError(f"--separator needs one character, or {names}, not {self.separator!r}")
            if self.format not in ("auto", "csv"):
                raise InputError(f"--separator is for CSV, not for --format {self.format}: leave one of them out")
        if self.records is not None and self.format not in ("auto", "json"):
            raise InputError(f"--records is for JSON, not for --format {self.format}: leave one of them out")
        if self.records == "":
            raise InputError("--records needs the key of the list of records, not an empty text")

    @property
    def delimiter(self) -> str | None:
        """The separator as one character; None to find it in the file."""
        return None if self.separator is None else _NAMED_SEPARATORS.get(self.separator, self.separator)
