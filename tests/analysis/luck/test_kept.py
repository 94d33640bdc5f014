"""Quality kept and answers that change, against plain loops over the stored outputs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import LAYERS, outcome, write_run
from plot_tables import write, write_static

import analysis
from analysis.luck.kept import ALL, MACRO, quality_kept
from analysis.luck.right_and_wrong import BAR, agreeing, partners
from oracle.allocations import compact
from oracle.errors import InputError
from oracle.metrics import score_texts
from oracle.store import RunWriter
from oracle.types import Sequence

Command = Callable[..., tuple[int, str, str]]

KEY = "f00dbead"
SETTINGS = {"static": {"budget": 0.5}, "router": {"price": 1, "shape": "wide"}, "unified": {"speedup": 2.0}}


def write_guesses(run: Path, rng: np.random.Generator) -> None:
    """References and outputs of few different words, so that outputs also match references of other sequences."""

    def text() -> str:
        return " ".join(rng.choice(["a", "b", "c", "d", "e"], 4))

    config = {"criterion": "rougeL", "tolerance": 0.0, "scope": "decode", "strategy": "spread"}
    model = {"id": "tiny", "layers": LAYERS, "fingerprint": "f00d"}
    writer = RunWriter(run, {"config": config, "model": model, "data": {"source": "made up"}, "seed": 7})
    known = [
        Sequence(id=f"s{n:04d}", prompt=f"prompt {n}", references=(text(),), task=f"task {'abc'[n % 3]}")
        for n in range(30)
    ]
    writer.write_sequences(known, [3] * 30)
    rows = []
    for sequence in known:
        full = text() if rng.random() < 0.6 else sequence.references[0]
        for number in range(24):
            count = LAYERS if number == 0 else int(rng.integers(0, LAYERS))
            layers = tuple(np.sort(rng.choice(LAYERS, count, replace=False)).tolist())
            rows.append((sequence.id, number, outcome(layers, number, text() if number else full, sequence, full)))
    writer.append(rows, list(rows[0][2].quality))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three tasks of 10, 10 and 10 sequences, with controllers and static masks."""
    run, rng = tmp_path_factory.mktemp("runs") / "kept", np.random.default_rng(1)
    write_guesses(run, rng)
    experiment = analysis.load(run)
    ids, names = experiment.sequences["sequence"], list(SETTINGS)
    for name, settings in SETTINGS.items():
        rows = pd.DataFrame({"sequence": ids, "fold": np.arange(30) % (1 if name == "unified" else 5)})
        rows = rows.assign(quality=rng.random(30), fraction=rng.integers(4, 11, 30) / LAYERS)
        stem = f"controllers/{KEY}/{name}"
        (run / "controllers" / KEY).mkdir(parents=True, exist_ok=True)
        write(run, stem, rows.iloc[::-1], key=KEY, controller=name, settings=settings)
    shown = pd.DataFrame({"controller": ["full", *names, "ridge"], "setting": ""})
    for place, name in enumerate(names, start=1):
        shown.loc[place, "setting"] = ", ".join(f"{key}={value}" for key, value in SETTINGS[name].items())
    write(run, "controllers/comparison", shown, key=KEY)
    return run


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return quality_kept(folder, (0.5, 0.75), resamples=4000).rows


def outcomes_of(folder: Path, name: str, budget: float | None = None) -> pd.DataFrame:
    """Quality and fraction per sequence of one method, with the full model's quality and the task."""
    experiment = analysis.load(folder)
    full = experiment.evaluations.query("number == 0").set_index("sequence")["rougeL"].rename("full")
    if budget is not None:
        found = analysis.oracle_allocations(experiment, budget)[["sequence", "quality", "fraction"]]
    else:
        found = pd.read_parquet(folder / "controllers" / KEY / f"{name}.parquet")
    tasks = experiment.sequences.set_index("sequence")["task"]
    return found.set_index("sequence").join(full).join(tasks)


CASES = [("oracle", 0.5), ("oracle", 0.75), ("router", None), ("unified", None)]


@pytest.mark.parametrize(("name", "budget"), CASES)
def test_means_are_those_of_pandas(folder: Path, rows: pd.DataFrame, name: str, budget: float | None) -> None:
    each = outcomes_of(folder, name, budget)
    mine = rows[(rows["method"] == name) & ((budget is None) | (rows["setting"] == f"budget={budget}"))]
    assert mine["over"].tolist() == [ALL, MACRO, "task a", "task b", "task c"]
    values = ["quality", "full", "fraction"]
    of_task = each.groupby("task")[values].mean()
    expected = pd.concat([each[values].mean().to_frame().T, of_task.mean().to_frame().T, of_task])
    np.testing.assert_allclose(mine[["quality", "full_quality", "fraction"]], expected, rtol=1e-12)
    np.testing.assert_allclose(mine["kept"], expected["quality"] / expected["full"])
    np.testing.assert_allclose(mine["difference"], expected["quality"] - expected["full"], atol=1e-12)
    assert mine["sequences"].tolist() == [30, 30, 10, 10, 10]


