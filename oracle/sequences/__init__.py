"""Loading of sequences from JSONL, CSV, Parquet, aligned text, `datasets` names, or the bundled set."""

from oracle.sequences.check import check_sequences, data_hash
from oracle.sequences.columns import Columns
from oracle.sequences.load import bundled_path, load_sequences, select

__all__ = ["Columns", "bundled_path", "check_sequences", "data_hash", "load_sequences", "select"]
