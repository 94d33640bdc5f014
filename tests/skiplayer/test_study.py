"""A whole study on a tiny model: what it writes, that it resumes, and what the command says."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from skiplayer.small import SMALL

from oracle.errors import InputError, Interrupted
from oracle.skiplayer import SkipConfig, benchmark_study, resume_study, run_study
from oracle.skiplayer.config import ARMS
from oracle.skiplayer.early_exit import Confidence
from oracle.skiplayer.figure import draw_study
from oracle.skiplayer.measure import answers, measure
from oracle.skiplayer.model import Model
from oracle.skiplayer.study import _Study
from oracle.skiplayer.study_folder import Folder
from oracle.skiplayer.tasks import Question
from oracle.skiplayer.text import ByteTokenizer, load_corpus
from oracle.skiplayer.train import Learner
from oracle.store.files import read_table

pytestmark = pytest.mark.slow


@pytest.fixture
def config(text_file):
    return SkipConfig(**SMALL, text=(str(text_file),))


@pytest.fixture(scope="session")
def study(text_file, tmp_path_factory):
    config = SkipConfig(**SMALL, text=(str(text_file),))
    folder = tmp_path_factory.mktemp("study") / "whole"
    return config, folder, run_study(config, folder)


def test_a_study_measures_every_arm(study):
    config, folder, results = study
    arms = results.arms.set_index("arm")
    assert list(arms.index) == list(ARMS)
    assert ((arms["loss_low"] <= arms["loss"]) & (arms["loss"] <= arms["loss_high"])).all()
    assert (arms["loss"] < np.log(256)).all()
    assert arms.loc["full", "density"] == arms.loc["dense", "density"] == 1
    assert arms.loc["random", "density"] == pytest.approx(config.density, abs=0.1)
    assert arms.loc["dense", "layers"] < arms.loc["full", "layers"] == config.layers
    assert set(results.training["seed"]) == {0, 1}
    assert arms.loc["random", "flops"] < arms.loc["full", "flops"]
    executed = results.density.groupby("arm")["executed"].mean()
    assert all(executed[arm] == pytest.approx(arms.loc[arm, "density"]) for arm in ARMS)
    assert set(results.tasks["questions"]) == {3}
    assert results.curve["density"].is_monotonic_increasing
    assert results.curve.iloc[-1]["loss"] == pytest.approx(measure_all(config, folder), rel=1e-6), (
        "at the last threshold no token exits"
    )


def measure_all(config, folder):
    learner, corpus = Learner("early-exit", config, 256), load_corpus(config)
    learner.load(folder / "early-exit.safetensors")
    return measure(learner.model, lambda: None, corpus.rows(config)).loss


def test_the_dense_model_is_interpolated_at_equal_flops(study):
    """On the line through the two trained neighbours, seed by seed, at the FLOPs of SkipLayer."""
    config, folder, results = study
    corpus, rows_RT = load_corpus(config), load_corpus(config).rows(config)
    losses, skips, layers, outside = [], [], [], 0
    for seed in (0, 1):
        end = f"-seed{seed}" if seed else ""
        points = []
        for depth in (1, 2):
            learner = Learner("dense", config, corpus.tokenizer.size, depth)
            learner.load(folder / f"dense-{depth}{end}.safetensors")
            points.append(measure(learner.model, lambda: None, rows_RT))
        skip = Learner("skiplayer", config, corpus.tokenizer.size)
        skip.load(folder / f"skiplayer{end}.safetensors")
        one = measure(skip.model, skip.gates, rows_RT)
        assert points[0].flops < points[1].flops
        outside += not points[0].flops <= one.flops <= points[1].flops
        losses.append(np.polyval(np.polyfit([p.flops for p in points], [p.loss for p in points], 1), one.flops))
        layers.append(np.polyval(np.polyfit([p.flops for p in points], [1, 2], 1), one.flops))
        skips.append(one)
    assert results.extrapolated == outside
    arms = results.arms.set_index("arm")
    assert arms.loc["dense", "flops"] == pytest.approx(arms.loc["skiplayer", "flops"])
    assert arms.loc["dense", "loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert arms.loc["dense", "layers"] == pytest.approx(np.mean(layers), rel=1e-6)
    difference = [loss - one.loss for loss, one in zip(losses, skips, strict=True)]
    assert arms.loc["dense", "difference"] == pytest.approx(np.mean(difference), abs=1e-7)
    # Two seeds: the mean -+ t(0.975; 1) |a - b| / 2.
    half = 12.7062 * abs(difference[0] - difference[1]) / 2
    assert arms.loc["dense", "difference_high"] == pytest.approx(np.mean(difference) + half, rel=1e-4)
    assert results.density_error == pytest.approx(np.mean([abs(one.density - config.density) for one in skips]))


def test_the_depths_enclose_the_target(config):
    corpus = load_corpus(config)
    study = _Study(replace(config, layers=8), corpus, None)
    rows_RT = corpus.rows(config)
    for density in (0.0, 0.3, 0.6, 1.0):
        routed = _Study(replace(config, layers=8, density=density), corpus, None)
        target = routed._flops(8, rows_RT, random=True)
        low, high = routed._depths(rows_RT, target)
        assert high == low + 1
        assert study._flops(low, rows_RT) <= target or low == 1
        assert target <= study._flops(high, rows_RT)


def test_one_seed_has_an_interval_over_rows(text_file, tmp_path):
    config = SkipConfig(**{**SMALL, "seeds": 1}, text=(str(text_file),), arms=("full",))
    results = run_study(config, tmp_path / "one")
    learner, corpus = Learner("full", config, 256), load_corpus(config)
    learner.load(tmp_path / "one" / "full.safetensors")
    loss_R = measure(learner.model, lambda: None, corpus.rows(config)).loss_R
    [row] = results.arms.to_dict("records")
    assert loss_R.min() <= row["loss_low"] < row["loss"] < row["loss_high"] <= loss_R.max()


def test_studies_of_earlier_versions_have_one_seed(config):
    values = {name: value for name, value in config.to_dict().items() if name != "seeds"}
    assert SkipConfig.from_dict(values).seeds == 1


def test_leaving_costs_one_head(config):
    """A token that exits at the first layer: that layer, the keys and values of the others, and one head."""
    learner, corpus = Learner("early-exit", config, 256), load_corpus(config)
    rows_RT = corpus.rows(config)
    head = 2 * config.width * 256
    first = measure(learner.model, lambda: Confidence(learner.model, 0.0), rows_RT)
    never = measure(learner.model, lambda: Confidence(learner.model, 1.1), rows_RT)
    plain = measure(learner.model, lambda: None, rows_RT)
    assert never.flops == pytest.approx(plain.flops + 2 * head), "two exits are asked in vain"
    states = 2 * config.width * 2 * config.width
    one_layer = measure(Model(config, 256, 1), lambda: None, rows_RT)
    assert first.flops == pytest.approx(one_layer.flops + 2 * states)


def test_what_is_written_is_what_was_found_and_says_where_it_comes_from(study):
    _, folder, results = study
    for name, frame in results.frames().items():
        table = read_table(folder / f"{name}.parquet")
        pd.testing.assert_frame_equal(table.to_pandas(), frame, check_dtype=False)
        assert json.loads(table.schema.metadata[b"provenance"])["text"]["digest"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["density_error"] == results.density_error
    assert summary["versions"]["torch"]
    files = draw_study(results, folder / "skiplayer", Folder.open(folder).manifest)
    assert [path.suffix for path in files] == [".png", ".pdf", ".csv", ".txt", ".json"]
    assert all(path.stat().st_size > 5000 for path in files[:2])


def test_a_resumed_study_ends_with_the_same_numbers(study, tmp_path):
    config, _, whole = study
    stops = iter([False] * 11 + [True])
    with pytest.raises(Interrupted):
        run_study(config, tmp_path / "study", stop=lambda: next(stops))
    resumed = resume_study(tmp_path / "study")
    unequal = ["tokens_per_second"]
    pd.testing.assert_frame_equal(resumed.arms.drop(columns=unequal), whole.arms.drop(columns=unequal))
    pd.testing.assert_frame_equal(resumed.training, whole.training)


def test_a_study_is_not_resumed_on_other_text(study, tmp_path, text_file):
    config, folder, _ = study
    manifest = json.loads((folder / "manifest.json").read_text())
    other = tmp_path / "other.txt"
    other.write_text(text_file.read_text().replace("river", "ocean"))
    manifest["config"]["text"] = [str(other)]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="was trained on other text"):
        resume_study(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="folder of a SkipLayer study is required"):
        resume_study(tmp_path)
    with pytest.raises(InputError, match="already exists"):
        run_study(config, folder)


def test_an_unfinished_study_in_the_way_names_how_to_go_on(config, tmp_path):
    corpus = load_corpus(config)
    Folder.create(tmp_path / "study", config, corpus)
    with pytest.raises(InputError, match=r"already exists; continue the unfinished study with --resume .*study, "):
        Folder.create(tmp_path / "study", config, corpus)


def test_who_has_left_does_not_come_back(config):
    learner = Learner("early-exit", config, 256)
    corpus = load_corpus(config)
    rates = [
        measure(learner.model, lambda one=one: Confidence(learner.model, one), corpus.rows(config)).density_U
        for one in (0.0, 0.0002, 1.1)
    ]
    assert rates[0].tolist() == [1, 0, 0]
    assert (np.diff(rates[1]) <= 0).all()
    assert rates[2].tolist() == [1, 1, 1]


@pytest.mark.parametrize("prompt", ["copy: ab = ab\ncopy: xyz = ", "a prompt that is longer than the context, by far"])
def test_the_likeliest_choice_is_the_answer(prompt, config):
    learner = Learner("full", config, 256)
    choices = ("xyz\n", "ab\n", "qqqqq\n")
    likelihoods = []
    for choice in choices:
        ids = ByteTokenizer().encode(prompt + choice)[-33:]
        logits_TV = learner.model.logits(learner.model(torch.tensor([ids[:-1]])).hidden_RTD)[0].log_softmax(-1)
        gold_T = logits_TV.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        likelihoods.append(gold_T[-len(choice) :].mean().item())
    best = int(np.argmax(likelihoods))
    asked = [Question(task="copy", prompt=prompt, choices=choices, answer=place) for place in range(3)]
    assert answers(learner.model, lambda: None, asked, ByteTokenizer()).tolist() == [
        place == best for place in range(3)
    ]


def test_the_trial_gives_the_numbers_of_the_benchmark(config):
    found = benchmark_study(seeds=(0, 1), config=config)
    assert [one["seed"] for one in found["seeds"]] == [0, 1]
    errors = [abs(one["density"] - config.density) for one in found["seeds"]]
    assert found["skiplayer_density_error"] == pytest.approx(np.mean(errors))
    differences = [one["loss"] - one["random_loss"] for one in found["seeds"]]
    assert found["skiplayer_minus_random"] == pytest.approx(np.mean(differences))
    json.dumps(found)


def test_the_command_trains_resumes_and_refuses(text_file, tmp_path, command):
    small = [
        text
        for name, value in SMALL.items()
        if name not in ("warmup", "checkpoint")
        for text in (f"--{name.replace('_', '-')}", value)
    ]
    out = tmp_path / "study"
    arguments = ["skiplayer", "--out", out, "--text", text_file, "--arms", "skiplayer", "random", *small]
    code, printed, _ = command(*arguments)
    assert code == 0
    assert "SkipLayer misses its target density by" in printed
    assert (out / "skiplayer.png").is_file()
    code, printed, _ = command("skiplayer", "--resume", out, "--json")
    assert code == 0
    assert [row["arm"] for row in json.loads(printed)["arms"]] == ["skiplayer", "random"]
    for wrong, message in (
        (["skiplayer"], "exactly one of --out"),
        (["skiplayer", "--resume", out, "--steps", 9], "omit --steps"),
        (arguments, "already exists"),
    ):
        code, _, error = command(*wrong)
        assert code == 2
        assert message in error
