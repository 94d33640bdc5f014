"""Rarity: against the true share over all masks of small models, and what counts as drawn at random."""

from collections.abc import Callable
from dataclasses import replace
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from analysis import Experiment, InputError, Source, budgets, load, rarity
from analysis.luck.null_oracle import derangements
from analysis.luck.rarity import clopper_pearson_high, clopper_pearson_low, one_unit_below, statement
from analysis.plots.registry import draw_all
from oracle.search import Archive, Problem, Space, make
from oracle.store import Run
from oracle.types import Outcome

UNITS = 8


def chances(steep: float, seed: int) -> dict[tuple[int, ...], float]:
    """Qualities of every mask: 1 for those that work, more often the larger they are."""
    rng = np.random.default_rng(seed)
    space = Space.of(UNITS)
    masks = [mask for k in range(UNITS + 1) for mask in space.masks(k)]
    works = rng.random(len(masks)) < np.array([(len(mask) / UNITS) ** steep for mask in masks])
    return {mask: float(w or mask == space.full) for mask, w in zip(masks, works, strict=True)}


def searched(tables: list[dict[tuple[int, ...], float]], strategy: str, evaluations: int, seed: int) -> Experiment:
    """A run of a strategy on given qualities."""
    rows = []
    for n, table in enumerate(tables):
        problem = Problem(space=Space.of(UNITS), archive=Archive(Space.of(UNITS), "exact_match"), seed=1000 * seed + n)
        search = make(strategy, problem)
        while len(problem.archive) < evaluations and not search.done:
            outcomes = [
                Outcome(
                    allocation=one.allocation,
                    family=one.family,
                    tokens=(),
                    text="",
                    finished=True,
                    margin=1.0,
                    quality={"exact_match": table[one.allocation]},
                )
                for one in search.ask(min(8, evaluations - len(problem.archive)))
            ]
            rows += [
                {
                    "sequence": f"s{n}",
                    "family": o.family,
                    "allocation": o.allocation,
                    "exact_match": o.quality["exact_match"],
                }
                for o in outcomes
            ]
            search.tell(outcomes)
    frame = pd.DataFrame(rows)
    frame["number"] = frame.groupby("sequence").cumcount()
    frame = frame.assign(cost=frame["allocation"].map(len), tokens=[[1, 2]] * len(frame), text="")
    names = [f"s{n}" for n in range(len(tables))]
    references = [["r"]] * len(names)
    return Experiment(
        sequences=pd.DataFrame({"sequence": names, "task": "", "references": references, "prompt_tokens": 5}),
        evaluations=frame,
        layers=UNITS,
        unit="layer",
        metric="exact_match",
        kind="text",
        tolerance=0.0,
        scope="decode",
        floor=0.0,
        seed=seed,
        uniform=True,
    )


def true_shares(table: dict[tuple[int, ...], float]) -> np.ndarray:
    """Share of all masks that work, by size."""
    sizes = np.array([len(mask) for mask in table])
    return np.array([np.array(list(table.values()))[sizes == k].mean() for k in range(UNITS + 1)])


@pytest.mark.parametrize("strategy", ["random", "spread"])
def test_the_true_share_lies_in_the_interval_in_95_of_100_runs(strategy: str) -> None:
    inside, together, shares, runs = 0, 0, [], 150
    table = chances(2.5, seed=4)
    truth = true_shares(table)
    for seed in range(runs):
        rows = rarity(searched([table], strategy, 70, seed), permutations=0, bootstrap=0).by_sequence
        rows = rows.set_index("units")
        inside += int(rows["low"][4] - 1e-12 <= truth[4] <= rows["high"][4] + 1e-12)
        together += int((truth[rows.index] <= rows["at_most"] + 1e-12).all())
        shares.append(rows["share"].reindex(range(UNITS + 1)).to_numpy())
        assert (rows["low"] <= rows["share"]).all() and (rows["share"] <= rows["high"]).all()
    # Without replacement the interval is too wide, never too narrow: at least 95 of 100, but for 3 standard errors.
    assert inside / runs >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)
    assert together / runs >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)
    # No bias, although the two masks of families are no random ones: the mean of all runs is the true share.
    spread = np.std(shares, axis=0) / np.sqrt(runs)
    assert (np.abs(np.mean(shares, axis=0) - truth) <= 4 * spread + 1e-12).all()
    assert 0.1 < truth[4] < 0.9
    assert rows["high"][4] - rows["low"][4] > 0.1


