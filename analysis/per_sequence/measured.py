"""Tables of `oracle measure` as arguments: given as they are, or read from a run."""

import shlex
from collections.abc import Callable
from os import fspath

import pandas as pd

from analysis.experiment import InputError
from oracle.types import RunPath

__all__ = ["measured"]


def measured(run: RunPath | pd.DataFrame, read: Callable[[RunPath], pd.DataFrame | None]) -> pd.DataFrame:
    """A table as it is, or that of a run.

    Args:
        run: the table, or the run.
        read: reads the table of a run; None if it was not measured.

    Raises:
        InputError: if the run was not measured; names the command.
    """
    if isinstance(run, pd.DataFrame):
        return run
    table = read(run)
    if table is None:
        raise InputError(f"a measured run is required: run 'oracle measure {shlex.quote(fspath(run))}' first")
    return table
