"""A small run of the tiny model, and what controllers are given of it."""

from collections.abc import Callable

import pytest

from oracle.controllers.ledger import Ledger
from oracle.controllers.lessons import Lessons
from oracle.controllers.subject import Subject
from oracle.store import Run


@pytest.fixture(scope="session")
def small_run(search: Callable[..., Run]) -> Run:
    """Six sequences, 24 allocations each, judged by agreement with the full model."""
    return search(criterion="agreement", evaluations=24)


@pytest.fixture(scope="session")
def subject(small_run: Run) -> Subject:
    return Subject.open(small_run.folder)


@pytest.fixture(scope="session")
def ledger(subject: Subject) -> Ledger:
    return Ledger(subject)


@pytest.fixture
def lessons(subject: Subject, ledger: Ledger) -> Lessons:
    """The first four sequences; the last two are for judging."""
    return Lessons(each=[subject.lessons[name] for name in subject.ids[:4]], ledger=ledger)
