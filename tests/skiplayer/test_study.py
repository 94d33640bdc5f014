"""A whole study on a tiny model: what it writes, that it resumes, and what the command says."""

import json

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
    assert arms.loc["random", "flops"] < arms.loc["full", "flops"]
    assert results.density_error == abs(arms.loc["skiplayer", "density"] - config.density)
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


def test_the_dense_model_is_the_one_of_nearest_flops(study):
    arms = study[2].arms.set_index("arm")
    per_layer = (arms.loc["full", "flops"] - arms.loc["dense", "flops"]) / (
        arms.loc["full", "layers"] - arms.loc["dense", "layers"]
    )
    at_target = arms.loc["random", "flops"]
    assert abs(arms.loc["dense", "flops"] - at_target) < 0.75 * per_layer


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
    assert [path.suffix for path in files] == [".png", ".pdf", ".csv"]
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
