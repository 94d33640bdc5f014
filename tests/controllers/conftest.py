"""A small run of the tiny model, and what controllers are given of it."""

from collections.abc import Callable

import pytest

from oracle.controllers.quality_table import QualityTable
from oracle.controllers.run_context import RunContext
from oracle.controllers.training_set import TrainingSet
from oracle.store import Run


@pytest.fixture(scope="session")
def small_run(search: Callable[..., Run]) -> Run:
    """Six sequences, 24 allocations each, judged by agreement with the full model."""
    return search(criterion="agreement", evaluations=24)


@pytest.fixture(scope="session")
def context(small_run: Run) -> RunContext:
    return RunContext.open(small_run.folder)


@pytest.fixture(scope="session")
def quality_table(context: RunContext) -> QualityTable:
    return QualityTable(context)


@pytest.fixture
def training_set(context: RunContext, quality_table: QualityTable) -> TrainingSet:
    """The first four sequences; the last two are for judging."""
    return TrainingSet(examples=[context.examples[name] for name in context.ids[:4]], quality_table=quality_table)
