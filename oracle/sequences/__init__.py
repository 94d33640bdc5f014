"""Loading of sequences from JSON, CSV, Parquet, text, `datasets` names, or the bundled set."""

from oracle.sequences.check import check_sequences, data_hash
from oracle.sequences.columns import Columns
from oracle.sequences.layout import Layout
from oracle.sequences.load import LoadedData, bundled_path, fact_lines, load_sequences, read_data, select

__all__ = [
    "Columns",
    "Layout",
    "LoadedData",
    "bundled_path",
    "check_sequences",
    "data_hash",
    "fact_lines",
    "load_sequences",
    "read_data",
    "select",
]
