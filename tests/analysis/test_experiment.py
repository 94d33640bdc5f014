"""Reading a real run folder, under its own criterion and others."""

import numpy as np
import pytest

from analysis import InputError, load, summarise
from oracle.metrics import score_text


def test_the_runs_own_criterion(stored_run):
    experiment = load(stored_run)
    assert (experiment.metric, experiment.kind, experiment.tolerance) == ("rougeL", "text", 0.05)
    assert (experiment.layers, experiment.scope, experiment.floor, experiment.seed) == (3, "decode", 0.0, 7)
    assert len(experiment.evaluations) == 12
    assert experiment.provenance["model"]["fingerprint"] == "f00d"
    assert experiment.provenance["read_by"] == {"criterion": "rougeL", "tolerance": 0.05}


def test_another_criterion_and_tolerance(stored_run):
    experiment = load(stored_run, criterion="chrf")
    assert (experiment.metric, experiment.tolerance) == ("chrf", 0.0)
    assert load(stored_run, tolerance=0.2).tolerance == 0.2
    likelihood = load(stored_run, criterion="log_likelihood")
    assert (likelihood.kind, likelihood.floor, likelihood.score) == ("likelihood", None, None)


@pytest.mark.parametrize("criterion", ["rougeL", "chrf", "bleu", "exact_match"])
def test_shuffled_texts_are_scored_by_the_metric_itself(stored_run, criterion):
    experiment = load(stored_run, criterion=criterion)
    [shuffled] = experiment.shuffled_quality(np.array([[1, 2, 0]]))
    references = dict(zip("abc", map(tuple, experiment.sequences["references"]), strict=True))
    partner = {"a": "b", "b": "c", "c": "a"}
    expected = [
        score_text(criterion, text, references[partner[sequence]])
        for sequence, text in zip(experiment.evaluations["sequence"], experiment.evaluations["text"], strict=True)
    ]
    assert shuffled.tolist() == expected
    # Against itself nothing changes.
    [own] = experiment.shuffled_quality(np.array([[0, 1, 2]]))
    assert own.tolist() == experiment.evaluations[criterion].tolist()


def test_shuffled_tokens_of_a_stored_run(stored_run):
    experiment = load(stored_run, criterion="agreement")
    [own] = experiment.shuffled_quality(np.array([[0, 1, 2]]))
    assert own.tolist() == experiment.evaluations["agreement"].tolist()


@pytest.mark.parametrize("criterion", ["rougeL", "bleu", "agreement", "log_likelihood"])
def test_a_stored_run_can_be_summarised(stored_run, criterion):
    summary = summarise(load(stored_run, criterion=criterion), bootstrap=50)
    assert summary.sequences == 3
    assert 0 <= summary.equal_quality_fraction <= summary.per_sequence_fraction <= 1
    assert summary.zero_quality_sequences == {"rougeL": 1, "bleu": 1}.get(criterion, 0)
    assert 0 <= summary.null_equal_quality_fraction <= 1
    # The prompt's full-depth pass: 15 tokens of 3 layers. The tokens of a text that is scored are not known.
    assert summary.end_to_end_fraction is None if criterion == "log_likelihood" else summary.end_to_end_fraction > 0.5


def test_sequences_that_were_not_reached_are_left_out(run_writer, tmp_path):
    experiment = load(run_writer(tmp_path / "run", evaluated="ac"))
    assert experiment.sequences["sequence"].tolist() == ["a", "c"]
    assert set(experiment.evaluations["sequence"]) == {"a", "c"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "rouge-l"}, "nearest: 'rougeL'"),
        ({"criterion": "choice_accuracy"}, "search again with --criterion choice_accuracy"),
        ({"tolerance": -0.1}, "at least 0, got -0.1"),
        ({"tolerance": float("nan")}, "at least 0, got nan"),
    ],
)
def test_bad_questions_are_refused_in_one_line(stored_run, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        load(stored_run, **arguments)
    assert "\n" not in str(caught.value)
