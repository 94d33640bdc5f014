"""Numbers of a search as events of TensorBoard."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from oracle.errors import InputError
from oracle.loggers.base import Logger

__all__ = ["TensorBoardLogger"]


class TensorBoardLogger(Logger):
    """Writes event files into `folder / NAME`, of the run folder's name; a resumed search adds another file.

    Args:
        folder: as for `tensorboard --logdir`; created if missing.

    Raises:
        InputError: if the package is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        if find_spec("tensorboard") is None:
            raise InputError(
                "--tensorboard needs tensorboard; install it with: pip install 'layer-oracle[tensorboard]'"
            )
        self._folder = Path(folder)
        self._writer: Any = None

    def begin(self, run: Path, config: Mapping[str, Any]) -> None:
        """Opens the event file; the settings are its text `config`."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder / run.resolve().name))
        lines = "\n".join(f"    {name}: {value!r}" for name, value in config.items())
        self._writer.add_text("config", lines)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one scalar per number, as `search/NAME`."""
        for name, value in values.items():
            self._writer.add_scalar(f"search/{name}", value, step)

    def end(self, summary: Mapping[str, float]) -> None:
        """Adds the summary's numbers as `summary/NAME`, and closes the file."""
        for name, value in summary.items():
            self._writer.add_scalar(f"summary/{name}", value, 0)
        self._writer.close()
