"""The command line as faults try it: with small rounds and parts, so that there are many moments."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import oracle.executors.search_loop
import oracle.pipeline.run
import oracle.pipeline.scheduler
from oracle.cli import main
from oracle.engine import Engine

__all__ = ["PARTS", "play", "small_steps"]

PARTS = ("evaluations", "certificates")


def small_steps() -> None:
    """As in a search that is much longer."""
    torch.set_num_threads(1)
    oracle.executors.search_loop.ASK = 5
    oracle.pipeline.scheduler.ROWS_PER_PART = 12


def play(arguments: list[str], output: Path, count: Path, breaking: Callable[[], None] | None) -> None:
    """Runs one command, and notes how many outputs it decodes.

    Args:
        arguments: of the command.
        output: takes all that is printed.
        count: takes a number a batch.
        breaking: is called first.
    """
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    small_steps()
    generate = Engine.generate

    def counting(engine: Engine, requests: list, *rest: object) -> list:
        with count.open("a") as file:
            file.write(f"{len(requests)}\n")
        return generate(engine, requests, *rest)  # type: ignore[arg-type]

    Engine.generate = counting  # type: ignore[method-assign, assignment]
    if breaking:
        breaking()
    sys.exit(main(arguments))