def test_the_pooled_interval_holds_the_mean_share_of_these_sequences() -> None:
    tables = [chances(steep, seed) for seed, steep in enumerate((0.5, 2.0, 6.0))]
    truth = np.mean([true_shares(table)[4] for table in tables])
    runs, inside = 120, 0
    for seed in range(runs):
        pooled = rarity(searched(tables, "spread", 60, seed), permutations=0, bootstrap=0).pooled.set_index("units")
        inside += int(pooled["low"][4] <= truth <= pooled["high"][4])
    # The sequences differ widely, so that the sum varies less than a binomial: the interval is rather too wide.
    assert inside / runs >= 0.95
    own = [binomtest(int(q), int(n)).statistic for q, n in pooled[["qualifying", "drawn"]].to_numpy() if n]
    assert own
    assert pooled["sequences"].eq(3).all()


def test_a_statement_about_a_size_picked_by_the_outcomes_holds() -> None:
    """The size just below the smallest mask found is the one where no draw worked: 95 % for one size would not do."""
    table, runs, right, stated = chances(4.0, seed=1), 120, 0, 0
    truth = true_shares(table)
    for seed in range(runs):
        experiment = searched([table], "random", 50, seed)
        found = rarity(experiment, permutations=0, bootstrap=0)
        row = one_unit_below(found, budgets(experiment)).iloc[0]
        if pd.notna(row["drawn"]):
            stated += 1
            right += int(truth[int(row["units"])] <= row["at_most"])
            assert row["qualifying"] == 0
            assert "not a proof" in statement(row, "layer")
    assert stated > runs / 2
    assert right / stated >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / stated)


def test_the_intervals_are_those_of_scipy() -> None:
    counts = [(0, 1), (1, 1), (0, 125), (3, 17), (16, 17), (60, 294)]
    hits, draws = np.array(counts, dtype=float).T
    for place, (k, n) in enumerate(counts):
        expected = binomtest(k, n).proportion_ci(method="exact")
        assert clopper_pearson_low(hits, draws, 0.025)[place] == pytest.approx(expected.low, abs=1e-9)
        assert clopper_pearson_high(hits, draws, 0.025)[place] == pytest.approx(expected.high, abs=1e-9)
    # "of masks with 12 layers at most 2.9 % qualify"
    assert clopper_pearson_high(hits, draws, 0.025)[2] == pytest.approx(0.029, abs=5e-4)


def test_every_mask_of_a_size_is_no_estimate() -> None:
    table = chances(2.0, seed=7)
    rows = rarity(searched([table], "random", 2**UNITS, 0), permutations=0).by_sequence
    assert rows["units"].tolist() == list(range(UNITS + 1))
    for bound in ("share", "low", "high", "at_most"):
        assert rows[bound].to_numpy() == pytest.approx(true_shares(table))
    assert (rows["masks"] == [comb(UNITS, k) for k in range(UNITS + 1)]).all()


def test_budgets_that_the_search_exhausted_are_known() -> None:
    """Proofs leave only the masks that qualify: their number is the share, whatever was drawn."""
    table = chances(2.0, seed=7)
    experiment = searched([table], "spread", 40, 0)
    known = set(experiment.evaluations["allocation"])
    proofs = [mask for mask, quality in table.items() if len(mask) <= 3 and quality == 1 and mask not in known]
    more = pd.DataFrame({"allocation": proofs, "family": "proof", "exact_match": 1.0, "sequence": "s0", "text": ""})
    more["number"], more["cost"] = np.arange(len(more)) + 40, more["allocation"].map(len)
    more["tokens"] = [[1, 2]] * len(more)
    both = replace(experiment, evaluations=pd.concat([experiment.evaluations, more], ignore_index=True))
    rows = rarity(replace(both, exhausted={"s0": 4}), permutations=0).by_sequence.set_index("units")
    assert len(proofs) > 5
    for bound in ("share", "low", "high"):
        assert rows[bound][:4].to_numpy() == pytest.approx(true_shares(table)[:4])
    # By another criterion nothing is exhausted, and what was kept because it qualified is no sample.
    before = rarity(experiment, permutations=0).by_sequence
    pd.testing.assert_frame_equal(rarity(both, permutations=0).by_sequence, before)


def test_dropped_outputs_count_as_failed_only_where_they_did() -> None:
    whole = searched([chances(1.5, seed=s) for s in range(4)], "spread", 60, 0)
    fails = whole.evaluations["exact_match"] == 0
    columns = ["sequence", "number", "family", "allocation"]
    dropped = fails & (np.random.default_rng(0).random(len(fails)) < 0.7)
    pruned = replace(
        whole,
        evaluations=whole.evaluations[~dropped].reset_index(drop=True),
        dropped=whole.evaluations.loc[dropped, columns].reset_index(drop=True),
        dropped_fail=True,
    )
    expected, found = (rarity(each, permutations=0, bootstrap=50) for each in (whole, pruned))
    pd.testing.assert_frame_equal(found.by_sequence, expected.by_sequence)
    pd.testing.assert_frame_equal(found.pooled, expected.pooled)
    # Under another criterion they may work or not.
    unknown = rarity(replace(pruned, dropped_fail=False), permutations=0).pooled
    some = unknown["unknown"] > 0
    assert some.sum() > 4
    assert unknown["share"].isna().equals(some)
    assert (unknown["low"] <= expected.pooled["low"] + 1e-12).all()
    assert (unknown["high"] >= expected.pooled["high"] - 1e-12).all()
    assert (unknown["high"] - unknown["low"])[some].min() > (expected.pooled["high"] - expected.pooled["low"])[
        some
    ].min()


