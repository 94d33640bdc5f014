"""A run of six short sequences, and its drafts."""

import pytest

from oracle.draft import DraftStudy, Plan, find_drafts
from oracle.store import Run

PLAN = Plan(length=4, evaluations=6)


@pytest.fixture(scope="session")
def run(search) -> Run:
    return search(evaluations=1, max_new_tokens=10)


@pytest.fixture(scope="session")
def study(run: Run) -> DraftStudy:
    return find_drafts(run.folder, PLAN)