@pytest.mark.parametrize(("name", "budget"), CASES)
def test_intervals_are_those_of_a_plain_bootstrap(
    folder: Path, rows: pd.DataFrame, name: str, budget: float | None
) -> None:
    each, rng = outcomes_of(folder, name, budget), np.random.default_rng(7)
    mine = rows[(rows["method"] == name) & ((budget is None) | (rows["setting"] == f"budget={budget}"))]
    mine = mine.set_index("over")
    tasks = [part[["quality", "full"]].to_numpy() for _, part in each.groupby("task")]
    whole = each[["quality", "full"]].to_numpy()

    def drawn(values: np.ndarray) -> np.ndarray:
        return values[rng.integers(len(values), size=len(values))].mean(axis=0)

    for over, draw in {
        ALL: lambda: drawn(whole),
        MACRO: lambda: np.mean([drawn(part) for part in tasks], axis=0),
        "task b": lambda: drawn(tasks[1]),
    }.items():
        quality, full = np.array([draw() for _ in range(4000)]).T
        for field, value in {"quality": quality, "difference": quality - full, "kept": quality / full}.items():
            found = mine.loc[over, [f"{field}_low", f"{field}_high"]].to_numpy(float)
            low, high = np.quantile(value, [0.025, 0.975])
            assert found == pytest.approx([low, high], abs=0.12 * (high - low) + 1e-9)


@pytest.mark.parametrize(("name", "budget"), CASES)
def test_answers_that_change_are_counted_beside_chance(
    folder: Path, rows: pd.DataFrame, name: str, budget: float | None
) -> None:
    experiment, each = analysis.load(folder), outcomes_of(folder, name, budget)
    partner_PN = partners(experiment.sequences["task"], 10, experiment.seed)
    telling_PN = [~agreeing(experiment, partner_N) for partner_N in partner_PN]
    ids, references = (
        experiment.sequences["sequence"].tolist(),
        [tuple(one) for one in experiment.sequences["references"]],
    )

    def is_right(text: str, known: tuple[str, ...]) -> bool:
        return score_texts(text, known)["rougeL"] >= BAR

    random: dict[str, float] = {}
    lucky: dict[str, float] = {}
    for place, one in enumerate(ids):
        tried = experiment.evaluations.query("sequence == @one")
        whole = tried.iloc[0]
        tried = tried[(tried["number"] > 0) & (tried["cost"] <= each.loc[one, "fraction"] * LAYERS + 1e-6)]
        if tried.empty:
            continue
        random[one] = float(np.mean([is_right(text, references[place]) for text in tried["text"]]))
        chances = []
        for partner_N, telling_N in zip(partner_PN, telling_PN, strict=True):
            other = references[partner_N[place]]
            if telling_N[place] and not is_right(whole["text"], other):
                hits = [is_right(text, other) for text in tried["text"]]
                chances.append(float(any(hits) if budget is not None else np.mean(hits)))
        if chances:
            lucky[one] = float(np.mean(chances))
    mine = rows[(rows["method"] == name) & ((budget is None) | (rows["setting"] == f"budget={budget}"))]
    for over in (ALL, "task a", "task c"):
        part = each if over == ALL else each[each["task"] == over]
        right, wrong = part[part["full"] >= BAR], part[part["full"] < BAR]
        assert len(right) and len(wrong)
        row = mine.set_index("over").loc[over]
        assert (row["right"], row["wrong"]) == (len(right), len(wrong))
        assert row["right_to_wrong"] == (right["quality"] < BAR).sum()
        assert row["wrong_to_right"] == (wrong["quality"] >= BAR).sum()
        for field, chance, group in (
            ("random_right_to_wrong", {one: 1 - share for one, share in random.items()}, right),
            ("random_wrong_to_right", random, wrong),
            ("null_wrong_to_right", lucky, wrong),
        ):
            known = [chance[one] for one in group.index if one in chance]
            expected = np.mean(known) * len(group) if known else np.nan
            assert row[field] == pytest.approx(expected, nan_ok=True), field
    assert mine.set_index("over").loc[MACRO, ["right", "null_wrong_to_right"]].isna().all()
    assert (
        rows["wrong_to_right"].sum() > 0 and rows["right_to_wrong"].sum() > 0 and rows["null_wrong_to_right"].sum() > 0
    )


def test_every_row_says_whether_it_is_held_out(folder: Path, rows: pd.DataFrame) -> None:
    said = rows.drop_duplicates("method").set_index("method")["held_out"]
    assert said.to_dict() == {
        "full model": "nothing fitted",
        "oracle": "no: the oracle saw the references",
        "static": "yes: cross-validated, 5 folds",
        "router": "yes: cross-validated, 5 folds",
        "unified": "nothing fitted",
    }
    full = rows[rows["method"] == "full model"]
    assert (full["kept"] == 1).all() and full["random_right_to_wrong"].isna().all()
    notes = quality_kept(folder, (0.5,), resamples=0).notes
    assert any("without a table of their sequences, left out: 1" in note for note in notes), "ridge"
    assert any("No static masks were searched" in note for note in notes)


