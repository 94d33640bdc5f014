"""Right answers that the outputs at the minimal budget lack, although a metric of overlap scores them no lower."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.experiment import as_experiment
from analysis.per_sequence.savings import budgets, informative
from oracle.types import RunPath

__all__ = ["definite_answer", "lost_answers"]

OVERLAP = ("rouge1", "rouge2", "rougeL", "bleu", "chrf")
"""Metrics of how many words or characters an output shares with a reference, right or wrong."""

COLUMNS = ("sequence", "answer", "full_text", "full_quality", "text", "quality", "cost", "lost")


def definite_answer(references: Sequence[str]) -> str:
    """The shortest reference if its words stand, in this order and together, in all others; otherwise empty.

    Such as `17` of `17` and `There are now 17 people on the bus.` One reference alone does not tell what its answer is.
    """
    if len(references) < 2:
        return ""
    shortest = min(references, key=lambda text: len(_words(text)))
    return shortest if all(_has(text, shortest) for text in references) else ""


def lost_answers(experiment: RunPath) -> pd.DataFrame:
    """The sequences with a definite answer that the full model gives, and their outputs at the minimal budget.

    Args:
        experiment: a run.

    Returns:
        One row per sequence that can tell something, whose references have a `definite_answer` which stands in the full
        model's output: `sequence`, `answer`, `full_text`, `full_quality`; `text`, `quality` and `cost` of the minimal
        allocation; `lost`, whether the answer does not stand in its text. No rows if the metric does not compare whole
        texts by overlap.
    """
    experiment = as_experiment(experiment)
    compared = experiment.provenance.get("config", {}).get("extract") is None and experiment.metric in OVERLAP
    minimal = budgets(experiment)
    minimal = minimal[informative(minimal)] if compared else minimal.iloc[:0]
    evaluations = experiment.evaluations[["sequence", "number", "text"]]
    full = evaluations.loc[evaluations["number"] == 0, ["sequence", "text"]].rename(columns={"text": "full_text"})
    minimal = minimal.merge(experiment.sequences[["sequence", "references"]], on="sequence", validate="one_to_one")
    minimal["answer"] = [definite_answer(texts) for texts in minimal["references"]]
    minimal = minimal[minimal["answer"] != ""].merge(full, on="sequence", validate="one_to_one")
    minimal = minimal.merge(evaluations, on=["sequence", "number"], validate="one_to_one")
    rows = []
    for one in minimal.to_dict("records"):
        answer, full_text, text = one["answer"], one["full_text"], one["text"]
        if _has(full_text, answer):
            lost = not _has(text, answer)
            rows.append(
                (one["sequence"], answer, full_text, one["full_quality"], text, one["quality"], one["upper"], lost)
            )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"lost": np.bool_})


def _words(text: str) -> list[str]:
    return re.findall(r"-?\d+(?:[.,]\d+)*|\w+", text.casefold())


def _has(text: str, answer: str) -> bool:
    """Whether the words of an answer stand in a text together."""
    words, wanted = _words(text), _words(answer)
    return bool(wanted) and any(words[n : n + len(wanted)] == wanted for n in range(len(words) - len(wanted) + 1))
