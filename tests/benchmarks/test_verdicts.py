"""The rules by which benchmarks judge, and their intervals; what they measure takes the embedded model and minutes."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.claims import PARTS, Claim, Subject, gates, guessing, judged, row, table
from benchmarks.gates import ALPHAS, FINDINGS, Study, crossed


@pytest.mark.parametrize(
    ("low", "high", "rule", "number", "verdict"),
    [
        (0.1, 0.2, "sign", 0.0, "agrees"),
        (-0.2, -0.1, "sign", 0.0, "does not agree"),
        (-0.1, 0.1, "sign", 0.0, "cannot tell"),
        (None, None, "sign", 0.0, "cannot tell"),
        (0.2, 0.3, "number", 0.233, "agrees"),
        (0.3, 0.4, "number", 0.233, "does not agree"),
        (0.1, 0.4, "number", 0.233, "cannot tell"),
        (0.8, 0.9, "at least", 0.75, "agrees"),
        (0.6, 0.7, "at least", 0.75, "does not agree"),
        (0.7, 0.8, "at least", 0.75, "cannot tell"),
        (0.8, 0.9, "reached", 0.75, "agrees"),
        (0.2, 0.6, "reached", 0.75, "cannot tell"),
        (0.1, 0.2, "at most", 0.26, "agrees"),
        (0.3, 0.4, "at most", 0.26, "does not agree"),
    ],
)
def test_verdicts(low: float | None, high: float | None, rule: str, number: float, verdict: str) -> None:
    assert judged(low, high, rule, number) == verdict


def test_a_row_has_the_mean_and_its_interval() -> None:
    words = dict.fromkeys(("claim", "source", "theirs", "sample", "figure"), "x")
    found = row([0.1, 0.2, 0.3, 0.4], **words)
    assert isinstance(found, Claim)
    assert found.value == pytest.approx(0.25)
    assert found.low is not None and found.high is not None
    assert 0.1 <= found.low < 0.25 < found.high <= 0.4
    assert found.verdict == "agrees"
    share = row([1.0, 1.0, 1.0, 1.0], "at least", 0.6, **words)
    # Wilson for 4 of 4: 1 / (1 + 1.96^2 / 4).
    assert (share.value, share.low, share.high) == (1.0, pytest.approx(0.510, abs=1e-3), 1.0)
    assert share.verdict == "cannot tell"
    [_, _, line] = table([found]).splitlines()
    assert line.count("|") == 7 and "0.25 (0." in line
    assert len(PARTS) == 8
    same = row([2.0, 2.0], **words)
    assert (same.value, same.low, same.verdict) == (2.0, None, "cannot tell"), "two equal values prove nothing"
    paired = row([1.0, 0.0, 0.0, 1.0], difference=True, **words)
    # Resampled: no success in 4 draws has a chance of 1/16, above 2.5 %.
    assert (paired.low, paired.high) == (0.0, 1.0)
    nothing = row([], **words)
    assert (nothing.value, nothing.verdict) == (None, "cannot tell: none in the sample")
    [_, _, line] = table([nothing]).splitlines()
    assert "| -: x |" in line


def test_random_guesses_hit_by_chance() -> None:
    """Of 3 different answers, 2 guesses miss with (2/3)^2."""
    assert guessing(["Rome", "rome.", "Paris", "Oslo"], 2) == pytest.approx(1 - 4 / 9)
    rng = np.random.default_rng(0)
    assert (rng.integers(3, size=(20000, 2)) == 0).any(1).mean() == pytest.approx(1 - 4 / 9, abs=0.01)
    assert guessing(["Rome"], 1) == 1.0


def claims_of(folder: Path) -> list[Claim]:
    given = {"again": False, "run": None, "sequences": 4, "questions": 4}
    return gates(Subject(folder / "claims", gates=folder / FINDINGS, **given))


def test_the_interval_resamples_seeds_and_sequences() -> None:
    rng = np.random.default_rng(0)
    seed_S, sequence_N = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]), rng.normal(0, 0.1, 200)
    mean, low, high = crossed(seed_S[:, None] + sequence_N)
    # The seeds' spread dominates: standard error 0.71 / sqrt(5).
    assert high - low == pytest.approx(2 * 1.96 * 0.316, rel=0.15)
    assert low < mean < high
    _, low, high = crossed(np.tile(sequence_N, (5, 1)))
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 200**0.5, rel=0.15)


def test_what_hidden_states_add_at_equal_fraction(tmp_path: Path) -> None:
    """Fixed: quality equals the fraction. Hidden: 0.1 more. One alpha lacks its partner and does not count."""
    study = Study(tmp_path, 4, 2)
    (tmp_path / "n4-ends.json").write_text(json.dumps({"full": [1.0] * 4, "empty": [0.0] * 4}))
    for (seed, alpha, kind), path in study.works():
        if (seed, alpha, kind) == (1, ALPHAS[-1], "fixed"):
            continue
        fraction = 0.9 - 0.1 * ALPHAS.index(alpha) - (0.05 if kind == "hidden" else 0)
        rows = [[fraction, fraction + (0.1 if kind == "hidden" else 0)]] * 4
        path.write_text(json.dumps({"sample": rows, "argmax": rows}))
    study.run(0.0)
    unknown = claims_of(tmp_path)
    assert [(one.value, one.low, one.verdict) for one in unknown] == [
        (None, None, "cannot tell: not measured here")
    ] * 2
    assert "gates.py" in unknown[0].note
    found = study.write()
    assert [one["decision"] for one in found] == ["sample", "argmax"]
    assert all(one["difference"] == pytest.approx(0.1) for one in found)
    assert found[0]["alphas"] == {0: [*ALPHAS], 1: [*ALPHAS[:-1]]}
    assert (found[0]["seeds"], found[0]["sequences"], found[0]["steps"]) == (2, 4, 32)
    sampled, argmax = claims_of(tmp_path)
    assert "as released" in sampled.claim and "ours" in argmax.claim
    assert (sampled.value, sampled.low, sampled.high) == (found[0]["difference"], found[0]["low"], found[0]["high"])
    assert sampled.verdict == "does not agree", "0.1 is more than 5 % of the full model's 1.0"
    assert "4 sequences in two halves, 2 of 2 seeds" in sampled.sample and FINDINGS in sampled.sample
    Study(tmp_path, 4, 1).write()
    assert {one.verdict for one in claims_of(tmp_path)} == {"cannot tell: one seed"}
