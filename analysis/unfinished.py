"""Words on searches that have not ended, for everything that shows their results."""

from analysis.experiment import Experiment
from oracle.store import Run

__all__ = ["unfinished"]


def unfinished(experiment: Experiment) -> str:
    """How far the search behind an experiment has come, such as `9 of 24 sequences`; empty if it has ended.

    Empty too if the run is not stored, or no longer. Sequences count whose full model has been evaluated, so that they
    are among the results; more tries of them may follow.
    """
    folder = experiment.folder
    if folder is None or not folder.is_dir():
        return ""
    run = Run.open(folder)
    if run.complete:
        return ""
    return f"{len(experiment.sequences)} of {run.read('sequences').num_rows} sequences"
