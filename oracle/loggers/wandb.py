"""Numbers of a search as a run of Weights & Biases."""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from oracle.errors import InputError
from oracle.loggers.base import Logger

__all__ = ["WandbLogger"]


class WandbLogger(Logger):
    """Logs to a project of Weights & Biases; a resumed search continues the run of its folder.

    The settings of the search are sent, paths and names of data included; prompts and outputs are not. The package's
    own environment variables apply, such as `WANDB_MODE=offline` and `WANDB_DIR`.

    Args:
        project: its name.

    Raises:
        InputError: if the package is not installed.
    """

    def __init__(self, project: str) -> None:
        if find_spec("wandb") is None:
            raise InputError("--wandb needs wandb; install it with: pip install 'layer-oracle[wandb]'")
        self._project = project
        self._run: Any = None

    def begin(self, run: Path, config: Mapping[str, Any]) -> None:
        """Starts the run, named after the run folder."""
        import wandb

        place = str(run.resolve())
        self._run = wandb.init(
            project=self._project,
            name=run.resolve().name,
            id=hashlib.sha256(place.encode()).hexdigest()[:16],
            resume="allow",
            config=dict(config),
            settings=wandb.Settings(console="off", save_code=False, silent=True),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the numbers, as `search/NAME`."""
        self._run.log({f"search/{name}": value for name, value in values.items()}, step=step)

    def end(self, summary: Mapping[str, float]) -> None:
        """Sets the summary, and finishes; a search without one ended early, which the exit code says."""
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if summary else 1)