def test_static_masks_are_judged_on_what_they_were_not_chosen_on(folder: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "static", sequences=8, tries=6, tasks=2)
    write_static(run, LAYERS, budgets=(9, 6))
    [path] = (run / "static").glob("*.parquet")
    found = quality_kept(run, (0.9,), resamples=0)
    assert not (found.rows["method"] == "static mask").any()
    assert any("Static masks of an earlier version" in note and "9, 6" in note for note in found.notes)
    table = analysis.measurements.static_masks(run)
    chosen = table[table["chosen"]].drop_duplicates("budget")
    held_out = ["s0001", "s0004", "s0006"]
    known = {compact(row["allocation"]): [0.25, 0.5, 0.9] for row in chosen.to_dict("records")}
    about = {**table.attrs["provenance"], "held_out": held_out, "held_out_quality": known}
    written = table.drop(columns=["judge", "training_sequences", "held_out_sequences", "table"])
    write(run, f"static/{path.stem}", written, **about)
    rows = quality_kept(run, (0.9,), resamples=0).rows
    mine = rows[(rows["method"] == "static mask") & (rows["over"] == ALL)]
    assert mine["setting"].tolist() == ["budget=9", "budget=6"]
    assert mine["quality"].tolist() == pytest.approx([0.55, 0.55]) and (mine["sequences"] == 3).all()
    full = analysis.load(run).evaluations.query("number == 0").set_index("sequence")["rougeL"]
    assert mine["full_quality"].tolist() == pytest.approx([full[held_out].mean()] * 2)
    assert mine["fraction"].tolist() == chosen["fraction"].tolist()
    assert mine["held_out"].str.startswith("yes: chosen on ").all()


def test_other_views_and_bad_budgets(folder: Path) -> None:
    found = quality_kept(folder, (0.0, 0.5), criterion="chrf", resamples=0)
    assert set(found.rows["method"]) == {"full model", "oracle"} and found.metric == "chrf"
    assert any("judged by the run's own criterion" in note for note in found.notes)
    assert quality_kept(folder, (0.5,), criterion="rougeL", resamples=0).rows["method"].nunique() == 5
    alone = quality_kept(analysis.load(folder), (0.5,), resamples=0)
    assert set(alone.rows["method"]) == {"full model", "oracle"} and alone.rows["quality_low"].isna().all()
    tokens = quality_kept(folder, (0.5,), criterion="agreement", resamples=0)
    assert tokens.bar is None and tokens.rows["right"].isna().all()
    assert any("no right and wrong answers" in note for note in tokens.notes)
    for budgets in ((), (1.5,), (-0.1, 0.5), (float("nan"),)):
        with pytest.raises(InputError, match="from 0 to 1"):
            quality_kept(folder, budgets)


def test_budgets_below_the_cheapest_allocations_are_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "dear", sequences=4, tries=2)
    least = analysis.load(run).evaluations.groupby("sequence")["cost"].min().mean() / LAYERS
    found = quality_kept(run, (least / 2, 1.0), resamples=0)
    assert found.rows[found.rows["method"] == "oracle"]["setting"].unique().tolist() == ["budget=1"]
    assert any(f"the cheapest cost {least:.4f}" in note for note in found.notes)


def test_the_command_prints_and_refuses(command: Command, folder: Path) -> None:
    code, out, err = command("query", folder, "--kept", "0.5", "0.75", "--json")
    assert code == 0 and err.startswith("oracle: note: the search of ") and err.count("\n") == 1
    whole = json.loads(out)
    known = quality_kept(folder, (0.5, 0.75)).rows
    top = known[known["over"].isin([ALL, MACRO])]
    assert len(whole["rows"]) == len(top) and whole["bar"] == BAR and whole["permutations"] == 10
    assert sorted(row["quality"] for row in whole["rows"]) == sorted(top["quality"])
    _, out, _ = command("query", folder, "--kept", "0.5", "--by-task", "--csv")
    assert out.count("task b") == 5 * 2, "the task and its name, five methods"
    code, out, err = command("query", folder, "--kept", "--latex")
    assert code == 0 and out.count("% Right: rougeL of at least 0.5.") == 1 and err.startswith("oracle: note: ")
    code, out, _ = command("query", folder, "--kept")
    assert code == 0 and "oracle budget=0.75" in out and "10 permutations" in out and "over all" not in out
    code, out, err = command("query", folder, "--kept", "--sequence", "s0001")
    assert (code, out) == (2, "") and "--kept works alone or with --by-task, not with --sequence; omit one" in err
    code, _, err = command("query", folder, "--kept", "2")
    assert code == 2 and "--kept needs a fraction of the layers from 0 to 1, not 2; 2 of 12 layers is 0.167" in err
