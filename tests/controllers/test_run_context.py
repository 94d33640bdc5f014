"""What a comparison of controllers reads of a run."""

import pytest

from oracle.controllers.run_context import RunContext
from oracle.store import Run


def test_a_comparison_reads_the_evaluations_once(small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations, reads = Run.evaluations, []

    def counted(run, **options):
        reads.append(run.folder)
        return evaluations(run, **options)

    monkeypatch.setattr(Run, "evaluations", counted)
    context = RunContext.open(small_run.folder, limit=4)
    assert reads == [small_run.folder]
    assert len(context.ids) == context.experiment.sequences["sequence"].nunique() == 4