def test_a_search_that_drops_hopeless_outputs_tells_the_same(search: Callable[..., Run]) -> None:
    """The trap of the raw evaluations: what was dropped is missing among those that are analysed."""
    settings = {"strategy": "spread", "evaluations": 24, "criterion": "agreement", "tolerance": 0.6}
    whole, pruned = search(**settings), search(**settings, prune=True)
    kept, gone = load(whole.folder), load(pruned.folder)
    assert len(gone.dropped) > 10
    assert len(gone.dropped) + len(gone.evaluations) == len(kept.evaluations)
    both = [rarity(each, permutations=0) for each in (kept, gone)]
    pd.testing.assert_frame_equal(both[0].by_sequence, both[1].by_sequence)
    rows = both[0].by_sequence
    assert 0 < rows["qualifying"].sum() < rows["drawn"].sum()
    random = kept.evaluations[kept.evaluations["family"] == "random"]
    above = random["allocation"].map(len) >= random["sequence"].map(kept.exhausted)
    assert rows["drawn"].sum() == above.sum() < len(random)
    # A stricter tolerance is missed as well, a looser one perhaps not, and nothing is known of another metric.
    assert load(pruned.folder, "agreement", 0.5).dropped_fail
    assert not load(pruned.folder, "agreement", 0.7).dropped_fail
    assert not load(pruned.folder, "rougeL").dropped_fail
    assert (rarity(load(pruned.folder, "rougeL"), permutations=0).by_sequence["unknown"] > 0).any()
    # Against other references too.
    assert rarity(gone, permutations=2).by_sequence["null_share"].isna().any()
    only = gone.only(["s1"])
    assert set(only.dropped["sequence"]) <= {"s1"}


def test_masks_that_were_not_drawn_are_refused(search: Callable[..., Run], tmp_path) -> None:
    guided = search(strategy="auto", evaluations=12)
    continued = search(strategy="random", evaluations=12, prior=guided.folder)
    for run in (guided, continued):
        with pytest.raises(InputError, match="drawn at random are required, and this run has none: run `oracle search"):
            rarity(load(run.folder))
        [picture] = draw_all([Source.open(run.folder)], tmp_path, names=["rarity"])
        assert "oracle search --strategy spread" in picture.skipped or "can tell something" in picture.skipped
    few = load(search(strategy="spread", evaluations=3).folder)
    with pytest.raises(InputError, match=r"the 3 evaluations per sequence .* search again with more --evaluations"):
        rarity(few)


def test_the_null_is_a_run_shuffled_by_hand(experiment: Experiment) -> None:
    found = rarity(experiment, permutations=3, bootstrap=0)
    quality_PE = experiment.shuffled_quality(derangements(len(experiment.sequences), 3, experiment.seed))
    by_hand = [
        rarity(replace(experiment, evaluations=experiment.evaluations.assign(rougeL=quality_E)), permutations=0)
        for quality_E in quality_PE
    ]
    for name in ("share", "low", "high"):
        mean = np.mean([each.by_sequence[name] for each in by_hand], axis=0)
        assert found.by_sequence[f"null_{name}"].to_numpy() == pytest.approx(mean)
    # Only the sequences that can tell something are pooled, also against shuffled references.
    told = budgets(experiment).set_index("sequence")["informative"]
    rows = found.by_sequence[told.loc[found.by_sequence["sequence"]].to_numpy()]
    sums = rows.groupby("units")[["drawn", "qualifying"]].sum()
    assert 0 < told.sum() < len(told)
    assert found.pooled.set_index("units")[["drawn", "qualifying"]].equals(sums)
    # All sequences have the same draws here, so that the mean of shares is the pooled share.
    assert rows.groupby("units")["share"].mean().to_numpy() == pytest.approx(found.pooled["share"].to_numpy())
    assert rows.groupby("units")["null_share"].mean().to_numpy() == pytest.approx(found.pooled["null_share"].to_numpy())


def test_the_bootstrap_over_sequences_sees_how_they_differ() -> None:
    tables = [chances(steep, seed) for seed, steep in enumerate([0.2] * 6 + [9.0] * 6)]
    pooled = rarity(searched(tables, "spread", 120, 0), permutations=0).pooled.set_index("units").loc[3:6]
    assert (pooled["sequences_high"] - pooled["sequences_low"] > 1.5 * (pooled["high"] - pooled["low"])).all()
    assert (pooled["sequences_low"] < pooled["share"]).all() and (pooled["share"] < pooled["sequences_high"]).all()
