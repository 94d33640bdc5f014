"""Training: seeded, resumed exactly, and refused where it cannot go on."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from oracle.errors import InputError, Interrupted
from oracle.skiplayer.config import ARMS, SkipConfig
from oracle.skiplayer.tasks import questions
from oracle.skiplayer.text import load_corpus
from oracle.skiplayer.train import Learner, train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("arm", ARMS)
def test_a_resumed_training_ends_with_the_very_same_weights(arm, small, tmp_path):
    config = SkipConfig(**small)
    corpus = load_corpus(config)
    whole = Learner(arm, config, 256)
    train(whole, corpus)
    path, stops = tmp_path / "arm.safetensors", iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        train(Learner(arm, config, 256), corpus, path, stop=lambda: next(stops))
    resumed = Learner(arm, config, 256)
    train(resumed, corpus, path)
    assert resumed.done == 8
    assert resumed.losses == whole.losses
    assert all(torch.equal(one, whole.state_dict()[name]) for name, one in resumed.state_dict().items())


def test_training_learns(small):
    config = SkipConfig(**{**small, "steps": 40, "task_share": 0.0})
    learner = Learner("skiplayer", config, 256)
    train(learner, load_corpus(config))
    assert np.mean(learner.losses[-5:]) < np.mean(learner.losses[:5]) - 0.5


def test_a_checkpoint_of_another_arm_or_a_damaged_one_is_refused(small, tmp_path):
    config, path = SkipConfig(**small), tmp_path / "arm.safetensors"
    learner = Learner("full", config, 256)
    train(learner, load_corpus(config), path)
    with pytest.raises(InputError, match="arm is 'full', not 'random'"):
        Learner("random", config, 256).load(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable tensor file"):
        Learner("full", config, 256).load(path)


def test_batches_depend_on_seed_and_step_alone(small):
    config = SkipConfig(**small)
    corpus = load_corpus(config)
    assert np.array_equal(corpus.batch(config, 5), corpus.batch(config, 5))
    assert not np.array_equal(corpus.batch(config, 5), corpus.batch(config, 6))
    assert corpus.batch(config, 0).shape == (4, 33)


def test_nothing_held_out_is_trained_on(small):
    corpus = load_corpus(SkipConfig(**small))
    train_text = bytes(corpus.train.astype(np.uint8)).decode()
    held_out = bytes(corpus.held_out.astype(np.uint8)).decode()
    assert held_out == corpus.cloze
    assert not set(held_out.split("\n\n")) & set(train_text.split("\n\n"))
    assert 0.05 < len(held_out) / (len(held_out) + len(train_text)) < 0.15


def test_text_without_blank_lines_is_cut_at_its_lines(small, text_file, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text(text_file.read_text().replace("\n\n", "\n"))
    corpus = load_corpus(SkipConfig(**{**small, "text": (str(lines),)}))
    assert corpus.cloze == load_corpus(SkipConfig(**small)).cloze


def test_the_text_that_comes_along_is_enough_for_the_defaults():
    config = SkipConfig()
    corpus = load_corpus(config)
    assert len(corpus.train) > 200_000
    assert corpus.rows(config).shape == (config.validation, config.context + 1)


RULES = {
    "copy": lambda text: text,
    "reverse": lambda text: text[::-1],
    "add": lambda text: str(sum(map(int, text.split("+")))),
    "lookup": lambda text: next(pair[1:] for pair in text.split()[:-1] if pair[0] == text.split()[-1]),
}


def test_questions_are_one_shot_and_have_one_right_answer(small):
    held_out = load_corpus(SkipConfig(**small)).cloze
    asked = questions(held_out, 12, seed=0)
    assert Counter(one.task for one in asked) == dict.fromkeys((*RULES, "cloze"), 12)
    assert asked == questions(held_out, 12, seed=0)
    for one in asked:
        right = one.choices[one.answer]
        assert len(set(one.choices)) == 4
        if one.task == "cloze":
            assert one.prompt + right in held_out
            continue
        example, question = one.prompt.split("\n")
        for line in (example, question + right.strip()):
            given, answer = line.removeprefix(f"{one.task}: ").split(" = ")
            assert RULES[one.task](given) == answer
    assert len({one.answer for one in asked}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": 1.5}, "share from 0 to 1"),
        ({"width": 15}, "multiple of twice the 2 heads"),
        ({"arms": ("skiplayer", "clever")}, "not 'clever'"),
        ({"unit": "head"}, "--unit needs one of layer, module"),
        ({"device": "tpu"}, "--device needs auto, cpu, cuda or cuda:N"),
        ({"density_weight": -1.0}, "--density-weight needs a number of at least 0"),
        ({"steps": 0}, "--steps needs at least 1"),
        ({"learning_rate": float("nan")}, "--learning-rate needs a number above 0"),
    ],
)
def test_settings_are_checked(changes, message, small):
    with pytest.raises(InputError, match=message):
        SkipConfig(**{**small, **changes})


def test_settings_survive_json(small):
    config = SkipConfig(**small)
    assert SkipConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(InputError, match="not those of this layer-oracle"):
        SkipConfig.from_dict({**config.to_dict(), "depth": 3})


def test_a_tokenizer_of_the_library_can_stand_for_bytes(small, tiny_model, tmp_path):
    path = tmp_path / "tokenizer.json"
    tiny_model.tokenizer.backend_tokenizer.save(str(path))
    config = SkipConfig(**{**small, "tokenizer": str(path)})
    corpus = load_corpus(config)
    assert corpus.tokenizer.size == 258
    assert tiny_model.tokenizer.decode(corpus.held_out.tolist()) == corpus.cloze
    assert corpus.batch(config, 0).shape == (4, 33)
    path.write_text("{}")
    with pytest.raises(InputError, match="is no tokenizer"):
        load_corpus(config)


def test_text_that_cannot_be_used_is_refused(small, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("A line.\n")
    with pytest.raises(InputError, match="text of at least"):
        load_corpus(SkipConfig(**{**small, "text": (str(short),)}))
    short.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_corpus(SkipConfig(**{**small, "text": (str(short),)}))
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        load_corpus(SkipConfig(**{**small, "tokenizer": str(tmp_path / "none.json")}))
