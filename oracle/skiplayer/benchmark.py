"""Benchmark of SkipLayer: error of the executed density, and loss against a random router."""

from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

from oracle.skiplayer.config import PRESETS, SkipConfig
from oracle.skiplayer.measure import measure
from oracle.skiplayer.text import load_corpus
from oracle.skiplayer.train import Learner, train
from oracle.utils.progress import Watch, silent

__all__ = ["benchmark_study"]


def benchmark_study(
    seeds: Seq[int] = (0, 1, 2), config: SkipConfig | None = None, *, watch: Watch = silent
) -> dict[str, Any]:
    """Trains SkipLayer and a random router of the same density per seed, and compares them on held-out text.

    Args:
        seeds: seeds of weights, batches and noise; the text is the same for all.
        config: shape, steps and target; by default the preset `trial`, small enough for a benchmark.
        watch: reports progress.

    Returns:
        `skiplayer_density_error`: mean over seeds of |executed - target| at inference. `skiplayer_minus_random`: mean
        difference of validation losses in nats/token, negative if routing helps. `seeds`: per seed `seed`, `density`,
        `density_by_unit`, `loss`, `random_density`, `random_loss`, `difference`. `target`, and `config`: the settings.
    """
    config = config or PRESETS["trial"]
    found = [_one(replace(config, seed=seed), watch) for seed in seeds]
    errors = [abs(one["density"] - config.density) for one in found]
    return {
        "skiplayer_density_error": sum(errors) / len(errors),
        "skiplayer_minus_random": sum(one["difference"] for one in found) / len(found),
        "target": config.density,
        "seeds": found,
        "config": config.to_dict(),
    }


def _one(config: SkipConfig, watch: Watch) -> dict[str, Any]:
    corpus = load_corpus(config)
    measured = {}
    for arm in ("skiplayer", "random"):
        learner = Learner(arm, config, corpus.tokenizer.size)
        train(learner, corpus, watch=watch)
        measured[arm] = measure(learner.model, learner.gates, corpus.rows(config))
    skip, chance = measured["skiplayer"], measured["random"]
    return {
        "seed": config.seed,
        "density": skip.density,
        "density_by_unit": skip.density_U.tolist(),
        "loss": skip.loss,
        "random_density": chance.density,
        "random_loss": chance.loss,
        "difference": skip.loss - chance.loss,
    }
